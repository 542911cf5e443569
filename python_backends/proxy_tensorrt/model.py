"""Triton shell of `length_predictor` in production: proxy token ids to a distribution over output lengths."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy_onnx.live import LiveProxy
from proxy_onnx.triton_io import answer_requests
from proxy_tensorrt.cuda import Cuda
from proxy_tensorrt.loading import WATCHED, load_proxy
from proxy_tensorrt.settings import PlanSettings
from ssjf.parameters import Parameters


class TritonPythonModel:
    """One instance on one GPU; requests that Triton hands over together are answered by one run per length bucket."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
        parameters = Parameters.of_model(args, os.environ)
        parameters.check_known(PlanSettings)
        settings = parameters.build(PlanSettings)
        number = int(args.get("model_instance_device_id") or 0)
        self._live = LiveProxy(
            settings.proxy_dir,
            WATCHED,
            lambda: load_proxy(settings.proxy_dir, settings.proxy_max_batch_rows, lambda: Cuda(number)),
        )
        self._live.start(settings.proxy_watch_s)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return answer_requests(requests, self._live)

    def finalize(self) -> None:
        self._live.close()
