"""In place of NVIDIA's model of the llmapi flavour: its tensors, no model. Answers `word word …`, a word a token.

As upstream: no batch dimension, `text_output` is the whole answer so far, metrics and reasons come as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from helpers import WORD  # type: ignore[import-not-found] # Triton puts the version folder on the path


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        assert config["max_batch_size"] == 0
        assert config["model_transaction_policy"]["decoupled"] is True
        folder = Path(args["model_repository"]) / args["model_version"]
        assert "decoupled: true" in (folder / "model.yaml").read_text()

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()
            assert text.shape == (1,), text.shape
            wanted = int(pb_utils.get_input_tensor_by_name(request, "sampling_param_max_tokens").as_numpy()[0])
            streaming = bool(pb_utils.get_input_tensor_by_name(request, "streaming").as_numpy()[0])
            for count in range(1 if streaming else wanted, wanted + 1):
                final = count == wanted
                flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
                sender.send(_response(" ".join([WORD] * count), "length" if final else "None"), flags)


def _response(text: str, reason: str) -> Any:
    values = {"text_output": text, "finish_reason": reason}
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.array([value.encode()], np.object_)) for name, value in values.items()]
    )
