from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from proxy_onnx.encode import CHARACTERS_PER_TOKEN, ProxyEncoder
from proxy_onnx.errors import EncodeError, MetadataError
from tests.unit.proxy import small_proxy
from tests.unit.proxy.small_proxy import CLS, PAD, SEP, UNK

ENCODER = ProxyEncoder(small_proxy.tokenizer(), small_proxy.metadata())


def ids_of(*numbers: int) -> list[int]:
    return [number + 4 for number in numbers]


def test_a_short_text_stands_between_its_marks_and_is_padded_to_a_bucket() -> None:
    ids, mask = ENCODER.encode(["W1 w2 w3"])
    assert ids.dtype == mask.dtype == np.int32
    assert ids.tolist() == [[CLS, *ids_of(1, 2, 3), SEP, PAD, PAD, PAD]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]


def test_rows_share_the_bucket_of_the_longest() -> None:
    ids, mask = ENCODER.encode(["w1", "w1 w2 w3 w4 w5 w6 w7"])
    assert ids.shape == (2, 12)
    assert mask.sum(axis=1).tolist() == [3, 9]


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    ids, _ = ENCODER.encode([" ".join(f"w{number}" for number in range(20))])
    assert ids.tolist() == [[CLS, *ids_of(0, 1, 2, 3, 4), SEP, *ids_of(16, 17, 18, 19), SEP]]


def test_a_text_of_exactly_the_limit_is_not_cut() -> None:
    ids, _ = ENCODER.encode([" ".join(f"w{number}" for number in range(10))])
    assert ids.tolist() == [[CLS, *ids_of(*range(10)), SEP]]


def test_the_middle_of_a_huge_text_is_not_even_tokenized() -> None:
    reach = 12 * CHARACTERS_PER_TOKEN
    middle = "w9 " * 100_000
    start = "w1 w2 w3 w4 w5 ".ljust(reach)
    ids, _ = ENCODER.encode([start + middle + "w6 w7 w8 w9".rjust(reach)])
    assert ids.tolist() == [[CLS, *ids_of(1, 2, 3, 4, 5), *ids_of(6, 7, 8, 9), SEP, PAD]]


def test_robertas_marks_are_known_by_their_names() -> None:
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "[UNK]": 3, "w1": 4}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    ids, mask = ProxyEncoder(made, small_proxy.metadata()).encode(["w1"])
    assert ids.tolist() == [[0, 4, 2, 1]]
    assert mask.tolist() == [[1, 1, 1, 0]]


def test_text_without_any_token_is_just_the_marks() -> None:
    ids, mask = ENCODER.encode([""])
    assert ids.tolist() == [[CLS, SEP, PAD, PAD]]
    assert mask.tolist() == [[1, 1, 0, 0]]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), min_size=1, max_size=4))
def test_every_text_fits_a_bucket_and_the_mask_tells_padding(texts: list[str]) -> None:
    ids, mask = ENCODER.encode(texts)
    assert ids.shape == mask.shape
    assert ids.shape[0] == len(texts)
    assert ids.shape[1] in (4, 8, 12)
    assert ((ids == PAD) == (mask == 0)).all()
    assert (ids[:, 0] == CLS).all()
    assert ids.max() < len(small_proxy.WORDS)
    # Alone and among others a text gets the same tokens.
    for row, text in enumerate(texts):
        alone, alone_mask = ENCODER.encode([text])
        assert ids[row][mask[row] == 1].tolist() == alone[0][alone_mask[0] == 1].tolist()


def test_unknown_words_are_unk() -> None:
    assert ENCODER.encode(["zebra"])[0].tolist() == [[CLS, UNK, SEP, PAD]]


def test_half_a_surrogate_pair_is_refused_and_its_row_named() -> None:
    with pytest.raises(EncodeError, match=r"texts\[1\] is not valid Unicode"):
        ENCODER.encode(["fine", "bad \ud800"])


def test_no_texts_are_refused() -> None:
    with pytest.raises(EncodeError, match="texts is empty"):
        ENCODER.encode([])


def test_loading_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "proxy.json").write_text(json.dumps(small_proxy.DOCUMENT))
    small_proxy.tokenizer().save(str(tmp_path / "tokenizer.json"))
    encoder = ProxyEncoder.from_dir(tmp_path)
    assert encoder.metadata.bins == 4
    assert encoder.encode(["w1"])[0].tolist() == [[CLS, *ids_of(1), SEP, PAD]]


@pytest.mark.parametrize("content", [None, "{}", '{"version": "1.0"'])
def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "proxy.json").write_text(json.dumps(small_proxy.DOCUMENT))
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(MetadataError, match=r"tokenizer\.json: cannot be read"):
        ProxyEncoder.from_dir(tmp_path)
