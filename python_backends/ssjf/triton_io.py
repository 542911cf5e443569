"""Between Triton's Python API and our types, for the models that clients talk to: `scheduler` and `unary`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from ssjf.core.errors import DeadlineExceeded, InvalidRequest, InvalidSetting, QueueFull, SchedulerError
from ssjf.service.errors import ControlRefused, EngineUnavailable, NotAccepting, RequestCancelled
from ssjf.service.messages import Call, TextChunk
from ssjf.tensors import CLIENT_OUTPUTS

# By name: Triton adds `TritonError` to its module only after it has imported ours.
_ERROR_CODES: tuple[tuple[type[SchedulerError], str], ...] = (
    (InvalidRequest, "INVALID_ARG"),
    (InvalidSetting, "INVALID_ARG"),
    (ControlRefused, "INVALID_ARG"),
    (QueueFull, "UNAVAILABLE"),
    (NotAccepting, "UNAVAILABLE"),
    (EngineUnavailable, "UNAVAILABLE"),
    (RequestCancelled, "CANCELLED"),
    (DeadlineExceeded, "CANCELLED"),  # Triton 2.51 has no code for a deadline
)


def read_call(request: Any) -> Call:
    """A Triton request as plain data. Tensors are copied: their shared memory is Triton's after `execute`."""
    parameters = request.parameters()
    return Call(
        request_id=request.request_id(),
        tensors={tensor.name(): np.array(tensor.as_numpy()) for tensor in request.inputs()},
        parameters=json.loads(parameters) if parameters else {},
        timeout_us=request.timeout(),
        arrival=time.monotonic(),
    )


def triton_error(error: SchedulerError, coded: bool = False) -> Any:
    """The Triton error of one of ours, with the code that clients map to theirs; `coded` writes it before the text."""
    name = next((name for kind, name in _ERROR_CODES if isinstance(error, kind)), "INTERNAL")
    text = f"{name}: {error}" if coded else str(error)
    return pb_utils.TritonError(text, getattr(pb_utils.TritonError, name))


def output_arrays(chunk: TextChunk) -> dict[str, NDArray[Any]]:
    """A piece of an answer as output arrays, with a batch dimension of 1. A beam's missing log probabilities are 0."""
    beams = len(chunk.texts)
    log_probs = chunk.log_probs or ((),) * beams
    width = max(1, *map(len, log_probs))
    padded = [list(row) + [0.0] * (width - len(row)) for row in log_probs]
    return {
        "text_output": np.array([[text.encode() for text in chunk.texts]], dtype=np.object_),
        "cum_log_probs": np.array([chunk.cum_log_probs or (0.0,) * beams], dtype=np.float32),
        "output_log_probs": np.array([padded], dtype=np.float32),
        "sequence_index": _int32(chunk.sequence_index),
        "batch_index": _int32(chunk.batch_index),
        "num_input_tokens": _int32(chunk.input_tokens),
        "num_output_tokens": _int32(chunk.output_tokens),
        "predicted_tokens": _int32(chunk.predicted_tokens),
        "queue_time_us": np.array([[chunk.queue_time_us]], dtype=np.int64),
    }


def _int32(value: int) -> NDArray[np.int32]:
    return np.array([[value]], dtype=np.int32)


def default_outputs(args: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Zeros for the model's declared outputs that only some engines fill.

    An ensemble on Triton 2.51 needs every output that it maps in every response; upstream's own steps answer with
    zeros, too, where a flag was not set.
    """
    own = {spec.name for spec in CLIENT_OUTPUTS}
    outputs = json.loads(args["model_config"])["output"]
    return {
        entry["name"]: np.zeros([1, *(1 for _ in entry["dims"])], pb_utils.triton_string_to_numpy(entry["data_type"]))
        for entry in outputs
        if entry["name"] not in own
    }


def refuse(request: Any, reason: str) -> None:
    """End a decoupled request that could not even be read."""
    error = pb_utils.TritonError(reason, pb_utils.TritonError.INTERNAL)
    response = pb_utils.InferenceResponse(error=error)
    request.get_response_sender().send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class TritonResponder:
    """The response sender of one decoupled request (see ssjf.service.channel.Responder)."""

    def __init__(self, request: Any, defaults: Mapping[str, NDArray[Any]], coded_errors: bool):
        self._coded_errors = coded_errors
        self._sender = request.get_response_sender()
        self._outputs = tuple(request.requested_output_names())
        self._defaults = defaults

    def send(self, chunk: TextChunk, final: bool) -> None:
        """One response with the outputs that were asked for."""
        arrays = {**self._defaults, **output_arrays(chunk), **chunk.extras}
        tensors = [pb_utils.Tensor(name, arrays[name]) for name in self._outputs if name in arrays]
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        self._sender.send(pb_utils.InferenceResponse(tensors), flags)

    def finish(self) -> None:
        """End without a further response."""
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def fail(self, error: SchedulerError) -> None:
        """End with an error."""
        response = pb_utils.InferenceResponse(error=triton_error(error, self._coded_errors))
        self._sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def is_cancelled(self) -> bool:
        """True when the client that sent this request to this model has gone."""
        return bool(self._sender.is_cancelled())
