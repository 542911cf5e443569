"""An engine of flavour llmapi, which gives text instead of token ids, behind the whole service."""

from __future__ import annotations

import numpy as np
import pytest

from ssjf.core.settings import CoreSettings
from ssjf.service.settings import ServiceSettings
from tests.unit.service.engines import run_with
from tests.unit.service.fake_triton import FakeTriton
from tests.unit.service.harness import Bench

LLMAPI = ServiceSettings(cancel_poll_s=0.005, engine_flavour="llmapi")


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_gives_text_is_served_like_one_that_gives_tokens(stream: bool) -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        await engines[0].start()
        client = bench.send("hello world", stream=np.array([[stream]]))
        await bench.ended(client)
        assert client.text == "hello world"
        assert sum(piece.output_tokens for piece in client.pieces) == len("hello world")
        extras = client.pieces[0].extras
        assert {name: value.tolist() for name, value in extras.items()} == {
            "kv_cache_reused_blocks": [[7]], "acceptance_rate": [[0.5]],
        }  # fmt: skip

    bench = run_with(1, scenario, settings=LLMAPI)
    assert [(record.output_tokens, record.finish) for record in bench.records] == [(11, "stop")]


def test_stop_words_and_the_limit_hold_for_text_too() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        await engines[0].start()
        stopped = bench.send("hello world", stop_words=np.array([[b" w"]], dtype=np.object_))
        cut = bench.send("hello world", max_tokens=np.array([[5]], np.int32))
        await bench.ended(stopped, cut)
        assert (stopped.text, cut.text) == ("hello", "hello")

    bench = run_with(1, scenario, CoreSettings(max_inflight=1, policy="fcfs"), LLMAPI)
    assert [record.finish for record in bench.records] == ["stop", "length"]


def test_what_a_text_engine_cannot_honour_is_refused_at_the_door() -> None:
    async def scenario(bench: Bench, engines: list[FakeTriton]) -> None:
        client = bench.send("x", beam_width=np.array([[2]], np.int32))
        await bench.ended(client)
        assert client.one_end.startswith("InvalidRequest: beam_width is 2, allowed: ")

    run_with(1, scenario, settings=LLMAPI)
