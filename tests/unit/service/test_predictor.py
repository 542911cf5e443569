"""What a proxy may do to those who ask it: answer, fail, be late, hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from proxy_onnx.contract import LiveMetadata
from proxy_onnx.encode import ProxyEncoder
from ssjf.core.job import LengthPrediction
from ssjf.service.predictor import PredictionFailed, PredictionLate, Predictor
from tests.unit.proxy import small_proxy
from tests.unit.service.fake_proxy import MEAN, FakeProxy

ONE = np.ones((1, 1), np.int32)
SHORT_S, LONG_S = 0.02, 30.0
PAUSE_AFTER = 5
Scenario = Callable[[FakeProxy, Predictor], Awaitable[None]]


def run(scenario: Scenario, timeout_s: float) -> None:
    async def main() -> None:
        proxy = await FakeProxy().start()
        metadata = LiveMetadata(Path("unused"), small_proxy.metadata(), 3600.0)
        predictor = Predictor(proxy.url, "length_predictor", cast("ProxyEncoder", None), metadata, timeout_s)
        try:
            await asyncio.wait_for(scenario(proxy, predictor), 30)
        finally:
            await predictor.close()
            await proxy.stop()

    asyncio.run(main())


async def ask(predictor: Predictor) -> LengthPrediction:
    return await predictor.predict(ONE, ONE, 4096)


async def late(predictor: Predictor) -> asyncio.Task[LengthPrediction]:
    with pytest.raises(PredictionLate) as raised:
        await ask(predictor)
    return raised.value.coming


async def pause(proxy: FakeProxy, predictor: Predictor) -> list[asyncio.Task[LengthPrediction]]:
    """As many failures in a row as make nobody wait any more; the gate is closed afterwards."""
    proxy.gate.clear()
    return [await late(predictor) for _ in range(PAUSE_AFTER)]


async def at_once(asking: Awaitable[object]) -> BaseException | None:
    """What a question ends in that waits for nothing: a few turns of the loop, no time."""
    task = asyncio.ensure_future(asking)
    for _ in range(50):
        await asyncio.sleep(0)
    assert task.done()
    return task.exception()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_an_answer_in_time_is_the_prediction() -> None:
    async def scenario(_proxy: FakeProxy, predictor: Predictor) -> None:
        prediction = await ask(predictor)
        assert (prediction.mean, prediction.source) == (MEAN, "proxy")

    run(scenario, LONG_S)


def test_a_late_answer_still_comes() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        proxy.gate.clear()
        coming = await late(predictor)
        assert not coming.done()
        proxy.gate.set()
        assert (await coming).mean == MEAN

    run(scenario, SHORT_S)


def test_an_error_is_no_prediction_at_once_and_after_a_row_of_them_the_proxy_is_left_alone() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        proxy.broken = True
        for _ in range(PAUSE_AFTER):
            with pytest.raises(PredictionFailed, match="the stub is not healthy"):
                await ask(predictor)
        with pytest.raises(PredictionFailed, match="left alone"):
            await ask(predictor)
        assert proxy.asked == PAUSE_AFTER

    run(scenario, LONG_S)


def test_a_late_error_is_no_prediction() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        proxy.gate.clear()
        proxy.broken = True
        coming = await late(predictor)
        proxy.gate.set()
        with pytest.raises(PredictionFailed, match="the stub is not healthy"):
            await coming

    run(scenario, SHORT_S)


def test_so_is_an_answer_that_makes_no_sense() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        proxy.garbled = True
        with pytest.raises(PredictionFailed, match="cannot be read"):
            await ask(predictor)

    run(scenario, LONG_S)


def test_questions_that_were_late_and_then_lost_say_nothing_about_a_proxy_that_is_well_again() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        proxy.gate.clear()
        lost = [await late(predictor) for _ in range(PAUSE_AFTER - 1)]
        proxy.broken = True
        proxy.gate.set()
        await asyncio.wait(lost)
        proxy.broken = False
        predictor._timeout_s = LONG_S  # from here on every answer is one in time, however slow this machine is
        assert (await ask(predictor)).mean == MEAN

    run(scenario, SHORT_S)


def test_nobody_waits_for_a_proxy_that_was_late_in_a_row_but_it_is_asked_all_the_same() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        await pause(proxy, predictor)
        error = await at_once(ask(predictor))
        assert isinstance(error, PredictionLate)
        proxy.gate.set()
        assert (await error.coming).mean == MEAN

    run(scenario, SHORT_S)


def test_a_question_that_is_given_up_is_taken_back() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        proxy.gate.clear()
        coming = await late(predictor)
        await until(lambda: proxy.asked == 1)
        coming.cancel()
        await until(lambda: proxy.left == 1)

    run(scenario, SHORT_S)


def test_so_is_one_whose_request_ends_while_it_waits() -> None:
    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        proxy.gate.clear()
        asking = asyncio.ensure_future(ask(predictor))
        await until(lambda: proxy.asked == 1)
        asking.cancel()
        await until(lambda: proxy.left == 1)

    run(scenario, LONG_S)


def test_behind_a_proxy_that_hangs_open_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.predictor._MOST_LATE", PAUSE_AFTER)

    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        open_questions = await pause(proxy, predictor)
        error = await at_once(ask(predictor))
        assert type(error) is PredictionFailed
        open_questions[0].cancel()
        await until(open_questions[0].done)
        assert isinstance(await at_once(ask(predictor)), PredictionLate)

    run(scenario, SHORT_S)


def test_a_proxy_that_is_quick_again_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.predictor._PAUSE_S", 3600.0)

    async def scenario(proxy: FakeProxy, predictor: Predictor) -> None:
        await pause(proxy, predictor)
        proxy.gate.set()
        predictor._timeout_s = LONG_S  # from here on every answer is one in time, however slow this machine is
        error = await at_once(ask(predictor))
        assert isinstance(error, PredictionLate)
        await error.coming
        assert (await ask(predictor)).mean == MEAN

    run(scenario, SHORT_S)
