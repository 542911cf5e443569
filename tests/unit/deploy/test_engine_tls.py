"""The certificate of docs/deploy.md, made by its commands: gRPC takes it under the names that the scheduler calls."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from ssjf.service.engine.tls import EngineTls
from tests.unit.deploy.manifests import of_kind
from tests.unit.deploy.page import block_of

SECRET = ("ca.crt", "tls.crt", "tls.key")
COMMANDS = block_of("test_engine_tls.py")


def engine_names() -> list[str]:
    """Of the overlay many-engines, as the scheduler is told them."""
    (settings,) = (each["data"] for each in of_kind("many-engines", "ConfigMap") if "SSJF_ENGINE_URL" in each["data"])
    return [url.rpartition(":")[0] for url in settings["SSJF_ENGINE_URL"].split(",")]


def wildcard() -> str:
    """What the certificate has to be for."""
    (engines,) = of_kind("many-engines", "StatefulSet")
    return f"*.{engines['spec']['serviceName']}.{engines['metadata']['namespace']}.svc"


def make(folder: Path, commands: str) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make certificates")
    script = f'set -euo pipefail\nkubectl() {{ printf "%s\\n" "$@" > secret; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def engine(folder: Path) -> Iterator[int]:
    """The port of a server that knows no method and asks for a certificate, as an engine does."""
    ca, cert, key = ((folder / name).read_bytes() for name in SECRET)
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, cert)], ca, True))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(10)


def answer(port: int, name: str, folder: Path) -> grpc.StatusCode:
    """What the scheduler's credentials get from the engine when it is called by `name`."""
    credentials = EngineTls(*(folder / each for each in SECRET)).credentials()
    assert credentials is not None
    options = (("grpc.ssl_target_name_override", name),)
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
        with pytest.raises(grpc.RpcError) as ended:
            channel.unary_unary("/engine/Ask")(b"", timeout=20)  # type: ignore[arg-type]
        code: grpc.StatusCode = ended.value.code()
    return code


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tls"), COMMANDS)


def test_the_page_names_the_engines_of_the_overlay() -> None:
    assert f"subjectAltName=DNS:{wildcard()}" in COMMANDS
    assert {f"*.{name.partition('.')[2]}" for name in engine_names()} == {wildcard()}


def test_the_secret_has_the_files_that_the_pods_read(made: Path) -> None:
    files = [f"--from-file={name}" for name in SECRET]
    assert (made / "secret").read_text().split() == ["create", "secret", "generic", "ssjf-tls", *files]


def test_grpc_takes_the_certificate_for_every_engine_and_nobody_else(made: Path) -> None:
    with engine(made) as port:
        answers = {name: answer(port, name, made) for name in engine_names()}
        assert set(answers.values()) == {grpc.StatusCode.UNIMPLEMENTED}, answers
        elsewhere = engine_names()[0].replace(".default.", ".elsewhere.")
        assert answer(port, elsewhere, made) is grpc.StatusCode.UNAVAILABLE
