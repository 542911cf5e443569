from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssjf import tensors
from ssjf.core.errors import InvalidRequest
from ssjf.service.intake import read_rows, wants_stop
from ssjf.service.messages import Call, Door
from ssjf.service.settings import ServiceSettings

SETTINGS = ServiceSettings(max_output_tokens=100, max_stop_words=2, max_word_bytes=8)


def texts(*words: Any) -> Any:
    return np.array([list(words)], dtype=np.object_)


def a_call(parameters: dict[str, Any] | None = None, timeout_us: int = 0, **tensors: Any) -> Call:
    given = {"text_input": texts(b"hello"), "max_tokens": np.array([[8]], np.int32), **tensors}
    return Call("id", {k: v for k, v in given.items() if v is not None}, parameters or {}, timeout_us, arrival=10.0)


def test_rows_become_generations_with_their_own_values() -> None:
    call = a_call(
        text_input=np.array([[b"one"], [b"two"]], dtype=np.object_),
        max_tokens=np.array([[8], [9]], np.int32),
        temperature=np.array([[0.5], [0.7]], np.float32),
    )
    first, second = read_rows(call, SETTINGS, 10)
    assert (first.row, first.text, first.max_tokens) == (0, b"one", 8)
    assert (second.row, second.text, second.max_tokens) == (1, b"two", 9)
    assert second.engine_inputs["temperature"].tolist() == [[pytest.approx(0.7)]]


def test_client_names_become_engine_names() -> None:
    (row,) = read_rows(
        a_call(
            top_k=np.array([[5]], np.int32),
            top_p=np.array([[0.9]], np.float32),
            length_penalty=np.array([[1.0]], np.float32),
            random_seed=np.array([[7]], np.uint64),
            min_length=np.array([[2]], np.int32),
        ),
        SETTINGS,
        10,
    )
    assert sorted(row.engine_inputs) == ["len_penalty", "min_tokens", "runtime_top_k", "runtime_top_p", "seed"]
    assert row.min_tokens == 2


BAD_INPUTS: list[tuple[str, dict[str, Any]]] = [
    ("max_tokens", {"max_tokens": np.array([[0]], np.int32)}),
    ("max_tokens", {"max_tokens": np.array([[-3]], np.int32)}),
    ("max_tokens", {"max_tokens": np.array([[101]], np.int32)}),
    ("max_tokens", {"max_tokens": None}),
    ("text_input", {"text_input": None}),
    ("min_tokens", {"min_tokens": np.array([[9]], np.int32)}),
    ("min_length", {"min_length": np.array([[-1]], np.int32)}),
    ("temperature", {"temperature": np.array([[np.nan]], np.float32)}),
    ("temperature", {"temperature": np.array([[-1.0]], np.float32)}),
    ("top_p", {"top_p": np.array([[1.5]], np.float32)}),
    ("top_k", {"top_k": np.array([[-1]], np.int32)}),
    ("repetition_penalty", {"repetition_penalty": np.array([[0.0]], np.float32)}),
    ("presence_penalty", {"presence_penalty": np.array([[np.inf]], np.float32)}),
    ("beam_width", {"beam_width": np.array([[0]], np.int32)}),
    ("num_return_sequences", {"num_return_sequences": np.array([[1000]], np.int32)}),
    ("end_id", {"end_id": np.array([[-2]], np.int32)}),
    ("stream", {"stream": np.array([[True]]), "beam_width": np.array([[2]], np.int32)}),
    ("stop_words", {"stop_words": texts(b"a", b"b", b"c")}),
    ("stop_words", {"stop_words": texts(b"a word too long")}),
    ("bad_words", {"bad_words": texts(b"\xff")}),
    ("embedding_bias_weights", {"embedding_bias_words": texts(b"a")}),
    ("input_lengths", {"input_ids": np.ones((1, 3), np.int32), "input_lengths": np.array([[4]], np.int32)}),
]


@pytest.mark.parametrize(("field", "tensors"), BAD_INPUTS)
def test_a_bad_input_is_named(field: str, tensors: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_rows(a_call(**tensors), SETTINGS, 10)
    assert caught.value.field == field
    assert caught.value.limit


BAD_PARAMETERS: list[tuple[str, Any]] = [
    ("priority_class", -1),
    ("priority_class", 1.5),
    ("priority_class", "urgent"),
    ("priority_class", True),
    ("deadline_ms", 0),
    ("deadline_ms", float("nan")),
    ("expected_tokens", -1),
    ("expected_tokens", []),
    ("timeout", -1),
    ("tenant", 7),
    ("tenant", "x" * 200),
]


@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS)
def test_a_bad_request_parameter_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_rows(a_call({name: value}), SETTINGS, 10)
    assert caught.value.field == name


def test_request_parameters_are_read_as_numbers_or_text() -> None:
    (row,) = read_rows(a_call({"priority_class": "2", "tenant": "a", "expected_tokens": 12.0}), SETTINGS, 10)
    assert (row.priority_class, row.tenant, row.expected_tokens, row.deadline) == (2, "a", 12.0, None)


@pytest.mark.parametrize(
    ("parameters", "timeout_us", "deadline"),
    [
        ({"deadline_ms": 500}, 0, 10.5),
        ({}, 250_000, 10.25),
        ({"timeout": 100_000}, 0, 10.1),
        ({"deadline_ms": 500}, 10**7, 10.5),
    ],
)
def test_the_earliest_deadline_counts(parameters: dict[str, Any], timeout_us: int, deadline: float) -> None:
    (row,) = read_rows(a_call(parameters, timeout_us), SETTINGS, 10)
    assert row.deadline == pytest.approx(deadline)


def test_ids_of_the_ensemble_are_cut_to_their_length() -> None:
    call = a_call(
        input_ids=np.array([[5, 6, 0]], np.int32),
        input_lengths=np.array([[2]], np.int32),
        length_distribution=np.array([[0.5, 0.5]], np.float32),
    )
    (row,) = read_rows(call, SETTINGS, 10)
    assert call.door is Door.ENSEMBLE
    assert row.prompt_ids is not None
    assert row.prompt_ids.tolist() == [5, 6]


def test_no_input_of_the_contract_is_ignored() -> None:
    contract = {spec.name for spec in (*tensors.CLIENT_OPTIONAL_INPUTS, *tensors.PRODUCTION_OPTIONAL_INPUTS)}
    assert contract <= set(tensors.CLIENT_TO_ENGINE) | tensors.HANDLED_INPUTS


def test_neutral_values_are_accepted() -> None:
    (row,) = read_rows(
        a_call(
            beam_width=np.array([[1]], np.int32),
            stop_words=texts(b""),
            bad_words=texts(b""),
            stop=np.array([[False]]),
            end_id=np.array([[-1]], np.int32),
        ),
        SETTINGS,
        10,
    )
    assert row.stop_words == ()
    assert not wants_stop(a_call(stop=np.array([[False]])))
    assert wants_stop(a_call(stop=np.array([[True]])))


def test_log_probabilities_are_asked_of_the_engine_only_when_wanted() -> None:
    (plain,) = read_rows(a_call(return_log_probs=np.array([[False]])), SETTINGS, 10)
    (wanted,) = read_rows(a_call(return_log_probs=np.array([[True]])), SETTINGS, 10)
    assert plain.flagged_outputs == ()
    assert wanted.flagged_outputs == ("cum_log_probs", "output_log_probs")
