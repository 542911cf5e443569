"""KServe gRPC messages to and from numpy, without tritonclient's per-request objects.

The relay handles thousands of responses a second in one Python process, so it works on the raw protobuf messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor

from ssjf.service.messages import EngineRequest
from ssjf.tensors import NUMPY_TYPES

FINAL_PARAMETER = "triton_final_response"
WANT_FINAL_PARAMETER = "triton_enable_empty_final_response"

# Set by `unary` on what it forwards: the error's Triton code goes before its text, since a stream carries text only.
CODED_ERRORS_PARAMETER = "coded_errors"


def build_request(
    model: str, request_id: str, tensors: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()
) -> Any:
    """A ModelInferRequest; no `outputs` means all of the model's."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in tensors.items():
        request.inputs.add(name=name, datatype=np_to_triton_dtype(value.dtype), shape=value.shape)
        request.raw_input_contents.append(to_bytes(value))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def build_engine_request(
    model: str, request: EngineRequest, tensors: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()
) -> Any:
    """The ModelInferRequest of one job: marks its last response, and carries the client's context as parameters."""
    message = build_request(model, request.engine_id, tensors, outputs)
    message.parameters[WANT_FINAL_PARAMETER].bool_param = True
    for name, value in request.context.items():
        message.parameters[name].string_param = value
    return message


def to_bytes(value: NDArray[Any]) -> bytes:
    """Raw tensor contents as Triton's wire wants them; texts carry a length before each element."""
    if value.dtype == np.object_:
        packed = serialize_byte_tensor(value)
        return bytes(packed.item()) if packed.size else b""
    return np.ascontiguousarray(value).tobytes()


def read_outputs(response: Any) -> dict[str, NDArray[Any]]:
    """Every output of a ModelInferResponse as an array of its shape; read-only views on the message."""
    arrays = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            array = deserialize_bytes_tensor(raw)
        else:
            array = np.frombuffer(raw, dtype=NUMPY_TYPES[output.datatype])
        arrays[output.name] = array.reshape(tuple(output.shape))
    return arrays


def is_final(response: Any) -> bool:
    """True for the response after which a decoupled model sends nothing more."""
    return FINAL_PARAMETER in response.parameters and bool(response.parameters[FINAL_PARAMETER].bool_param)
