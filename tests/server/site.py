"""A small site of real programs: two schedulers behind HAProxy, one with its engine in a server of its own."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from ssjf_client import Client, ClientError, TlsOptions
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve import layout
from ssjf_tools.serve.throwaway import Throwaway, free_ports, throwaway_server
from tests.server.asking import TIMEOUT_S
from tests.unit.deploy.certificate import Certificate, make_certificate
from tests.unit.deploy.manifests import of_kind, ours
from tests.unit.deploy.programs import haproxy

DEPLOY = CHECKOUT / "deploy"
INSTANT_ENGINE = {"tensorrt_llm": CHECKOUT / "scripts" / "ssjf_tools" / "bench" / "instant_llm"}
PACE = {"SSJF_STEP_S": "0.01", "SSJF_MAX_INFLIGHT": "8"}
KEY = "0123456789abcdef"
ENDPOINTS = 2
# One call of each group that the deployment restricts, and one of each that clients need.
ADMINISTRATION = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="unary"),
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="unary"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=8),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
}
OPEN = {
    "ServerReady": service_pb2.ServerReadyRequest(),
    "ModelReady": service_pb2.ModelReadyRequest(name="ensemble"),
    "ModelMetadata": service_pb2.ModelMetadataRequest(name="ensemble"),
    "ModelConfig": service_pb2.ModelConfigRequest(name="ensemble"),
    "ModelStatistics": service_pb2.ModelStatisticsRequest(name="ensemble"),
}
HTTP_ADMINISTRATION = (
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/unary/unload"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/logging"),
)


@dataclass(frozen=True)
class Site:
    """The servers: `one` is whole; `two` is a scheduler whose engine is `engine`, reached by mutual TLS."""

    one: Throwaway
    two: Throwaway
    engine: Throwaway
    journal: Path
    certificate: Certificate


def engine_arguments(certificate: Certificate) -> tuple[str, ...]:
    """What the overlay `many-engines` gives an engine's tritonserver, with our certificate and key for its own."""
    (engines,) = of_kind("many-engines", "StatefulSet")
    _program, *words = engines["spec"]["template"]["spec"]["containers"][0]["args"]
    files = {"ca.crt": certificate.cert, "tls.crt": certificate.cert, "tls.key": certificate.key}
    text = "\n".join(word for word in words if not word.startswith("--model-repository"))
    for name, path in files.items():
        text = text.replace(f"/etc/ssjf/tls/{name}", str(path))
    return tuple(text.replace("$(SSJF_ADMIN_KEY)", KEY).split("\n"))


def scheduler_arguments() -> tuple[str, ...]:
    """What the same overlay's scheduler hands on to its tritonserver."""
    ((_pod, container),) = ours("many-engines")
    return tuple(container["args"][container["args"].index("--") + 1 :])


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """Started side by side; a server's start is mostly waiting for its Python processes."""
    certificate, journal = make_certificate(folder), folder / "journal.jsonl"
    restricted = tuple(layout.restrictions(KEY))
    with ExitStack() as stack, ThreadPoolExecutor(ENDPOINTS) as pool:
        engine = stack.enter_context(throwaway_server(PACE, INSTANT_ENGINE, engine_arguments(certificate)))
        far = {
            "SSJF_ENGINE_URL": engine.grpc_url.replace("127.0.0.1", "localhost"),
            "SSJF_ENGINE_TLS_CA": str(certificate.cert),
            "SSJF_ENGINE_TLS_CERT": str(certificate.cert),
            "SSJF_ENGINE_TLS_KEY": str(certificate.key),
        }
        made = [
            throwaway_server(PACE | {"SSJF_JOURNAL_PATH": str(journal)}, INSTANT_ENGINE, restricted),
            throwaway_server(PACE | far, INSTANT_ENGINE, (*scheduler_arguments(), *restricted)),
        ]
        one, two = pool.map(stack.enter_context, made)
        for each in (one, two, engine):  # ending politely would take each of them five seconds
            stack.callback(each.server.kill)
        yield Site(one, two, engine, journal, certificate)


@contextmanager
def running(command: list[str | Path], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A program for as long as the block; ended by its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(what: str, condition: Callable[[], bool], log: Path, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{what}; the program's log:\n{log.read_text(errors='replace')[-2000:]}")


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy with deploy/haproxy/haproxy.cfg."""

    port: int
    admin: Path
    certificate: Path

    def client(self) -> Client:
        return Client(f"localhost:{self.port}", tls=TlsOptions(root_certificates=str(self.certificate)))

    def command(self, words: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.admin))
            connection.sendall(f"{words}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def states(self) -> dict[str, str]:
        """Server of the gRPC backend to UP, DOWN, DRAIN, …"""
        return self._column("grpc", "status")

    def checks(self) -> dict[str, str]:
        """Server to the result of its last check: L7OK, L7RSP, …"""
        return self._column("http", "check_status")

    def set_state(self, server: str, state: str) -> None:
        """As deploy/haproxy/haproxy.cfg tells operators to."""
        for backend in ("grpc", "http"):
            self.command(f"set server {backend}/{server} state {state}")

    def _column(self, backend: str, name: str) -> dict[str, str]:
        head, *lines = (line.split(",") for line in self.command("show stat").splitlines() if line)
        column = head.index(name)
        return {line[1]: line[column].split()[0] for line in lines if line[0] == backend and line[1] in ("one", "two")}

    def http(self, method: str, path: str, body: str | None = None) -> int:
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection("localhost", self.port, context=context, timeout=TIMEOUT_S)
        connection.request(method, path, body=body, headers={"Content-Type": "application/json"} if body else {})
        return connection.getresponse().status


@contextmanager
def running_balancer(site: Site, folder: Path) -> Iterator[Balancer]:
    """Once its checks of both servers have passed: before the first one a server counts as up."""
    (port,) = free_ports(1)
    made = Balancer(port, folder / "admin.sock", site.certificate.cert)
    variables = {
        "SSJF_BIND": f"127.0.0.1:{port}",
        "SSJF_PEM": str(site.certificate.pem),
        "SSJF_ADMIN_SOCKET": str(made.admin),
        "PATH": os.environ["PATH"],
    }
    for name, server in (("ONE", site.one), ("TWO", site.two)):
        variables[f"SSJF_{name}"] = "127.0.0.1"
        variables[f"SSJF_{name}_GRPC"] = server.grpc_url.rpartition(":")[2]
        variables[f"SSJF_{name}_HTTP"] = server.http_url.rpartition(":")[2]
    with running([haproxy(), "-f", DEPLOY / "haproxy" / "haproxy.cfg"], folder / "log", variables):
        wait_until("checks do not pass", lambda: set(made.checks().values()) == {"L7OK"}, folder / "log")
        yield made


class Crowd:
    """Eight clients that ask one after the other, streaming, until told to stop; every end is noted."""

    def __init__(self, balancer: Balancer):
        self.ends: Counter[str] = Counter()
        self._balancer = balancer
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Crowd:  # noqa: PYI034 - typing.Self is not in Python 3.10
        self._threads = [threading.Thread(target=self._run) for _ in range(8)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _run(self) -> None:
        with self._balancer.client() as client:
            while not self._over.is_set():
                try:
                    text = "".join(chunk.text for chunk in client.stream("x", max_tokens=40))
                    end = "whole" if len(text) == 40 else f"{len(text)} of 40"
                except ClientError as error:
                    end = f"{type(error).__name__}: {error}"
                with self._lock:
                    self.ends[end] += 1
