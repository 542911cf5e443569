"""Triton shell of `length_predictor` in the CPU profile: proxy token ids to a distribution over output lengths."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy_onnx.live import LiveProxy, LoadedProxy
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor
from proxy_onnx.runtime import MODEL_FILE, OnnxRuntime
from proxy_onnx.settings import ProxySettings
from proxy_onnx.triton_io import answer_requests
from ssjf.parameters import Parameters


class TritonPythonModel:
    """One instance; a run of the model for every prompt."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
        parameters = Parameters.of_model(args, os.environ)
        parameters.check_known(ProxySettings)
        settings = parameters.build(ProxySettings)
        self._live = LiveProxy(settings.proxy_dir, [MODEL_FILE], lambda: _load(settings))
        self._live.start(settings.proxy_watch_s)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return answer_requests(requests, self._live)

    def finalize(self) -> None:
        self._live.close()


def _load(settings: ProxySettings) -> LoadedProxy:
    metadata = ProxyMetadata.load(settings.proxy_dir)
    runtime = OnnxRuntime(settings.proxy_dir, settings.proxy_threads)
    return LoadedProxy(metadata, Predictor(runtime, metadata, most_rows=None), _nothing)


def _nothing() -> None:
    """ONNX Runtime frees a session with its last reference."""
