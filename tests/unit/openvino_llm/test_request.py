from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvino_llm.errors import InvalidInput
from openvino_llm.request import EngineRequest, RequestReader, word_list
from openvino_llm.settings import EngineSettings, SamplingDefaults
from tests.unit.openvino_llm.fakes import FACTS

READER = RequestReader(EngineSettings(), SamplingDefaults(), FACTS, lambda: 1234)

FLOATS = {"runtime_top_p", "temperature", "len_penalty", "repetition_penalty", "presence_penalty", "frequency_penalty"}
FLAGS = {"streaming", "return_log_probs", "exclude_input_in_output", "stop"}


def tensors(rows: int = 1, **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, np.ndarray[Any, Any]] = {
        "input_ids": np.tile(np.array([5, 6, 7], np.int32), (rows, 1)),
        "input_lengths": np.full((rows, 1), 3, np.int32),
        "request_output_len": np.full((rows, 1), 10, np.int32),
    }
    for name, value in inputs.items():
        kind = (
            np.float32 if name in FLOATS else np.bool_ if name in FLAGS else np.uint64 if name == "seed" else np.int32
        )
        found[name] = value if isinstance(value, np.ndarray) else np.full((rows, 1), value, kind)
    return found


def read(rows: Any = 1, **inputs: Any) -> EngineRequest:
    return READER.read("id", tensors(rows, **inputs))


def test_what_is_left_out_takes_the_engines_defaults() -> None:
    request = read()
    (row,) = request.generations
    assert (row.prompt, row.max_tokens, row.min_tokens) == ((5, 6, 7), 10, 0)
    assert row.end_ids == FACTS.eos_token_ids
    assert (row.sampling.temperature, row.sampling.top_p, row.sampling.top_k) == (0.2, 0.9, 0)
    assert (row.sampling.repetition_penalty, row.sampling.seed, row.sampling.greedy) == (1.1, 1234, False)
    assert (request.streaming, request.echo_prompt) == (False, False)


def test_every_optional_input_at_its_neutral_value_is_accepted() -> None:
    request = read(
        end_id=2,
        pad_id=2,
        beam_width=1,
        num_return_sequences=1,
        runtime_top_k=0,
        runtime_top_p=1.0,
        temperature=1.0,
        len_penalty=1.0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        min_tokens=1,
        seed=0,
        stop_words_list=np.full((1, 2, 0), 0, np.int32),
        bad_words_list=np.array([[[0], [-1]]], np.int32),
        return_log_probs=False,
        return_num_input_tokens=True,
        exclude_input_in_output=True,
        streaming=True,
        stop=False,
    )
    assert request.generations[0].end_ids == (2,)
    assert request.generations[0].sampling.seed == 0
    assert request.streaming


@pytest.mark.parametrize(
    "inputs", [{"temperature": 0.0}, {"runtime_top_k": 1}, {"runtime_top_p": 0.0}, {"temperature": 1e-9}]
)
def test_greedy_spellings(inputs: dict[str, float]) -> None:
    assert read(**inputs).generations[0].sampling.greedy


def test_top_p_zero_with_a_top_k_is_top_k_alone() -> None:
    sampling = read(runtime_top_p=0.0, runtime_top_k=4).generations[0].sampling
    assert (sampling.greedy, sampling.top_p, sampling.top_k) == (False, 1.0, 4)


def test_end_id_minus_one_means_none() -> None:
    assert read(end_id=-1).generations[0].end_ids == ()


@pytest.mark.parametrize(
    ("field", "inputs"),
    [
        ("request_output_len", {"request_output_len": 0}),
        ("request_output_len", {"request_output_len": -5}),
        ("request_output_len", {"request_output_len": 62}),  # 3 + 62 > 64
        ("input_lengths", {"input_lengths": 0}),
        ("input_lengths", {"input_lengths": 4}),
        ("input_lengths", {"input_ids": np.zeros((1, 64), np.int32), "input_lengths": 64}),
        ("input_ids[1]", {"input_ids": np.array([[5, 100, 7]], np.int32)}),
        ("input_ids[0]", {"input_ids": np.array([[-1, 5, 7]], np.int32)}),
        ("temperature", {"temperature": math.nan}),
        ("temperature", {"temperature": -0.1}),
        ("temperature", {"temperature": math.inf}),
        ("runtime_top_p", {"runtime_top_p": 1.5}),
        ("runtime_top_p", {"runtime_top_p": math.nan}),
        ("runtime_top_k", {"runtime_top_k": -1}),
        ("repetition_penalty", {"repetition_penalty": 0.0}),
        ("repetition_penalty", {"repetition_penalty": 1e30}),
        ("presence_penalty", {"presence_penalty": 2.5}),
        ("frequency_penalty", {"frequency_penalty": -2.5}),
        ("min_tokens", {"min_tokens": 11}),
        ("min_tokens", {"min_tokens": -1}),
        ("end_id", {"end_id": 100}),
        ("end_id", {"end_id": -2}),
        ("beam_width", {"beam_width": 2}),
        ("num_return_sequences", {"num_return_sequences": 2}),
        ("len_penalty", {"len_penalty": 0.5}),
        ("bad_words_list", {"bad_words_list": np.array([[[5], [1]]], np.int32)}),
        ("stop_words_list", {"stop_words_list": np.array([[[5], [2]]], np.int32)}),
        ("stop_words_list", {"stop_words_list": np.zeros((1, 3, 1), np.int32)}),
        ("temperature", {"temperature": np.zeros((1, 2), np.float32)}),
        ("temperature", {"temperature": np.zeros((2, 1), np.float32)}),
    ],
)
def test_an_error_names_the_input(field: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(**inputs)
    assert caught.value.field == field


def test_rows_have_their_own_values_and_lengths() -> None:
    request = read(
        rows=2, input_lengths=np.array([[2], [3]], np.int32), temperature=np.array([[0.0], [0.7]], np.float32)
    )
    first, second = request.generations
    assert (first.prompt, second.prompt) == ((5, 6), (5, 6, 7))
    assert (first.sampling.greedy, second.sampling.greedy) == (True, False)


def test_rows_cannot_disagree_on_streaming() -> None:
    with pytest.raises(InvalidInput, match="streaming"):
        read(rows=2, streaming=np.array([[True], [False]]))


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=5), st.integers(0, 3))
def test_word_lists_round_trip(words: list[list[int]], padding: int) -> None:
    flat = [token for word in words for token in word] + [0] * padding
    ends = [int(end) for end in np.cumsum([len(word) for word in words])]
    array = np.array([flat, ends + [-1] * (len(flat) - len(ends))], np.int32).reshape(2, -1)
    assert word_list(array, "stop_words_list") == tuple(map(tuple, words))


@given(
    st.dictionaries(st.sampled_from(sorted(FLOATS)), st.floats(width=32)),
    st.dictionaries(
        st.sampled_from(["end_id", "pad_id", "runtime_top_k", "min_tokens", "beam_width", "request_output_len"]),
        st.integers(-(2**31), 2**31 - 1),
    ),
)
def test_any_number_is_either_honoured_or_refused_by_name(floats: dict[str, float], integers: dict[str, int]) -> None:
    refused = None
    try:
        (row,) = read(**floats, **integers).generations
    except InvalidInput as error:
        refused = error.field
    if refused is not None:
        assert refused in {*floats, *integers}
    else:
        assert 1 <= row.max_tokens <= FACTS.context_length - len(row.prompt)
        assert row.min_tokens <= row.max_tokens
        assert row.sampling.greedy or row.sampling.temperature > 0
        assert 0 < row.sampling.top_p <= 1
