from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import numpy as np
import pytest

from ssjf.core.settings import CoreSettings
from ssjf.service.outcome import Outcome
from ssjf.service.settings import ServiceSettings
from tests.unit.service.harness import Bench, Client, run

TRUE = np.array([[True]])


def test_an_unstreamed_answer_is_one_response() -> None:
    async def scenario(bench: Bench) -> None:
        client = bench.send("héllo")
        await bench.ended(client)
        assert [piece.texts for piece in client.pieces] == [("héllo",)]
        assert client.one_end == "final"
        piece = client.pieces[0]
        assert (piece.input_tokens, piece.output_tokens, piece.predicted_tokens) == (6, 6, 6)

    run(scenario)


def test_a_streamed_answer_joins_to_the_same_text() -> None:
    async def scenario(bench: Bench) -> None:
        client = bench.send("héllo wörld", stream=TRUE)
        await bench.ended(client)
        assert client.text == "héllo wörld"
        assert client.ends in (["final"], ["empty final"])

    run(scenario)


def test_stop_words_cut_the_answer_and_free_the_engine() -> None:
    async def scenario(bench: Bench) -> None:
        words = np.array([[b" w", b""]], dtype=np.object_)
        client = bench.send("hello world", stop_words=words)
        await bench.ended(client)
        assert client.text == "hello"
        assert client.pieces[-1].output_tokens == len("hello w")

    run(scenario)


def test_the_prompt_is_echoed_when_asked_for() -> None:
    async def scenario(bench: Bench) -> None:
        client = bench.send("ab", exclude_input_in_output=np.array([[False]]))
        await bench.ended(client)
        assert client.text == "abab"

    run(scenario)


