"""Triton shell of `unary`: not decoupled, answers from another thread."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ssjf.grpc_runtime import wake_fewer_threads

wake_fewer_threads()  # gRPC reads its settings when it is imported, which the next lines do

import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from ssjf.parameters import Parameters
from ssjf.triton_io import read_call, refuse
from unary.relay import UnaryRelay

_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class UnarySettings:
    """`self_url`: gRPC address of the Triton that holds `scheduler`, this one."""

    self_url: str = "127.0.0.1:8001"


class TritonReply:
    """One request's response sender; a lock keeps a finished one from being touched again."""

    def __init__(self, request: Any):
        self._sender = request.get_response_sender()
        self._outputs = tuple(request.requested_output_names())
        self._lock = threading.Lock()
        self._ended = False

    def answer(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Send the one response."""
        tensors = [pb_utils.Tensor(name, outputs[name]) for name in self._outputs if name in outputs]
        self._end(pb_utils.InferenceResponse(tensors))

    def fail(self, code: str, message: str) -> None:
        """Send an error; `code` is the name of one of Triton's."""
        error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code, pb_utils.TritonError.INTERNAL))
        self._end(pb_utils.InferenceResponse(error=error))

    def is_cancelled(self) -> bool:
        """True when the client has gone."""
        with self._lock:
            return not self._ended and bool(self._sender.is_cancelled())

    def _end(self, response: Any) -> None:
        with self._lock:
            if not self._ended:
                self._ended = True
                self._sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class TritonPythonModel:
    """Hands each request to the relay; `execute` returns at once."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
        parameters = Parameters.of_model(args, os.environ)
        parameters.check_known(UnarySettings)
        self._relay = UnaryRelay(parameters.build(UnarySettings).self_url)
        self._relay.start()

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            try:
                self._relay.accept(read_call(request), TritonReply(request))
            except Exception as error:
                refuse(request, f"the unary door could not read this request: {error}")

    def finalize(self) -> None:
        self._relay.stop(_STOP_TIMEOUT_S)
