from __future__ import annotations

import pytest

from ssjf_tools import check
from ssjf_tools.check import Step, steps


def test_checks_come_fast_first_and_coverage_last() -> None:
    names = [step.name for step in steps(fast=False, only_tests=False, pytest_arguments=[], code=["client"])]
    assert names == ["format", "lint", "types", "unit tests", "server tests"]


def test_fast_starts_no_server_and_still_reports_coverage() -> None:
    last = steps(fast=True, only_tests=False, pytest_arguments=["-x"], code=["client"])[-1]
    assert last.command[:2] == ("pytest", "tests/unit")
    assert "--cov-report=term" in last.command
    assert last.command[-1] == "-x"


def test_only_tests_are_pytest_runs() -> None:
    assert {step.command[0] for step in steps(False, True, [], ["client"])} == {"pytest"}


def test_the_first_failure_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(step: Step, narrowed: bool) -> int:
        ran.append(step.name)
        return 3 if step.name == "lint" else 0

    monkeypatch.setattr(check, "run", run)
    assert check.main([]) == 3
    assert ran == ["format", "lint"]


def test_no_test_is_a_failure_unless_the_caller_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    none = Step("unit tests", ("pytest", "--does-not-exist"))
    monkeypatch.setattr(check, "NO_TESTS_COLLECTED", 4)  # pytest's code for wrong usage stands in for 5, no tests
    assert check.run(none, narrowed=True) == 0
    assert check.run(none, narrowed=False) == 4
