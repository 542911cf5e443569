"""A certificate for localhost that is its own authority, made anew for each test run."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    cert: Path
    key: Path
    pem: Path
    """Both in one file, as HAProxy wants them."""


def make_certificate(folder: Path) -> Certificate:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    made = Certificate(folder / "cert.pem", folder / "key.pem", folder / "site.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", made.key, "-out", made.cert, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    made.pem.write_bytes(made.cert.read_bytes() + made.key.read_bytes())
    return made
