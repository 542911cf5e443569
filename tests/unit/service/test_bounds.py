from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from ssjf.service.bounds import checked
from ssjf.service.engine.base import EngineError
from ssjf.service.messages import EngineChunk, EngineRequest
from ssjf.service.outcome import Outcome
from tests.unit.service.harness import Bench, ScriptedEngine, run


def test_what_is_within_bounds_is_passed_on_untouched() -> None:
    for chunk in (EngineChunk(0, ([0, 9], [])), EngineChunk(0), EngineChunk(0, text="any length")):
        assert checked(chunk, 2, vocabulary=10) is chunk


@pytest.mark.parametrize("wrong", [-1, 10, 2**31 - 1, -(2**31)])
def test_an_id_outside_of_the_vocabulary_is_named(wrong: int) -> None:
    with pytest.raises(EngineError, match=f"token id {wrong}, allowed: 0 to 9"):
        checked(EngineChunk(0, ([1], [2, wrong])), 5, vocabulary=10)


def test_what_is_too_much_is_cut_with_its_log_probabilities() -> None:
    cut = checked(EngineChunk(0, ([1, 2, 3], [4]), log_probs=((-1.0, -2.0, -3.0), (-4.0,))), 2, vocabulary=10)
    assert (cut.token_ids, cut.log_probs) == (([1, 2], [4]), ((-1.0, -2.0), (-4.0,)))


class Wordy(ScriptedEngine):
    """Goes on past max_tokens; a prompt of `?` is answered with an id that nobody knows."""

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        self.started.append("")
        try:
            for _ in range(100):
                yield EngineChunk(0, ([-7] if len(request.prompt_ids) == 1 else [65, 66, 67],))
        finally:
            self.left.append("")


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_gets_what_it_asked_for_and_the_engine_is_let_go(stream: bool) -> None:
    async def scenario(bench: Bench) -> None:
        wordy, strange = bench.send("abc", **limits), bench.send("?", **limits)
        await bench.ended(wordy, strange)
        assert sum(piece.output_tokens for piece in wordy.pieces) == 4
        assert len(wordy.text) == 4
        assert strange.ends[0].startswith("EngineFailed: the engine sent token id -7")
        await bench.until(lambda: len(bench.records) == 2)
        assert [row.finish for row in bench.records if row.outcome is Outcome.FINISHED] == ["length"]

    limits: dict[str, Any] = {"max_tokens": np.array([[4]], np.int32), "stream": np.array([[stream]])}
    run(scenario, make_endpoints=lambda _adapter: (Wordy(),))
