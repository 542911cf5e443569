"""An engine that misbehaves on demand: the wanted length chooses how (lengths.py).

It takes every input of the contract. A request of another length gets its tokens, one a step of 5 ms, as from any
inflight-batching engine.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np
import triton_python_backend_utils as pb_utils

from tests.server.scripted_llm.lengths import SCRIPT

STEP_S = 0.005
TOKEN = 65
STRANGE = np.array([[[-1, 2**31 - 1, -(2**31)]]], np.int32)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            wanted = pb_utils.get_input_tensor_by_name(request, "request_output_len").as_numpy()
            streaming = pb_utils.get_input_tensor_by_name(request, "streaming")
            streams = streaming is not None and bool(streaming.as_numpy().any())
            self._loop.call_soon_threadsafe(
                self._begin, request.get_response_sender(), int(wanted.reshape(-1)[0]), streams
            )

    def finalize(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _begin(self, sender: Any, wanted: int, streams: bool) -> None:
        task = self._loop.create_task(self._answer(sender, wanted, streams))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, sender: Any, wanted: int, streams: bool) -> None:
        before, what = SCRIPT.get(wanted, (wanted, "end"))
        pieces = [1] * before if streams else [before] * bool(before)
        for count in pieces:
            await asyncio.sleep(STEP_S * count)
            if sender.is_cancelled():
                break
            sender.send(_tokens(np.full((1, 1, count), TOKEN, np.int32)))
        self._happen(sender, what)

    def _happen(self, sender: Any, what: str) -> None:
        if what == "silence":
            return
        if what == "error":
            error = pb_utils.TritonError("the engine's own words")
            sender.send(pb_utils.InferenceResponse(error=error))
        if what == "strange ids":
            sender.send(_tokens(STRANGE))
        if what == "more than wanted":
            sender.send(_tokens(np.full((1, 1, 2000), TOKEN, np.int32)))
        if what == "no tensors":
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("batch_index", np.zeros((1, 1), np.int32))]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _tokens(ids: np.ndarray[Any, Any]) -> Any:
    length = np.array([[ids.shape[-1]]], np.int32)
    return pb_utils.InferenceResponse([pb_utils.Tensor("output_ids", ids), pb_utils.Tensor("sequence_length", length)])
