"""A predictor that always says one token, and takes two seconds for it while the flag file exists."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        proxy = json.loads((Path(os.environ["SSJF_ASSETS"]) / "proxy" / "proxy.json").read_text())
        self._bins = len(proxy["bin_means"])
        self._flag = Path(os.environ["SSJF_TEST_SLOW_FLAG"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        if self._flag.exists():
            time.sleep(2)
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        rows = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy().shape[0]
        distribution = np.zeros((rows, self._bins), dtype=np.float32)
        distribution[:, 0] = 1.0
        return pb_utils.InferenceResponse([pb_utils.Tensor("length_distribution", distribution)])
