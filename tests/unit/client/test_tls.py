from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ssjf_client import Client, ConnectionLost, TlsOptions
from tests.unit.client.fake_triton import FakeTriton

# A certificate for localhost, signed by itself with the key beside it, valid for a century and trusted by nobody.
CERTIFICATE = Path(__file__).parent / "tls" / "test-only.pem"
KEY = Path(__file__).parent / "tls" / "test-only.key"


@pytest.fixture
def secure_triton() -> Iterator[FakeTriton]:
    """Asks its clients for a certificate, too."""
    credentials = grpc.ssl_server_credentials(
        [(KEY.read_bytes(), CERTIFICATE.read_bytes())],
        root_certificates=CERTIFICATE.read_bytes(),
        require_client_auth=True,
    )
    server = FakeTriton(credentials)
    yield server
    server.stop()


def test_both_sides_show_certificates(secure_triton: FakeTriton) -> None:
    tls = TlsOptions(root_certificates=CERTIFICATE, certificate_chain=CERTIFICATE, private_key=KEY)
    with Client(f"localhost:{secure_triton.port}", tls=tls) as client:
        assert client.generate("hi", timeout_s=10).text == "Hello world!"


def test_without_a_client_certificate_there_is_no_connection(secure_triton: FakeTriton) -> None:
    tls = TlsOptions(root_certificates=CERTIFICATE)
    with Client(f"localhost:{secure_triton.port}", tls=tls) as client, pytest.raises(ConnectionLost):
        client.generate("hi", timeout_s=10)
    assert secure_triton.received == []


def test_without_tls_a_tls_server_is_no_connection(secure_triton: FakeTriton) -> None:
    with Client(f"localhost:{secure_triton.port}") as client, pytest.raises(ConnectionLost):
        client.generate("hi", timeout_s=10)
