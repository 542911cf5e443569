"""What deploy/ is made of, running: two schedulers behind HAProxy, one with its engine in a server of its own behind
mutual TLS; Prometheus; Triton's administration under a key; prompts that nobody writes down.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ssjf_client import Client, ClientError
from ssjf_tools.deploy import drain, health
from ssjf_tools.serve import layout
from ssjf_tools.serve.components import MODELS
from ssjf_tools.serve.throwaway import Throwaway
from tests.server.asking import TIMEOUT_S, post
from tests.server.scraping import queries, running_prometheus
from tests.server.site import (
    ADMINISTRATION,
    ENDPOINTS,
    HTTP_ADMINISTRATION,
    KEY,
    OPEN,
    Balancer,
    Crowd,
    Site,
    running_balancer,
    running_site,
    wait_until,
)
from tests.unit.deploy.manifests import of_kind

READ = (
    "ssjf_queue_time_seconds_count",
    "ssjf_waiting_requests",
    "ssjf_inflight_requests",
    "ssjf_queue_oldest_wait_seconds",
    "ssjf_engine_up",
)
SECRET = "marzipan-periscope-4711"  # a word that nobody else writes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def balancer(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    with running_balancer(site, tmp_path_factory.mktemp("haproxy")) as made:
        yield made


def look(server: Throwaway, *models: str) -> health.Look:
    return health.Look(server.grpc_url, frozenset(models) or MODELS, 4.0, server.token)


# -- health ------------------------------------------------------------------------------------------------------------


def test_health_of_servers_that_are_well(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--url", site.one.grpc_url, "--ready"]) == 0
    assert health.main(["--url", site.one.grpc_url]) == 0
    without = ",".join(sorted(MODELS - {"tensorrt_llm"}))
    assert health.main(["--url", site.two.grpc_url, "--ready", "--models", without]) == 0
    assert health.main(["--url", site.two.grpc_url, "--live", "--models", without]) == 0
    assert capsys.readouterr().out.split() == ["ready", "live", "ready", "live"]
    assert "tensorrt_llm" in health.why_not_ready(look(site.two))


def test_a_full_engine_is_alive(site: Site) -> None:
    """Eight slots, sixteen requests: even the engine's own tiny request may wait, and answers are being made."""
    with ThreadPoolExecutor(16) as clients, Client(site.one.grpc_url) as client:
        answers = [clients.submit(client.generate, "x", max_tokens=150) for _ in range(16)]
        time.sleep(0.5)
        assert health.why_not_live(look(site.one)) == ""
        assert [answer.result().output_tokens for answer in answers] == [150] * 16


def test_health_of_nobody() -> None:
    nobody = health.Look("127.0.0.1:1", MODELS, 0.5)
    assert "no answer" in health.why_not_live(nobody)
    assert health.why_not_ready(nobody) != ""


# -- administration ----------------------------------------------------------------------------------------------------


def test_clients_cannot_administer_triton(site: Site) -> None:
    with grpc.insecure_channel(site.one.grpc_url) as channel:
        triton = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name, request in ADMINISTRATION.items():
            for metadata in ((), ((f"triton-grpc-protocol-{layout.ADMIN_HEADER}", "wrong"),)):
                with pytest.raises(grpc.RpcError, match="restricted"):
                    getattr(triton, name)(request, timeout=10, metadata=metadata)
        for name, request in OPEN.items():
            getattr(triton, name)(request, timeout=10)
        key = ((f"triton-grpc-protocol-{layout.ADMIN_HEADER}", KEY),)
        index = triton.RepositoryIndex(ADMINISTRATION["RepositoryIndex"], timeout=10, metadata=key)
    assert {entry.name for entry in index.models} == set(MODELS)


