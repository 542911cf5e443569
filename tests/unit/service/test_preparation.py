"""What goes to the engine besides the prompt: the end token above all, without which TensorRT-LLM never stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from ssjf.service.messages import Generation
from ssjf.service.predictor import Predictor
from ssjf.service.preparation import Preparation
from tests.unit.byte_tokenizer import write_tokenizer_dir
from tokenizer.text import TextSettings, TextTokenizer


def generation(**engine_inputs: Any) -> Generation:
    return Generation(
        row=0, text=b"hi", max_tokens=8, min_tokens=0, stream=True, echo=False, stop_words=(), bad_words=(),
        biased_words=(), prompt_table_extra_id=None, beams=1, sequences=1, flagged_outputs=(),
        engine_inputs=engine_inputs, prompt_ids=None, distribution=None, priority_class=0, tenant="", deadline=None,
        expected_tokens=None,
    )  # fmt: skip


def engine_inputs(folder: Path, settings: TextSettings, **sent: Any) -> dict[str, int]:
    tokenizer = TextTokenizer.from_dir(write_tokenizer_dir(folder), settings)
    preparation = Preparation(tokenizer, cast("Predictor", None), 64, 1000)
    request = preparation.engine_request("id", generation(**sent), np.array([1, 2], np.int32), streaming=True)
    preparation.close()
    assert all(value.shape == (1, 1) for value in request.inputs.values())
    return {name: int(value[0, 0]) for name, value in request.inputs.items()}


@pytest.mark.parametrize(
    ("settings", "sent", "got"),
    [
        (TextSettings(), {}, {}),
        (TextSettings(end_id=2, pad_id=0), {}, {"end_id": 2, "pad_id": 0}),
        (TextSettings(end_id=2), {"end_id": 7}, {"end_id": 7}),
        (TextSettings(end_id=2), {"end_id": -1}, {"end_id": -1}),
    ],
)
def test_the_sites_end_token_goes_along_where_the_client_names_none(
    tmp_path: Path, settings: TextSettings, sent: dict[str, int], got: dict[str, int]
) -> None:
    arrays = {name: np.array([[value]], np.int32) for name, value in sent.items()}
    assert engine_inputs(tmp_path, settings, **arrays) == got
