"""Triton shell of `preprocessing`: prompt text to LLM token ids and proxy token ids."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from proxy_onnx.encode import ProxyEncoder
from ssjf.core.errors import InvalidRequest
from ssjf.parameters import Parameters
from tokenizer.settings import FolderSettings
from tokenizer.text import TextSettings, TextTokenizer, decode_prompt


class TritonPythonModel:
    """One instance tokenizes requests as they come; `tokenizers` releases the GIL while it works."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = Parameters.of_model(args, os.environ)
        parameters.check_known(FolderSettings, TextSettings)
        folders = parameters.build(FolderSettings)
        self._text_settings = parameters.build(TextSettings)
        self._tokenizer = TextTokenizer.from_dir(folders.tokenizer_dir, self._text_settings)
        self._proxy = ProxyEncoder.from_dir(folders.proxy_dir)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            texts = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)
            stop = pb_utils.get_input_tensor_by_name(request, "stop")
            if stop is not None and bool(stop.as_numpy().any()):
                return _response(_stop_rows(len(texts)))
            return _response(self._tokenize(list(texts)))
        except InvalidRequest as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))

    def _tokenize(self, texts: list[bytes]) -> dict[str, NDArray[np.int32]]:
        """Row by row; ids of shorter rows are padded with 0 and their true lengths given beside them."""
        rows = [self._tokenizer.encode(text) for text in texts]
        input_ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int32)
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids)] = ids
        plain = [decode_prompt(text, self._text_settings.max_prompt_bytes) for text in texts]
        proxy_ids, proxy_mask = self._proxy.encode(plain)
        return {
            "input_ids": input_ids,
            "input_lengths": np.array([[len(ids)] for ids in rows], dtype=np.int32),
            "proxy_input_ids": proxy_ids,
            "proxy_attention_mask": proxy_mask,
        }


def _stop_rows(count: int) -> dict[str, NDArray[np.int32]]:
    """A stop request has no prompt of its own: one token a row keeps the later steps' shapes valid."""
    ones = np.ones((count, 1), dtype=np.int32)
    return {"input_ids": ones, "input_lengths": ones, "proxy_input_ids": ones, "proxy_attention_mask": ones}


def _response(tensors: dict[str, NDArray[np.int32]]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors.items()])