@pytest.mark.parametrize(("policy", "order"), [("ssjf", ["a", "bb", "cccc"]), ("fcfs", ["cccc", "a", "bb"])])
def test_the_policy_decides_who_goes_next(policy: str, order: list[str]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        first = bench.send("first")
        await bench.until(lambda: bench.engine.started == ["first"])
        clients = [bench.send(text) for text in ("cccc", "a", "bb")]
        bench.engine.gate.set()
        await bench.ended(first, *clients)
        assert bench.engine.started[1:] == order

    run(scenario, CoreSettings(policy=policy, max_inflight=1))


def test_each_row_of_a_request_is_a_job_of_its_own() -> None:
    async def scenario(bench: Bench) -> None:
        texts = np.array([[b"longer text"], [b"x"]], dtype=np.object_)
        client = bench.send(text_input=texts, max_tokens=np.array([[64], [64]], np.int32))
        await bench.ended(client)
        assert {piece.batch_index: piece.texts[0] for piece in client.pieces} == {0: "longer text", 1: "x"}
        assert client.one_end == "final"

    run(scenario, CoreSettings(policy="ssjf", max_inflight=1))


@pytest.mark.parametrize(
    ("text", "message"),
    [("!refuse", "EngineFailed: beam_width is 2, not supported"), ("!break it", "EngineFailed: the engine broke")],
)
def test_an_engine_error_ends_that_request_alone(text: str, message: str) -> None:
    async def scenario(bench: Bench) -> None:
        bad, good = bench.send(text), bench.send("fine")
        await bench.ended(bad, good)
        assert bad.one_end == message
        assert good.text == "fine"

    run(scenario)


def test_a_bad_request_is_refused_with_its_reason() -> None:
    async def scenario(bench: Bench) -> None:
        client = bench.send("x", temperature=np.array([[np.nan]], np.float32))
        await bench.ended(client)
        assert client.one_end.startswith("InvalidRequest: temperature is nan")
        assert bench.engine.started == []

    run(scenario)


def test_a_waiting_request_whose_client_has_gone_is_never_dispatched() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running")
        await bench.until(lambda: bench.engine.started == ["running"])
        waiting = bench.send("waiting")
        waiting.gone = True
        await bench.ended(waiting)
        assert waiting.one_end == "RequestCancelled: the client has gone"
        bench.engine.gate.set()
        await bench.ended(running)
        assert bench.engine.started == ["running"]

    run(scenario, CoreSettings(max_inflight=1))


def test_a_running_request_whose_client_has_gone_leaves_the_engine() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        client = bench.send("running")
        await bench.until(lambda: bench.engine.started == ["running"])
        client.gone = True
        await bench.until(lambda: bench.engine.left == ["running"])
        await bench.until(lambda: bench.service.snapshot().in_flight == 0)

    bench = run(scenario)
    assert [record.outcome for record in bench.records] == [Outcome.CANCELLED]


def test_stop_ends_running_and_waiting_requests_of_that_id_and_no_other() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running, waiting = bench.send("running", request_id="a"), bench.send("waiting", request_id="a")
        other = bench.send("other", request_id="b")
        await bench.until(lambda: bench.engine.started == ["running"])
        stop = bench.send(request_id="a", stop=TRUE)
        await bench.ended(running, waiting, stop)
        assert (running.text, waiting.text, stop.text) == ("", "", "")
        assert [client.one_end for client in (running, waiting, stop)] == ["final"] * 3
        assert not other.ends
        bench.engine.gate.set()
        await bench.ended(other)
        assert other.text == "other"

    run(scenario, CoreSettings(max_inflight=1, policy="fcfs"))


def test_a_stop_without_an_id_is_an_error() -> None:
    async def scenario(bench: Bench) -> None:
        client = bench.send(stop=TRUE)
        await bench.ended(client)
        assert client.one_end.startswith("InvalidRequest: request id is 'empty'")

    run(scenario)


def test_a_deadline_ends_a_request_that_waits_and_one_that_runs() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running", parameters={"deadline_ms": 150})
        await bench.until(lambda: bench.engine.started == ["running"])
        waiting = bench.send("waiting", parameters={"deadline_ms": 20})
        await bench.ended(running, waiting)
        assert waiting.one_end == "DeadlineExceeded: no engine slot was free in time for its deadline"
        assert running.one_end == "DeadlineExceeded: its deadline passed while it ran"

    run(scenario, CoreSettings(max_inflight=1))


def test_a_full_queue_refuses_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        taken = [bench.send("a"), bench.send("b")]
        refused = bench.send("c")
        await bench.ended(refused)
        assert refused.one_end.startswith("QueueFull: the queue is full: 1 requests wait")
        bench.engine.gate.set()
        await bench.ended(*taken)

    run(scenario, CoreSettings(max_inflight=1, max_queue=1))


def test_an_engine_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.dispatcher._WATCH_PERIOD_S", 0.01)
    monkeypatch.setattr("ssjf.service.dispatcher._SLOW_PACE_S", 0.0)

    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        client = bench.send("silent")
        await bench.ended(client)
        assert client.one_end == "EngineFailed: the engine sent nothing for 0.05 s"

    run(scenario, settings=ServiceSettings(cancel_poll_s=0.005, engine_stall_s=0.05))


def test_without_a_prediction_the_prior_orders() -> None:
    async def scenario(bench: Bench) -> None:
        bench.preparation.predicts = False
        client = bench.send("hello")
        await bench.ended(client)
        assert client.pieces[0].predicted_tokens == 40

    bench = run(scenario, CoreSettings(prior_tokens=40.0))
    assert [record.predicted_by for record in bench.records] == ["prior"]


def test_shutting_down_answers_everything_that_is_alive() -> None:
    clients: list[Client] = []

    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        clients.extend(bench.send(text) for text in ("running", "waiting"))
        await bench.until(lambda: bench.engine.started == ["running"])

    run(scenario, CoreSettings(max_inflight=1))
    assert [client.one_end for client in clients] == ["NotAccepting: the test is over"] * 2


def test_status_is_public_in_brief_and_complete_with_the_token() -> None:
    async def scenario(bench: Bench) -> None:
        brief = bench.send(parameters={"control": "status"})
        full = bench.send(parameters={"control": "status", "control_token": "secret"})
        await bench.ended(brief, full)
        assert json.loads(brief.text)["ready"] is True
        assert "limits" not in json.loads(brief.text)
        assert json.loads(full.text)["limits"]["max_inflight"] == 2

    run(scenario, settings=ServiceSettings(control_token="secret"))


@pytest.mark.parametrize("token", [None, "wrong"])
def test_control_needs_the_token(token: str | None) -> None:
    async def scenario(bench: Bench) -> None:
        client = bench.send(parameters={"control": "drain", "control_token": token})
        await bench.ended(client)
        assert client.one_end.startswith("ControlRefused: control 'drain' needs the control_token")
        assert bench.service.accepting

    run(scenario, settings=ServiceSettings(control_token="secret"))


def test_policy_and_limits_change_on_a_live_queue() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        clients = [bench.send(text) for text in ("first", "cccc", "a", "bb")]
        await bench.until(lambda: bench.engine.started == ["first"])
        secret = {"control_token": "secret"}
        changes = [
            bench.send(parameters={"control": "set_policy", "policy": "ssjf", **secret}),
            bench.send(parameters={"control": "set_limits", "limits": '{"max_queue": 3}', **secret}),
        ]
        wrong = [
            bench.send(parameters={"control": "set_policy", "policy": "best", **secret}),
            bench.send(parameters={"control": "set_limits", "limits": '{"max_inflight": 0}', **secret}),
            bench.send(parameters={"control": "set_limits", "limits": "4", **secret}),
            bench.send(parameters={"control": "reboot", **secret}),
        ]
        await bench.ended(*changes, *wrong)
        assert json.loads(changes[1].text)["policy"] == "ssjf"
        assert json.loads(changes[1].text)["limits"]["max_queue"] == 3
        assert [client.one_end.split(":")[0] for client in wrong] == [
            "InvalidSetting", "InvalidSetting", "InvalidRequest", "InvalidRequest",
        ]  # fmt: skip
        bench.engine.gate.set()
        await bench.ended(*clients)
        assert bench.engine.started == ["first", "a", "bb", "cccc"]

    run(scenario, CoreSettings(policy="fcfs", max_inflight=1), ServiceSettings(control_token="secret"))


def test_the_aging_rate_changes_on_a_live_queue() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        clients = []
        for text in ("first", "cccc", "a", "bb"):
            clients.append(bench.send(text))
            await asyncio.sleep(0.002)  # their arrivals differ
        await bench.until(lambda: bench.engine.started == ["first"])
        secret = {"control": "set_policy", "control_token": "secret", "policy": "ssjf-aging"}
        change = bench.send(parameters={**secret, "settings": '{"aging_rate": 1e6, "prefill_weight": 0}'})
        await bench.ended(change)
        state = json.loads(change.text)
        assert (state["aging_rate"], state["queue_length"], state["in_flight"]) == (1e6, 3, 1)
        kept = bench.send(parameters=secret)
        await bench.ended(kept)
        settings = {"aging_rate": 1e6, "prefill_weight": 0, "random_seed": 0, "sept_tail_beta": 0.5}
        assert json.loads(kept.text)["policy_settings"] == settings
        bench.engine.gate.set()
        await bench.ended(*clients)
        assert [client.text for client in clients] == ["first", "cccc", "a", "bb"]
        assert bench.engine.started == ["first", "cccc", "a", "bb"]  # with a rate of 0: a, bb, cccc

    core = CoreSettings(policy="ssjf-aging", aging_rate=0.0, max_inflight=1)
    run(scenario, core, ServiceSettings(control_token="secret"))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ('{"aging_rate": -1}', "InvalidSetting: aging_rate is -1, allowed: a number from 0 to 1e+09"),
        ('{"aging_rate": "fast"}', "InvalidSetting: aging_rate is 'fast', allowed: a number from 0"),
        ('{"sept_tail_beta": NaN}', "InvalidSetting: sept_tail_beta is nan, allowed: a number from 0 to 1000"),
        ('{"random_seed": 0.5}', "InvalidSetting: random_seed is 0.5, allowed: a whole number from 0"),
        ('{"max_inflight": 4}', "InvalidSetting: max_inflight is 4, allowed: one of aging_rate, prefill_weight"),
        ('{"policy": "fcfs"}', "InvalidSetting: policy is 'fcfs', allowed: one of aging_rate"),
        ("4", "InvalidRequest: settings is '4', allowed: a JSON object such as"),
        ("", "InvalidRequest: settings is '', allowed: a JSON object such as"),
        ("[" * 100_000, "InvalidRequest: settings is '[[["),
        (4, "InvalidRequest: settings is 4, allowed: a JSON object such as"),
    ],
    ids=["negative", "text", "nan", "fraction", "limit", "policy", "number", "empty", "deep", "not-text"],
)
def test_wrong_settings_of_a_policy_are_refused_and_change_nothing(settings: Any, error: str) -> None:
    async def scenario(bench: Bench) -> None:
        before = bench.core.settings
        parameters = {"control": "set_policy", "control_token": "secret", "policy": "ssjf", "settings": settings}
        client = bench.send(parameters=parameters)
        await bench.ended(client)
        assert client.one_end.startswith(error)
        assert bench.core.settings == before

    run(scenario, settings=ServiceSettings(control_token="secret"))


