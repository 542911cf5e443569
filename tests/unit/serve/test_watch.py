from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf_tools.serve import watch as module
from ssjf_tools.serve.components import ENGINE
from ssjf_tools.serve.health import Health
from ssjf_tools.serve.watch import Restarts, Watch, describe_exit, is_alive

ALIVE = {
    "all answer": Health(),
    "a full engine that works": Health(frozenset({ENGINE}), moved=True),
}
DEAD = {
    "engine hangs": Health(frozenset({ENGINE}), moved=False),
    "tokenizer hangs while others move": Health(frozenset({"preprocessing", "ensemble"}), moved=True),
    "scheduler hangs": Health(frozenset({"scheduler", "ensemble", "unary"}), moved=False),
    "a full engine and a dead door": Health(frozenset({ENGINE, "unary"}), moved=True),
}


@pytest.mark.parametrize("case", ALIVE)
def test_signs_of_life(case: str) -> None:
    assert is_alive(ALIVE[case].silent, ALIVE[case].moved)


@pytest.mark.parametrize("case", DEAD)
def test_signs_of_death(case: str) -> None:
    assert not is_alive(DEAD[case].silent, DEAD[case].moved)


@given(st.lists(st.sampled_from([*ALIVE.values(), *DEAD.values()]), max_size=30), st.integers(1, 4))
def test_only_failures_in_a_row_restart(probes: list[Health], limit: int) -> None:
    watch, row = Watch([], limit), 0
    for health in probes:
        row = 0 if health in ALIVE.values() else row + 1
        reason = watch.judge_health(health)
        assert bool(reason) == (row >= limit)


def test_the_reason_names_who_is_silent() -> None:
    assert "ensemble, preprocessing" in Watch([], 1).judge_health(DEAD["tokenizer hangs while others move"])


def test_a_model_that_was_never_there_is_not_missed() -> None:
    watch = Watch([], 1, absent=[ENGINE])
    assert watch.judge_health(DEAD["engine hangs"]) == ""
    assert "unary" in watch.judge_health(DEAD["a full engine and a dead door"])


def test_a_dead_stub_is_named_by_its_model() -> None:
    watch = Watch(["scheduler_0_0", "length_predictor_0_0"], 2)
    assert watch.judge_processes(None, ["scheduler_0_0", "length_predictor_0_0", "more_0_0"]) == ""
    assert watch.judge_processes(None, ["scheduler_0_0"]) == "the Python process of length_predictor died"


def test_the_end_of_the_server_beats_the_end_of_its_stubs() -> None:
    assert "killed by SIGKILL" in Watch(["scheduler_0_0"], 2).judge_processes(-9, [])


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (-11, "killed by SIGSEGV"), (-99, "killed by signal 99")]
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


def test_the_first_restart_is_at_once_and_a_crash_loop_ends() -> None:
    restarts = Restarts()
    delays = [restarts.next_delay(now=float(second)) for second in range(module.RESTARTS_AT_MOST + 1)]
    assert delays[0] == 0
    assert delays[-1] is None
    waits = [delay for delay in delays if delay is not None]
    assert waits == sorted(waits)
    assert len(waits) == module.RESTARTS_AT_MOST


@given(st.lists(st.floats(0, 2000), max_size=60).map(sorted))
def test_restarts_are_bounded_in_any_window(times: list[float]) -> None:
    restarts, granted = Restarts(), []
    for now in times:
        if restarts.next_delay(now) is not None:
            granted.append(now)
        recent = [time for time in granted if now - time < module.RESTART_WINDOW_S]
        assert len(recent) <= module.RESTARTS_AT_MOST


def test_rare_failures_are_forgiven_for_ever() -> None:
    restarts = Restarts()
    assert {restarts.next_delay(now=day * 86_400.0) for day in range(50)} == {0.0}
