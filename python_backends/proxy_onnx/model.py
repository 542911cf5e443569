"""Triton shell of `length_predictor` in the CPU profile: proxy token ids to a distribution over output lengths."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import triton_python_backend_utils as pb_utils

from proxy_onnx.errors import ProxyError, RequestError
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Answer, Predictor
from proxy_onnx.runtime import INPUTS, OUTPUT, OnnxRuntime
from proxy_onnx.settings import ProxySettings
from ssjf.parameters import Parameters


class TritonPythonModel:
    """One instance; the requests that Triton hands over together are answered by one run per length bucket."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = Parameters.of_model(args, os.environ)
        parameters.check_known(ProxySettings)
        settings = parameters.build(ProxySettings)
        metadata = ProxyMetadata.load(settings.proxy_dir)
        runtime = OnnxRuntime(settings.proxy_dir, settings.proxy_threads)
        self._predictor = Predictor(runtime, metadata, settings.proxy_max_batch_rows)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        tensors = [tuple(_tensor(request, name) for name in INPUTS) for request in requests]
        try:
            answers = self._predictor.predict(tensors)
        except ProxyError as error:  # model and metadata do not fit: nobody's fault in particular
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