def test_no_bound_on_waiting_is_null_in_requests_and_in_the_status() -> None:
    async def scenario(bench: Bench) -> None:
        secret = {"control": "set_limits", "control_token": "secret"}
        unbounded = bench.send(parameters={**secret, "limits": '{"max_wait_s": null}'})
        await bench.ended(unbounded)
        assert bench.core.settings.max_wait_s == math.inf
        assert "Infinity" not in unbounded.text
        assert json.loads(unbounded.text)["limits"]["max_wait_s"] is None
        bounded = bench.send(parameters={**secret, "limits": '{"max_queue": 3, "max_wait_s": 2.5}'})
        await bench.ended(bounded)
        assert json.loads(bounded.text)["limits"]["max_wait_s"] == 2.5

    run(scenario, settings=ServiceSettings(control_token="secret"))


def test_a_draining_scheduler_finishes_what_it_has_and_takes_nothing_new() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running")
        secret = {"control_token": "secret"}
        drain = bench.send(parameters={"control": "drain", **secret})
        refused = bench.send("new")
        await bench.ended(drain, refused)
        assert refused.one_end.startswith("NotAccepting: the scheduler is draining")
        bench.engine.gate.set()
        await bench.ended(running)
        assert running.text == "running"
        resume = bench.send(parameters={"control": "resume", **secret})
        again = bench.send("again")
        await bench.ended(resume, again)
        assert again.text == "again"

    run(scenario, settings=ServiceSettings(control_token="secret"))
