"""Between Triton and a live proxy: the same for every runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from .errors import ProxyError, RequestError
from .live import LiveProxy
from .predict import Answer
from .tensors import INPUTS, OUTPUT


def answer_requests(requests: Sequence[Any], live: LiveProxy) -> list[Any]:
    """One response per request, in order; a bad request gets its own error."""
    tensors = [tuple(_tensor(request, name) for name in INPUTS) for request in requests]
    try:
        with live.use() as predictor:
            answers = predictor.predict(tensors)
    except ProxyError as error:  # model and metadata do not fit, a device that fails: nobody's fault in particular
        return [_refuse(str(error), pb_utils.TritonError.INTERNAL) for _ in requests]
    return [_respond(answer) for answer in answers]


def _tensor(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def _respond(answer: Answer) -> Any:
    if isinstance(answer, RequestError):
        return _refuse(str(answer), pb_utils.TritonError.INVALID_ARG)
    if isinstance(answer, ProxyError):
        return _refuse(str(answer), pb_utils.TritonError.INTERNAL)
    return pb_utils.InferenceResponse([pb_utils.Tensor(OUTPUT, answer)])


def _refuse(text: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))
