from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from ssjf.service.engine.endpoint import EngineEndpoint
from ssjf.service.engine.tls import EngineTls
from tests.unit.service.engines import FOUR, QUICK
from tests.unit.service.fake_triton import FakeTriton, free_port
from tests.unit.service.harness import Bench, run


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost; it is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(("ours", "answered"), [(True, True), (False, False)])
def test_the_way_to_the_engine_can_be_encrypted_both_ways(certificates: Path, ours: bool, answered: bool) -> None:
    cert, key = certificates / "cert.pem", certificates / "key.pem"
    server = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())], cert.read_bytes(), True)
    tls = EngineTls(ca=cert, cert=cert if ours else None, key=key if ours else None)
    port = free_port()

    async def scenario(bench: Bench) -> None:
        engine = await FakeTriton(port, credentials=server).start()
        try:
            client = bench.send("secret", parameters={"deadline_ms": 10_000 if answered else 300})
            await bench.ended(client)
            assert (client.text == "secret") is answered
            assert bool(engine.requests) is answered
        finally:
            await engine.stop()

    run(scenario, FOUR, QUICK, lambda adapter: [EngineEndpoint(f"localhost:{port}", adapter, tls.credentials())])
