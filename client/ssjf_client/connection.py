"""How a client reaches its server: address, TLS, headers and the options of the gRPC channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from .errors import InvalidRequest

__all__ = ["TlsOptions", "channel_credentials", "channel_options", "checked_url", "metadata_pairs"]

# A peer that vanishes without a word (power, firewall) is noticed by keepalive. Triton tolerates a ping per 300 s on a
# silent connection (`--grpc-http2-min-recv-ping-interval-without-data`) and closes connections that ping more.
_KEEPALIVE_MS: Final = 310_000
_KEEPALIVE_TIMEOUT_MS: Final = 20_000
_MAX_MESSAGE_BYTES: Final = 2**31 - 1  # Triton's own limit


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """PEM files. Without `root_certificates` the roots that gRPC finds are used; key and chain go together (mTLS)."""

    root_certificates: str | Path | None = None
    certificate_chain: str | Path | None = None
    private_key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise InvalidRequest("tls: certificate_chain and private_key must be given together", "tls")


def checked_url(url: str) -> str:
    """`host:port` as gRPC wants it. Raises InvalidRequest for an http:// address, the usual mistake."""
    if url.startswith(("http://", "https://", "grpc://")) or not url.strip():
        raise InvalidRequest(f"url={url!r}: must be host:port of the gRPC endpoint, 127.0.0.1:8001 say", "url")
    return url


def channel_options() -> list[tuple[str, int]]:
    """Options of the gRPC channel, with the reasons above."""
    return [
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _read(name: str, path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"tls: {name}={str(path)!r}: must be a readable file ({error.strerror})", "tls") from error


def channel_credentials(tls: TlsOptions) -> Any:
    """`grpc.ChannelCredentials` from the files. Raises InvalidRequest when one cannot be read."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read("root_certificates", tls.root_certificates),
        private_key=_read("private_key", tls.private_key),
        certificate_chain=_read("certificate_chain", tls.certificate_chain),
    )


def metadata_pairs(metadata: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC wants them: lower-case names, in order."""
    return tuple((name.lower(), value) for name, value in (metadata or {}).items())
