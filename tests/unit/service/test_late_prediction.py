"""A prediction that comes while its request waits, and one that comes too late for that."""

from __future__ import annotations

import asyncio

import numpy as np

from ssjf.core.job import LengthPrediction
from ssjf.core.settings import CoreSettings
from ssjf.service.predictor import PredictionFailed
from tests.unit.service.harness import Bench, run

TRUE = np.array([[True]])
SSJF = CoreSettings(policy="ssjf", max_inflight=1, prior_tokens=40.0)


class Proxy:
    """Says what a test tells it to, when it tells it to."""

    def __init__(self, bench: Bench, *prompts: str):
        self.futures: dict[str, asyncio.Future[LengthPrediction]] = {
            prompt: asyncio.get_running_loop().create_future() for prompt in prompts
        }
        for prompt, future in self.futures.items():
            bench.preparation.coming[prompt] = asyncio.ensure_future(_result(future))

    def say(self, prompt: str, tokens: float) -> None:
        self.futures[prompt].set_result(LengthPrediction(tokens, tokens))

    def fail(self, prompt: str) -> None:
        self.futures[prompt].set_exception(PredictionFailed("no"))


async def _result(future: asyncio.Future[LengthPrediction]) -> LengthPrediction:
    return await future


async def hold(bench: Bench, *waiting: str) -> None:
    """One request in the only slot, and the others behind it."""
    await bench.occupied()
    for text in waiting:
        bench.send(text)
    await bench.until(lambda: bench.service.snapshot().queue_length == len(waiting))


async def release(bench: Bench, answers: int) -> None:
    bench.engine.gate.set()
    await bench.until(lambda: len(bench.records) == answers)


def test_it_gives_a_waiting_request_its_place() -> None:
    async def scenario(bench: Bench) -> None:
        proxy = Proxy(bench, "first", "second", "third")
        await hold(bench, "first", "second", "third")
        proxy.say("third", 3)
        proxy.say("first", 60)
        await bench.until(lambda: bench.service.snapshot().repredicted == 2)
        await release(bench, 4)
        assert bench.engine.started == ["running", "third", "second", "first"]

    bench = run(scenario, SSJF)
    told = {record.prompt.decode(): (record.predicted_tokens, record.predicted_by) for record in bench.records}
    assert told == {"running": (7, "proxy"), "third": (3, "proxy"), "second": (40, "prior"), "first": (60, "proxy")}


def test_none_is_waited_for_once_a_slot_is_free() -> None:
    async def scenario(bench: Bench) -> None:
        Proxy(bench, "only")
        client = bench.send("only")
        await bench.ended(client)
        assert client.ends == ["final"]
        await bench.until(bench.preparation.coming["only"].cancelled)
        await bench.until(lambda: bool(bench.records))

    bench = run(scenario, SSJF)
    assert [record.predicted_by for record in bench.records] == ["prior"]
    assert bench.core.snapshot(0.0).repredicted == 0


def test_a_failure_leaves_the_prior() -> None:
    async def scenario(bench: Bench) -> None:
        proxy = Proxy(bench, "first")
        await hold(bench, "first")
        proxy.fail("first")
        await bench.until(bench.preparation.coming["first"].done)
        await release(bench, 2)

    bench = run(scenario, SSJF)
    assert [record.predicted_by for record in bench.records] == ["proxy", "prior"]


def test_nobody_is_asked_any_more_for_a_request_that_has_ended() -> None:
    async def scenario(bench: Bench) -> None:
        Proxy(bench, "gone", "stopped")
        await bench.occupied()
        gone, stopped = bench.send("gone"), bench.send("stopped", request_id="it")
        await bench.until(lambda: bench.service.snapshot().queue_length == 2)
        gone.gone = True
        bench.send(request_id="it", stop=TRUE)
        await bench.ended(gone, stopped)
        coming = bench.preparation.coming
        await bench.until(lambda: coming["gone"].cancelled() and coming["stopped"].cancelled())
        await release(bench, 3)

    run(scenario, SSJF)
