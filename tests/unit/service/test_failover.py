"""Engine servers on loopback that refuse, die, hang and come back; every request must end exactly once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ssjf.core.settings import CoreSettings
from ssjf.service.metrics import gauges, totals
from ssjf.service.outcome import Outcome
from ssjf.service.settings import ServiceSettings
from tests.unit.service.engines import run_with
from tests.unit.service.fake_triton import DEAD_STUB, FakeTriton
from tests.unit.service.harness import Bench

TRUE = np.array([[True]])


def states(bench: Bench) -> list[str]:
    return [engine["state"] for engine in bench.service.engine_state()]


def test_jobs_go_to_the_endpoint_with_most_free_slots() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        for engine in engines:
            engine.gate.clear()
            await engine.start()
        clients = [bench.send(f"request {number}") for number in range(6)]
        await bench.until(lambda: [engine.busy for engine in engines] == [2, 2])
        assert bench.service.snapshot().queue_length == 2
        for engine in engines:
            engine.gate.set()
        await bench.ended(*clients)
        assert [client.text for client in clients] == [f"request {number}" for number in range(6)]
        assert [engine.most for engine in engines] == [2, 2]

    run_with(2, scenario)


def test_an_endpoint_that_cannot_be_reached_is_out_and_costs_nobody_an_answer() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        await engines[1].start()
        clients = [bench.send(f"request {number}") for number in range(8)]
        await bench.ended(*clients)
        assert [client.text for client in clients] == [f"request {number}" for number in range(8)]
        assert states(bench) == ["out", "up"]
        assert engines[1].most <= 2  # its own slots, not those of the one that is out

    bench = run_with(2, scenario)
    assert bench.service.snapshot().requeued >= 1


def test_a_break_in_the_middle_ends_only_answers_that_their_clients_have_seen() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        (engine,) = engines
        await engine.start()
        engine.hang_after = 2
        streamed, whole = bench.send("streamed", stream=TRUE), bench.send("whole")
        await bench.until(lambda: engine.busy == 2 and streamed.text == "st")
        await engine.stop()
        engine.hang_after = None
        await engine.start()
        await bench.ended(streamed, whole)
        assert streamed.one_end.startswith("EngineFailed: ")
        assert streamed.text == "st"
        assert (whole.text, whole.one_end) == ("whole", "final")

    bench = run_with(1, scenario)
    assert [record.outcome for record in bench.records] == [Outcome.ENGINE_ERROR, Outcome.FINISHED]


def test_a_job_that_is_queued_again_goes_first() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        (engine,) = engines
        await engine.start()
        engine.hang_after = 0
        first = bench.send("first")
        await bench.until(lambda: engine.busy == 1)
        later = [bench.send(text) for text in ("a", "b")]
        await engine.stop()
        engine.hang_after = None
        engine.requests.clear()
        await engine.start()
        await bench.ended(first, *later)
        assert [client.text for client in (first, *later)] == ["first", "a", "b"]
        assert [record.prompt for record in bench.records] == [b"first", b"a", b"b"]

    run_with(1, scenario, CoreSettings(max_inflight=1, policy="ssjf"))


def test_with_all_endpoints_out_requests_wait_until_one_is_back() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        early = bench.send("early")
        await bench.until(lambda: "up" not in states(bench))
        late = bench.send("late")
        hurried = bench.send("hurried", parameters={"deadline_ms": 30})
        await bench.ended(hurried)
        assert hurried.one_end == "DeadlineExceeded: no engine slot was free in time for its deadline"
        assert not early.ends
        assert not late.ends
        await engines[0].start()
        await bench.ended(early, late)
        assert (early.text, late.text) == ("early", "late")
        await bench.until(lambda: "up" in states(bench))

    run_with(2, scenario)


def test_nobody_waits_for_ever_for_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.dispatcher._WATCH_PERIOD_S", 0.01)
    monkeypatch.setattr("ssjf.service.dispatcher._SLOW_PACE_S", 0.0)

    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        client = bench.send("anybody there?")
        await bench.ended(client)
        assert client.one_end.startswith("EngineUnavailable: no engine could be reached for 0.1 s; the last failure: ")

    run_with(1, scenario, settings=ServiceSettings(cancel_poll_s=0.005, engine_wait_s=0.1))


def test_a_request_is_queued_again_once_only() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        for engine in engines:
            engine.break_after = 1
            await engine.start()
        client = bench.send("breaks everything")
        await bench.ended(client)
        assert client.one_end == "EngineFailed: the engine process has died"
        assert sum(len(engine.requests) for engine in engines) == 2

    run_with(2, scenario)


def test_an_endpoint_that_hangs_is_out_and_its_unseen_jobs_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.dispatcher._WATCH_PERIOD_S", 0.01)
    monkeypatch.setattr("ssjf.service.dispatcher._SLOW_PACE_S", 0.0)

    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        for engine in engines:
            await engine.start()
        engines[0].hang_after, engines[0].ready = 1, False
        unseen = [bench.send(f"unseen {number}") for number in range(4)]
        await bench.ended(*unseen)
        assert [client.text for client in unseen] == [f"unseen {number}" for number in range(4)]
        assert states(bench) == ["out", "up"]
        await bench.until(lambda: engines[0].busy == 0)  # the engine was told

    run_with(2, scenario, settings=ServiceSettings(cancel_poll_s=0.005, engine_stall_s=0.2))


def test_a_hang_after_the_client_has_seen_something_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.dispatcher._WATCH_PERIOD_S", 0.01)
    monkeypatch.setattr("ssjf.service.dispatcher._SLOW_PACE_S", 0.0)

    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        await engines[0].start()
        engines[0].hang_after = 3
        client = bench.send("streamed", stream=TRUE)
        await bench.ended(client)
        assert client.text == "str"
        assert client.one_end == "EngineFailed: the engine sent nothing for 0.2 s"

    run_with(1, scenario, settings=ServiceSettings(cancel_poll_s=0.005, engine_stall_s=0.2))


def test_a_refused_request_does_not_take_the_engine_out() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        await engines[0].start()
        refused = bench.send("!refuse")
        await bench.ended(refused)
        assert refused.one_end == "EngineFailed: beam_width is 2, not supported"
        assert states(bench) == ["up"]

    run_with(1, scenario)


def test_a_dead_engine_process_behind_a_ready_model_gets_one_job_at_a_time() -> None:
    """Triton before 26.01 calls a model ready whose process was killed (DESIGN.md, trap 4)."""

    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        (engine,) = engines
        await engine.start()
        engine.dead_stub = True
        clients = [bench.send(f"request {number}") for number in range(4)]
        await bench.until(lambda: engine.probes >= 1)
        sent_before = len(engine.requests)  # all at once, when nothing was known
        first = clients[0]
        await bench.ended(first)
        assert first.one_end == f"EngineFailed: {DEAD_STUB}"
        assert len(engine.requests) == sent_before + 1
        engine.dead_stub = False
        await bench.ended(*clients)
        assert all(client.one_end in {"final", f"EngineFailed: {DEAD_STUB}"} for client in clients)
        again = bench.send("again")
        await bench.ended(again)
        assert (again.text, states(bench)) == ("again", ["up"])

    run_with(1, scenario)


def test_a_client_that_goes_while_its_job_waits_again_is_forgotten() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        client = bench.send("gone soon")
        await bench.until(lambda: bench.service.snapshot().requeued == 1)
        client.gone = True
        await bench.ended(client)
        assert client.one_end == "RequestCancelled: the client has gone"

    bench = run_with(1, scenario)
    assert [record.outcome for record in bench.records] == [Outcome.CANCELLED]


def test_trace_context_and_request_id_reach_the_engine_beside_an_id_of_ours() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        await engines[0].start()
        traced = bench.send("x", request_id="mine", parameters={"traceparent": trace})
        await bench.ended(traced)
        malformed = bench.send("y", parameters={"traceparent": "00-zz-1-01"})
        await bench.ended(malformed)
        first, second = engines[0].requests
        assert first.parameters["traceparent"].string_param == trace
        assert first.parameters["client_request_id"].string_param == "mine"
        assert engines[0].metadata[0]["traceparent"] == trace
        assert first.id not in {"", "mine"}
        assert "traceparent" not in second.parameters
        assert "traceparent" not in engines[0].metadata[1]

    bench = run_with(1, scenario)
    assert [(record.request_id, record.trace) for record in bench.records] == [("mine", trace), ("", "")]


def test_status_and_metrics_show_the_engines() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        await engines[1].start()
        clients = [bench.send(f"request {number}") for number in range(4)]
        await bench.ended(*clients)
        brief, full = (bench.send(parameters={"control": "status", **more}) for more in ({}, {"control_token": "t"}))
        await bench.ended(brief, full)
        assert json.loads(brief.text)["engines_up"] == 1
        assert "engines" not in json.loads(brief.text)
        first, second = json.loads(full.text)["engines"]
        assert (first["state"], first["failures"], second["state"]) == ("out", 1, "up")
        assert "Connection refused" in first["last_failure"]
        samples = {(name, labels): value for name, labels, value in (*gauges(bench.service), *totals(bench.service))}
        out, up = ((("endpoint", engine.url),) for engine in engines)
        assert (samples["ssjf_engine_up", out], samples["ssjf_engine_up", up]) == (0.0, 1.0)
        assert samples["ssjf_engine_failures_total", out] == 1
        assert samples["ssjf_requeued_total", ()] >= 1

    run_with(2, scenario, settings=ServiceSettings(cancel_poll_s=0.005, control_token="t"))
