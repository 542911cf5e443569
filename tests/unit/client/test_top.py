from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssjf_client import ServerUnavailable, Status
from ssjf_client.top import render, run_top

STATUS = Status(
    ready=True,
    policy="ssjf",
    queue_length=1234,
    queue_lengths={2: 1200, 1: 0, 0: 34},
    in_flight=2,
    oldest_wait_s=12.3,
    tau=0.41237,
    backlog_tokens={0: 6_789.4, 2: 50_000},
    limits={"max_inflight": 8, "batching": "continuous"},
    ended={"finished": 10, "cancelled": 1},
    extra={"relay_lag_s": 0.00123456, "engines": [1, 2]},
)


def test_a_frame_shows_queue_slots_and_counts() -> None:
    frame = render(STATUS, None, 0.0)
    assert frame[0] == "policy ssjf   batching continuous"
    assert "in flight       2 / 8       " + "█" * 10 + "░" * 30 in frame
    assert "waiting     1,234   oldest 12 s" in frame
    assert "backlog    56,789 tokens predicted" in frame
    assert "tau 0.4124   bias -" in frame
    assert [line.split() for line in frame if "class" in line] == [["class", "0", "34"], ["class", "2", "1,200"]]
    assert any(line.split() == ["finished", "10"] for line in frame)
    assert any(line.split() == ["relay_lag_s", "0.001235"] for line in frame)
    assert not any("engines" in line for line in frame)


def test_rates_come_from_two_states() -> None:
    before = Status(ended={"finished": 4})
    frame = render(STATUS, before, 2.0)
    assert any(line.split() == ["finished", "10", "3.0/s"] for line in frame)
    assert any(line.split() == ["cancelled", "1", "0.5/s"] for line in frame)


def test_a_restarted_server_gives_no_negative_rate() -> None:
    frame = render(STATUS, Status(ended={"finished": 400}), 2.0)
    assert any(line.split() == ["finished", "10", "0.0/s"] for line in frame)


def test_draining_and_a_distrusted_policy_are_shown() -> None:
    frame = render(Status(ready=False, policy="ssjf", effective_policy="fcfs"), None, 0.0)
    assert frame[0] == "policy ssjf (now ordering by fcfs)   batching -   DRAINING"


def test_a_status_that_says_nothing_is_shown_as_such() -> None:
    assert render(Status(), None, 0.0)[0] == "policy -   batching -"


def test_frames_follow_each_other_without_control_codes_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    slept: list[float] = []
    ticks: Iterator[float] = iter((0.0, 2.0, 4.0))
    run_top(lambda: STATUS, interval_s=2.0, count=3, clock=lambda: next(ticks), sleep=slept.append)
    out = capsys.readouterr().out
    assert out.count("policy ssjf") == 3
    assert out.count("0.0/s") == 4  # two outcomes in the last two frames
    assert "\x1b" not in out
    assert slept == [2.0, 2.0]


def test_a_server_that_goes_away_for_a_while_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([STATUS, None, STATUS])

    def read() -> Status:
        answer = next(answers)
        if answer is None:
            raise ServerUnavailable("connection refused")
        return answer

    run_top(read, interval_s=1.0, count=3, sleep=lambda _: None)
    out = capsys.readouterr().out
    assert out.count("policy ssjf") == 2
    assert "the server does not answer: connection refused" in out


def test_a_server_that_never_answered_is_an_error() -> None:
    def read() -> Status:
        raise ServerUnavailable("connection refused")

    with pytest.raises(ServerUnavailable):
        run_top(read, interval_s=1.0, sleep=lambda _: None)
