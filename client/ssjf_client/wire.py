"""The one place where requests become Triton tensors and parameters, and responses become values.

Client-facing tensors are those of the TensorRT-LLM ensemble with a leading batch dimension of 1: scalars are [1, 1],
word lists [1, n].
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

import numpy as np
from numpy.typing import DTypeLike
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc._utils import _get_inference_request

from .errors import InvalidRequest, ServerError
from .request import GenerateRequest

__all__ = [
    "Door",
    "Part",
    "SettingValue",
    "control_message",
    "generate_message",
    "infer_inputs",
    "limits_parameter",
    "policy_parameters",
    "read_part",
    "stop_message",
]

Door = Literal["scheduler", "ensemble", "unary"]
"""The models that lead to the queue. `scheduler` sees a client leave; `ensemble` is for drop-in use; `unary` answers
whole and serves plain `infer()`."""

SettingValue = float | str | None
"""Value of a setting that a control request changes; None takes a budget off or leaves a rate to the server."""

SCHEDULER: Final = "scheduler"
_DOORS: Final = get_args(Door)

_NUMPY: Final[dict[str, DTypeLike]] = {
    "BYTES": np.object_,
    "BOOL": np.bool_,
    "INT32": np.int32,
    "UINT64": np.uint64,
    "FP32": np.float32,
}

# Field of GenerateRequest → Triton type of the input tensor of the same name.
_OPTIONAL_INPUTS: Final = {
    "temperature": "FP32",
    "top_p": "FP32",
    "top_k": "INT32",
    "seed": "UINT64",
    "min_tokens": "INT32",
    "repetition_penalty": "FP32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
}
_WORD_INPUTS: Final = ("stop_words", "bad_words")
# Fields that Triton has no tensor for travel as request parameters of the same name.
_PARAMETERS: Final = ("priority_class", "tenant", "deadline_ms", "expected_tokens")


@dataclass(frozen=True, slots=True)
class Part:
    """One response of a request. Numbers are None where the server sent none; `empty` responses carry flags only."""

    text: str
    output_tokens: int | None
    """Total so far, this response's included."""
    input_tokens: int | None
    predicted_tokens: int | None
    queue_time_s: float | None
    final: bool
    empty: bool


def checked_door(door: str) -> Door:
    """`door` when it names one, else InvalidRequest."""
    if door not in _DOORS:
        raise InvalidRequest(f"door={door!r}: must be one of {', '.join(_DOORS)}", "door")
    return cast("Door", door)


def _tensor(name: str, datatype: str, values: list[Any]) -> InferInput:
    data = np.array([values], dtype=_NUMPY[datatype])
    tensor = InferInput(name, list(data.shape), datatype)
    tensor.set_data_from_numpy(data)
    return tensor


def infer_inputs(request: GenerateRequest, *, stream: bool) -> list[InferInput]:
    """The request's input tensors, ready for any tritonclient call too: `InferenceServerClient.infer("unary", …)`."""
    tensors = [
        _tensor("text_input", "BYTES", [request.text.encode("utf-8")]),
        _tensor("max_tokens", "INT32", [request.max_tokens]),
        _tensor("stream", "BOOL", [stream]),
        # TensorRT-LLM repeats the prompt in an unstreamed answer unless told otherwise.
        _tensor("exclude_input_in_output", "BOOL", [True]),
        _tensor("return_num_input_tokens", "BOOL", [True]),
        _tensor("return_num_output_tokens", "BOOL", [True]),
    ]
    for name, datatype in _OPTIONAL_INPUTS.items():
        value = getattr(request, name)
        if value is not None:
            tensors.append(_tensor(name, datatype, [value]))
    for name in _WORD_INPUTS:
        words = getattr(request, name)
        if words:
            tensors.append(_tensor(name, "BYTES", [word.encode("utf-8") for word in words]))
    return tensors


