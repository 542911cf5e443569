from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ssjf.core.snapshot import Snapshot
from ssjf_client import ServerError, Status
from ssjf_client.status import parse_status

FULL: dict[str, Any] = {
    "ready": True,
    "policy": "ssjf",
    "queue_length": 3,
    "queue_lengths": {"0": 1, "2": 2},
    "backlog_tokens": {"0": 10, "2": 12.5},
    "limits": {"max_inflight": 8, "batching": "continuous"},
    "requests_finished": 9,
    "requests_cancelled": 1,
    "engines": [{"url": "a"}],
    "promotions": 4,
}


def test_known_keys_are_typed_and_the_rest_is_kept() -> None:
    status = parse_status(json.dumps(FULL))
    assert (status.ready, status.policy, status.queue_length) == (True, "ssjf", 3)
    assert status.queue_lengths == {0: 1, 2: 2}
    assert status.backlog_tokens == {0: 10, 2: 12.5}
    assert status.limits["max_inflight"] == 8
    assert status.in_flight is None
    assert status.ended == {"finished": 9, "cancelled": 1}
    assert status.extra == {"engines": [{"url": "a"}], "promotions": 4}


def test_as_dict_gives_back_what_the_server_said() -> None:
    assert json.loads(json.dumps(parse_status(json.dumps(FULL)).as_dict())) == FULL


def test_fields_are_those_of_the_server_s_snapshot() -> None:
    ours = {entry.name for entry in dataclasses.fields(Status)}
    of_the_service = {"ready", "live_requests", "ended", "extra"}
    assert ours - of_the_service <= {entry.name for entry in dataclasses.fields(Snapshot)}


def test_a_known_key_of_another_type_is_kept_as_extra() -> None:
    odd = {
        "policy": {"name": "x"},
        "queue_length": "3",
        "in_flight": True,
        "tau": None,
        "ready": 1,
        "limits": 3,
        "queue_lengths": {"high": 1},
        "backlog_tokens": [1],
        "requests_x": 1.5,
    }
    assert parse_status(json.dumps(odd)) == Status(extra=odd)


def test_a_key_called_like_a_field_of_ours_does_not_break_the_object() -> None:
    assert parse_status('{"extra": 1, "ended": 2}').extra == {"extra": 1, "ended": 2}


def test_an_empty_object_is_a_status() -> None:
    assert parse_status("{}") == Status()


@pytest.mark.parametrize("text", ["", "[1]", "ready", '{"policy"'])
def test_an_answer_that_is_no_json_object_is_a_server_error(text: str) -> None:
    with pytest.raises(ServerError, match="status: the server's answer"):
        parse_status(text)
