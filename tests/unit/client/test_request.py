from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from ssjf_client import GenerateRequest, InvalidRequest
from ssjf_client.request import as_request


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("text", "", "non-empty"),
        ("text", b"bytes", "a string"),
        ("text", "bad \ud800 surrogate", "position 4"),
        ("max_tokens", 0, "from 1 to"),
        ("max_tokens", -1, "from 1 to"),
        ("max_tokens", 2**31, "from 1 to 2147483647"),
        ("max_tokens", 1.5, "an integer"),
        ("max_tokens", True, "an integer"),
        ("stop_words", "stop", "list of strings"),
        ("stop_words", [""], "non-empty"),
        ("stop_words", [3], "a string"),
        ("bad_words", 3, "list of strings"),
        ("temperature", -0.1, "at least 0"),
        ("temperature", math.nan, "finite"),
        ("temperature", math.inf, "finite"),
        ("temperature", 1e39, "finite"),
        ("temperature", "hot", "a finite number"),
        ("top_p", 0.0, "above 0"),
        ("top_p", 1.01, "at most 1"),
        ("top_k", -1, "from 0"),
        ("seed", -1, "from 0"),
        ("seed", 2**64, "18446744073709551615"),
        ("min_tokens", 257, "from 0 to 256"),
        ("repetition_penalty", 0, "above 0"),
        ("presence_penalty", math.nan, "finite"),
        ("frequency_penalty", math.inf, "finite"),
        ("request_id", "x" * 257, "at most 256 bytes"),
        ("priority_class", -1, "from 0"),
        ("tenant", "", "non-empty"),
        ("tenant", "é" * 129, "at most 256 bytes"),
        ("deadline_ms", 0, "from 1"),
        ("expected_tokens", 0, "from 1"),
        ("timeout_s", 0, "above 0"),
        ("timeout_s", 1e9, "at most 86400"),
    ],
)
def test_a_wrong_value_is_refused_with_field_value_and_limit(field: str, value: Any, limit: str) -> None:
    arguments = {"text": "hi"} | {field: value}
    with pytest.raises(InvalidRequest) as caught:
        GenerateRequest(**arguments)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}=")
    assert limit in str(caught.value)


def test_a_long_wrong_value_is_shown_shortened() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerateRequest("hi", request_id="x" * 5000)
    assert len(str(caught.value)) < 200


def test_limits_themselves_are_accepted() -> None:
    request = GenerateRequest(
        "é",
        max_tokens=1,
        min_tokens=1,
        temperature=0,
        top_p=1.0,
        top_k=0,
        seed=2**64 - 1,
        priority_class=0,
        tenant="é" * 128,
        deadline_ms=1,
        expected_tokens=1,
        request_id="x" * 256,
    )
    assert request.seed == 2**64 - 1


def test_words_become_a_tuple_so_that_the_request_stays_frozen() -> None:
    words = ["a", "b"]
    request = GenerateRequest("hi", stop_words=words)
    words.append("c")
    assert request.stop_words == ("a", "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.text = "other"  # type: ignore[misc]


def test_as_request_takes_text_or_a_request_and_replaces_fields() -> None:
    assert as_request("hi", {"max_tokens": 3}) == GenerateRequest("hi", max_tokens=3)
    base = GenerateRequest("hi", seed=1)
    assert as_request(base, {}) is base
    assert as_request(base, {"max_tokens": 3}) == GenerateRequest("hi", max_tokens=3, seed=1)


def test_as_request_checks_replaced_fields_and_names_unknown_ones() -> None:
    with pytest.raises(InvalidRequest, match="max_tokens=0"):
        as_request(GenerateRequest("hi"), {"max_tokens": 0})
    with pytest.raises(InvalidRequest, match="max_token: no such field") as caught:
        as_request("hi", {"max_token": 3})
    assert caught.value.field == "max_token"
