"""Encryption of the hop to the engine, when the engine is not on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class EngineTls:
    """PEM files: the authority that signed the engine's certificate (None: the system's), our certificate and key.

    A certificate of ours is for engines that ask their clients for one (mutual TLS).
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials for a channel; None when no file is named: plain text.

        Raises ValueError naming the setting whose file cannot be read.
        """
        if self.ca is None and self.cert is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_read("engine_tls_ca", self.ca),
            private_key=_read("engine_tls_key", self.key),
            certificate_chain=_read("engine_tls_cert", self.cert),
        )


def _read(setting: str, path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise ValueError(f"{setting} is {str(path)!r}: {error.strerror}, expected a PEM file") from None