def _message(
    model: str, inputs: list[InferInput], request_id: str, parameters: Mapping[str, Any], timeout_s: float | None
) -> Any:
    # tritonclient's own request builder (its clients, sync and aio, call this function), so that what goes over the
    # wire is what any tritonclient sends.
    message = _get_inference_request(
        model_name=model,
        inputs=inputs,
        model_version="",
        request_id=request_id,
        outputs=None,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None if timeout_s is None else max(1, round(timeout_s * 1_000_000)),
        parameters=dict(parameters),
    )
    # Without it a stream whose last response is empty ends without a response that says so.
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    return message


def generate_message(
    request: GenerateRequest, *, door: Door, request_id: str, stream: bool, timeout_s: float | None
) -> Any:
    """The `ModelInferRequest` for `request`; `timeout_s` becomes Triton's request timeout (µs)."""
    parameters = {name: getattr(request, name) for name in _PARAMETERS if getattr(request, name) is not None}
    return _message(door, infer_inputs(request, stream=stream), request_id, parameters, timeout_s)


def stop_message(request_id: str) -> Any:
    """The `ModelInferRequest` that ends every live request with exactly this id, whichever door it came through."""
    inputs = [
        _tensor("text_input", "BYTES", [b""]),
        _tensor("max_tokens", "INT32", [1]),
        _tensor("stop", "BOOL", [True]),
    ]
    return _message(SCHEDULER, inputs, request_id, {}, None)


def control_message(
    control: str, token: str | None, values: Mapping[str, str | int | float | bool], timeout_s: float | None
) -> Any:
    """The `ModelInferRequest` of a control request: request parameters to `scheduler`; the tensors say nothing."""
    inputs = [_tensor("text_input", "BYTES", [control.encode("utf-8")]), _tensor("max_tokens", "INT32", [1])]
    parameters = {"control": control, **values}
    if token is not None:
        parameters["control_token"] = token
    return _message(SCHEDULER, inputs, "", parameters, timeout_s)


def limits_parameter(limits: Mapping[str, SettingValue]) -> str:
    """The value of the request parameter `limits`: a JSON object."""
    if not limits:
        raise InvalidRequest("limits: give at least one, max_inflight=8 say", "limits")
    # JSON has no infinity: no bound on waiting is null, as in the status.
    unbounded = limits.get("max_wait_s") == math.inf
    return _json_object("limits", {**limits, "max_wait_s": None} if unbounded else limits)


def policy_parameters(name: str, settings: Mapping[str, SettingValue] | None) -> dict[str, str]:
    """The request parameters of `set_policy`; without settings the server keeps those that it has."""
    return {"policy": name} | ({"settings": _json_object("settings", settings)} if settings else {})


def _json_object(parameter: str, values: Mapping[str, SettingValue]) -> str:
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(f"{parameter}: {name} is {value}, must be a finite number", parameter)
    return json.dumps(dict(values))


def _scalar(result: InferResult, name: str) -> int | None:
    values = result.as_numpy(name)
    return int(values.flat[0]) if values is not None and values.size else None


def read_part(response: Any) -> Part:
    """One `ModelInferResponse` as a value. Raises ServerError when it breaks the contract of the tensors."""
    # Reading a missing key of a protobuf map would add it.
    final = "triton_final_response" in response.parameters and response.parameters["triton_final_response"].bool_param
    if not response.outputs:
        return Part("", None, None, None, None, final, empty=True)
    result = InferResult(response)
    try:
        texts = result.as_numpy("text_output")
        text = b"".join(texts.flat).decode("utf-8") if texts is not None else ""
        queue_time_us = _scalar(result, "queue_time_us")
        return Part(
            text=text,
            output_tokens=_scalar(result, "num_output_tokens"),
            input_tokens=_scalar(result, "num_input_tokens"),
            predicted_tokens=_scalar(result, "predicted_tokens"),
            queue_time_s=None if queue_time_us is None else queue_time_us / 1_000_000,
            final=final,
            empty=False,
        )
    except (ValueError, TypeError) as error:
        raise ServerError(f"response of model {response.model_name!r} cannot be read: {error}") from error
