"""Tiny requests that wait in no queue: which parts of a server do not answer?

A real inference waits its turn behind other people's long answers, and its length would be learnt from. These do
neither: a `status` request takes the way of an inference through a door as far as the scheduler, and the engine is
asked directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from ssjf_client.wire import control_message

ENGINE = "tensorrt_llm"
DOORS = ("scheduler", "ensemble", "unary")
# What Triton itself says for a model that is not there; every other error was made by a model that is.
_ABSENT = ("is not healthy", "unknown model", "no available versions", "is not ready")
_TOKENS = np.array([[1, 2, 3, 4]], dtype=np.int32)
_ONE = np.array([[1]], dtype=np.int32)
# Enough for an answer; the tensors of each model are in python_backends/ssjf/tensors.py.
_DIRECT: Mapping[str, Mapping[str, NDArray[Any]]] = {
    "preprocessing": {"text_input": np.array([[b"hi"]], dtype=np.object_)},
    "length_predictor": {"input_ids": _TOKENS, "attention_mask": np.ones_like(_TOKENS)},
    ENGINE: {"input_ids": _TOKENS, "input_lengths": _ONE * _TOKENS.size, "request_output_len": _ONE},
}
MODELS = frozenset((*DOORS, *_DIRECT))


def silent_models(triton: Any, timeout_s: float) -> frozenset[str]:
    """The models that say nothing within `timeout_s` seconds, asked all at once through the gRPC stub `triton`.

    An error is an answer, too: another engine's flavour may refuse the request, and is alive.
    """
    messages = [_direct(model, tensors) for model, tensors in _DIRECT.items()]
    messages += [_status(door, timeout_s) for door in DOORS]
    # NOTE: a thread each, because gRPC fetches a stream's answer when it is asked for: one that is fetched after the
    # others have waited in vain would be too late.
    with ThreadPoolExecutor(len(messages), "ask") as pool:
        answered = pool.map(lambda message: _answers(triton, message, timeout_s), messages)
        return frozenset(m.model_name for m, answer in zip(messages, answered, strict=True) if not answer)


def _answers(triton: Any, message: Any, timeout_s: float) -> bool:
    call = triton.ModelStreamInfer(iter((message,)), timeout=timeout_s)
    try:
        response = next(call, None)
    except grpc.RpcError:
        return False
    finally:
        call.cancel()
    return response is not None and not any(words in response.error_message for words in _ABSENT)


def _status(door: str, timeout_s: float) -> Any:
    message = control_message("status", None, {}, timeout_s)
    message.model_name = door
    return message


def _direct(model: str, tensors: Mapping[str, NDArray[Any]]) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, values in tensors.items():
        tensor = message.inputs.add(name=name, shape=values.shape, datatype="INT32")
        if values.dtype == np.object_:
            tensor.datatype = "BYTES"
            tensor.contents.bytes_contents.extend(values.flat)
        else:
            tensor.contents.int_contents.extend(values.flat)
    return message