def test_nor_over_http(site: Site) -> None:
    host = site.one.http_url.removeprefix("http://")

    def status(method: str, path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request(method, path, body="{}" if method == "POST" else None, headers=headers)
        return connection.getresponse().status

    assert {status(method, path) for method, path in HTTP_ADMINISTRATION} == {403}
    assert status("POST", "/v2/repository/index", **{layout.ADMIN_HEADER: KEY}) == 200
    assert status("GET", "/v2/models/ensemble/config") == 200


def test_a_wrong_token_drains_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert drain.main(["--url", site.one.grpc_url, "--token", "wrong"]) == 3
    assert drain.main(["--url", site.one.grpc_url, "--token", "wrong", "--resume"]) == 3
    assert "needs the control_token" in capsys.readouterr().out
    assert health.why_not_ready(look(site.one)) == ""


def test_requests_that_do_not_end_in_time_are_reported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    token = ["--url", site.one.grpc_url, "--token", site.one.token]
    with Client(site.one.grpc_url) as client, client.stream("x", max_tokens=400) as stream:
        next(stream)
        assert drain.main([*token, "--grace", "0.3"]) == 1
        assert drain.main([*token, "--resume"]) == 0
    assert "requests are left after 0.3 s" in capsys.readouterr().out


def test_the_engine_answers_only_those_with_a_certificate(site: Site) -> None:
    with Client(site.two.grpc_url) as client:
        assert client.generate("x", max_tokens=5).output_tokens == 5
    ready = service_pb2.ServerReadyRequest()
    only_theirs = grpc.ssl_channel_credentials(site.certificate.cert.read_bytes())
    url = site.engine.grpc_url.replace("127.0.0.1", "localhost")
    for channel in (grpc.insecure_channel(url), grpc.secure_channel(url, only_theirs)):
        with channel, pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerReady(ready, timeout=5)
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_the_engines_http_port_is_for_the_kubelets_probes_alone(site: Site) -> None:
    """HTTP has no TLS in Triton, so all but health is closed there."""
    (engines,) = of_kind("many-engines", "StatefulSet")
    container = engines["spec"]["template"]["spec"]["containers"][0]
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    host = site.engine.http_url.removeprefix("http://")
    for path in (*paths, "/v2/models/tensorrt_llm/config", "/v2/models/tensorrt_llm", "/v2/models/tensorrt_llm/stats"):
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == (200 if path in paths else 403), path


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_prompts_are_in_no_log_metric_status_or_journal(site: Site) -> None:
    """Answered, refused, malformed and cancelled requests, through every door."""
    with Client(site.one.grpc_url) as client:
        client.generate(f"{SECRET} question", max_tokens=3, tenant="t")
        with pytest.raises(ClientError):
            client.generate(f"{SECRET} too long", max_tokens=10**6)
        with client.stream(f"{SECRET} left", max_tokens=500) as stream:
            next(stream)
        client.generate("plain", max_tokens=3, stop_words=(SECRET,))
    for door in ("ensemble", "unary"):
        with Client(site.one.grpc_url, door) as client:
            client.generate(f"{SECRET} {door}", max_tokens=3)
    post(f"{site.one.http_url}/v2/models/ensemble/generate", {"text_input": f"{SECRET} http", "max_tokens": 3})
    with Client(site.one.grpc_url) as client:
        status = str(client.status(site.one.token))

    def metrics() -> str:
        return str(urllib.request.urlopen(site.one.metrics_url, timeout=10).read(), "utf-8")

    # Both are written a moment later, by the thread that keeps house.
    wait_until("no journal", lambda: len(site.journal.read_text().splitlines()) >= 6, site.one.log, TIMEOUT_S)
    wait_until("no metrics", lambda: "ssjf_requests_total" in metrics(), site.one.log, TIMEOUT_S)
    log = site.one.log.read_text(errors="replace")
    assert '"outcome": "finished"' in site.journal.read_text() or '"outcome":"finished"' in site.journal.read_text()
    for text in (log, metrics(), status, site.journal.read_text()):
        assert SECRET not in text


# -- Prometheus --------------------------------------------------------------------------------------------------------


def test_prometheus_scrapes_the_servers_and_evaluates_our_rules(site: Site, tmp_path: Path) -> None:
    with running_prometheus([site.one, site.two], tmp_path) as prometheus, Client(site.two.grpc_url) as client:
        client.generate("x", max_tokens=3)
        # What alerts and the endpoint picker read, by the names that the real server gives it. A server publishes its
        # gauges a moment after its histograms.
        prometheus.wait_until(lambda: all(len(prometheus.ask(name)) >= ENDPOINTS for name in READ))
        for query in queries():
            assert len(prometheus.ask(query)) == 1 or "vector(0)" not in query, query
        prometheus.wait_until(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"})
        assert len(prometheus.rules()) == 12
        assert {sample["metric"]["job"] for sample in prometheus.ask("up")} == {"ssjf"}
        prometheus.wait_until(lambda: [each["value"][1] for each in prometheus.ask("up")] == ["1"] * ENDPOINTS)


# -- HAProxy -----------------------------------------------------------------------------------------------------------


def test_only_what_clients_need_passes(balancer: Balancer) -> None:
    body = json.dumps({"text_input": "x", "max_tokens": 3})
    assert balancer.http("POST", "/v2/models/ensemble/generate", body) == 200
    assert balancer.http("GET", "/v2/health/ready") == 200
    assert balancer.http("POST", "/v2/models/tensorrt_llm/infer", "{}") == 403
    assert {balancer.http(method, path) for method, path in HTTP_ADMINISTRATION} == {403}
    credentials = grpc.ssl_channel_credentials(balancer.certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{balancer.port}", credentials) as channel:
        triton = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert triton.ModelReady(OPEN["ModelReady"], timeout=10).ready
        for name, request in ADMINISTRATION.items():
            with pytest.raises(grpc.RpcError) as refused:
                getattr(triton, name)(request, timeout=10)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_one_address_cannot_take_all_connections(balancer: Balancer) -> None:
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", balancer.port), timeout=5)) for _ in range(520)
        ]
        time.sleep(0.5)
        poll = select.poll()
        for each in opened:
            poll.register(each, select.POLLIN)
        refused = poll.poll(5000)  # in TLS the client speaks first: what can be read is the end
        assert len(opened) - 512 <= len(refused) < 100
    wait_until("connections are not forgotten", lambda: balancer.http("GET", "/v2/health/ready") == 200, balancer.admin)


def requests_of(server: Throwaway) -> int:
    with Client(server.grpc_url) as client:
        return client.status(server.token).ended["finished"]


def test_a_server_is_taken_out_and_brought_back_without_a_lost_request(site: Site, balancer: Balancer) -> None:
    before = requests_of(site.one), requests_of(site.two)
    with Crowd(balancer) as crowd:
        time.sleep(1.5)
        both = requests_of(site.one), requests_of(site.two)
        balancer.set_state("one", "drain")
        assert drain.main(["--url", site.one.grpc_url, "--token", site.one.token, "--grace", "30"]) == 0
        with Client(site.one.grpc_url) as client:
            assert client.status(site.one.token).live_requests == 0
        assert health.why_not_ready(look(site.one)) == "the scheduler is draining"
        at_drain, elsewhere = requests_of(site.one), requests_of(site.two)
        time.sleep(1.0)
        assert requests_of(site.one) == at_drain
        assert requests_of(site.two) > elsewhere
        assert drain.main(["--url", site.one.grpc_url, "--token", site.one.token, "--resume"]) == 0
        balancer.set_state("one", "ready")
    assert set(crowd.ends) == {"whole"}
    assert min(both[0] - before[0], both[1] - before[1]) > 0, "both servers get requests"


def test_a_server_that_drains_unannounced_refuses_at_most_what_comes_before_the_next_check(
    site: Site, balancer: Balancer
) -> None:
    """Two checks, a second apart: what arrives at it until then is refused with words that say to try again."""
    wait_until("servers are not up", lambda: set(balancer.states().values()) == {"UP"}, site.one.log)
    with Crowd(balancer) as crowd:
        time.sleep(0.5)
        assert drain.main(["--url", site.two.grpc_url, "--token", site.two.token, "--grace", "30"]) == 0
        wait_until("not taken out", lambda: balancer.states() == {"one": "UP", "two": "DOWN"}, site.two.log)
        refused = sum(crowd.ends.values()) - crowd.ends["whole"]
        time.sleep(1.0)
        assert sum(crowd.ends.values()) - crowd.ends["whole"] <= refused + 8  # those that were already on their way
    drain.main(["--url", site.two.grpc_url, "--token", site.two.token, "--resume"])
    assert crowd.ends["whole"] > 0
    assert {end for end in crowd.ends if end != "whole" and "is draining" not in end} == set()


def test_a_server_that_dies_is_left_out(site: Site, balancer: Balancer) -> None:
    """Last of all: its scheduler's process is killed, and Triton goes on saying that it is ready."""
    wait_until("servers are not up", lambda: set(balancer.states().values()) == {"UP"}, site.one.log)
    for name, pid in site.two.server.stubs().items():
        if name.startswith("scheduler"):
            os.kill(pid, signal.SIGKILL)
    wait_until("still up", lambda: balancer.states() == {"one": "UP", "two": "DOWN"}, site.two.log)
    with urllib.request.urlopen(f"{site.two.http_url}/v2/health/ready", timeout=10) as answer:
        assert answer.status == 200
    assert "scheduler" in health.why_not_live(look(site.two, "scheduler", "ensemble", "unary", "preprocessing"))
    with balancer.client() as client:
        assert {client.generate("x", max_tokens=4).output_tokens for _ in range(4)} == {4}
