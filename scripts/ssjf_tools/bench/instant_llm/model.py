"""An engine without a model: every active request gets one token a step, as fast as they can be sent or at a pace."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "python_backends"))

import numpy as np
import triton_python_backend_utils as pb_utils

from ssjf.parameters import Parameters

_TOKEN = 65  # any ordinary token


@dataclass(frozen=True, slots=True)
class InstantSettings:
    """`step_s`: seconds from one step of all requests to the next; 0: no pause.

    `max_batch_size`: requests in a step; others wait their turn in order of arrival. 0: all that there are.
    """

    step_s: float = 0.0
    max_batch_size: int = 0


@dataclass(slots=True)
class _Running:
    sender: Any
    left: int
    streaming: bool


class TritonPythonModel:
    """One thread steps through the active requests, as an inflight-batching engine does."""

    def initialize(self, args: dict[str, str]) -> None:
        settings = Parameters.of_model(args, os.environ).build(InstantSettings)
        self._step_s, self._slots = settings.step_s, settings.max_batch_size or None
        self._new: list[_Running] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        started = []
        for request in requests:
            count = pb_utils.get_input_tensor_by_name(request, "request_output_len").as_numpy()
            streaming = pb_utils.get_input_tensor_by_name(request, "streaming")
            streams = streaming is not None and bool(streaming.as_numpy().any())
            started.append(_Running(request.get_response_sender(), int(count.reshape(-1)[0]), streams))
        with self._wake:
            self._new.extend(started)
            self._wake.notify()

    def finalize(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(5)

    def _run(self) -> None:
        active: list[_Running] = []  # in order of arrival
        while True:
            with self._wake:
                while not self._new and not active and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                active, self._new = active + self._new, []
            begun = time.monotonic()
            stepped = [running for running in active[: self._slots] if self._step(running)]
            active = stepped + (active[self._slots :] if self._slots else [])
            if self._step_s:
                time.sleep(max(0.0, begun + self._step_s - time.monotonic()))

    def _step(self, running: _Running) -> bool:
        """Send one request its next token, or all of them when it does not stream; True while it goes on."""
        count = 1 if running.streaming else running.left
        running.left -= count
        tensors = [
            pb_utils.Tensor("output_ids", np.full((1, 1, count), _TOKEN, np.int32)),
            pb_utils.Tensor("sequence_length", np.array([[count]], np.int32)),
        ]
        flags = 0 if running.left else pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        running.sender.send(pb_utils.InferenceResponse(tensors), flags)
        return running.left > 0
