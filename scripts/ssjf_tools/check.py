"""Everything `scripts/test` checks, the fast checks first; the first failure ends the run."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssjf_tools.bootstrap import CHECKOUT

CODE = ("python_backends", "client", "scripts/ssjf_tools", "tests")
NO_TESTS_COLLECTED = 5


@dataclass(frozen=True, slots=True)
class Step:
    """One check: a name to print and the arguments of `python -m`."""

    name: str
    command: tuple[str, ...]


def steps(fast: bool, only_tests: bool, pytest_arguments: Sequence[str], code: Sequence[str]) -> list[Step]:
    """The checks in order. `code` are the folders to look at; `pytest_arguments` go to both pytest runs unchanged."""
    checks = [
        Step("format", ("ruff", "format", "--check", *code)),
        Step("lint", ("ruff", "check", *code)),
        Step("types", ("mypy", *code)),
    ]
    coverage = "--cov", "--cov-report=term"
    # Unit tests share nothing, so every core takes some; server tests take turns with the cores that they measure.
    unit = ("pytest", "tests/unit", "-n", "auto", *(("-m", "not slow") if fast else ()))
    if fast:
        return ([] if only_tests else checks) + [Step("unit tests", (*unit, *coverage, *pytest_arguments))]
    tests = [
        Step("unit tests", (*unit, "--cov", "--cov-report=", *pytest_arguments)),
        Step("server tests", ("pytest", "tests/server", *coverage, "--cov-append", *pytest_arguments)),
    ]
    return ([] if only_tests else checks) + tests


def run(step: Step, narrowed: bool) -> int:
    """Runs one check in the checkout; returns its exit code. `narrowed`: no test may match the caller's choice."""
    begun = time.monotonic()
    print(f"== {step.name}: {' '.join(step.command)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *step.command], cwd=CHECKOUT, check=False).returncode
    if narrowed and step.command[0] == "pytest" and code == NO_TESTS_COLLECTED:
        code = 0
    print(
        f"== {step.name}: {'ok' if code == 0 else f'failed ({code})'} in {time.monotonic() - begun:.1f} s\n", flush=True
    )
    return code


def main(argv: Sequence[str]) -> int:
    """Parses the command line, runs the steps, returns the exit code of the first that fails."""
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Format check, lint, strict types, unit tests, server tests, coverage: the fast ones first.",
        epilog="Other arguments go to pytest: scripts/test --fast -k queue -x",
    )
    parser.add_argument(
        "--fast", action="store_true", help="leave out the tests that start a server or are marked slow"
    )
    parser.add_argument("--only-tests", action="store_true", help="leave out format check, lint and types")
    options, pytest_arguments = parser.parse_known_args(argv)
    pytest_arguments = [argument for argument in pytest_arguments if argument != "--"]
    code = [folder for folder in CODE if (CHECKOUT / Path(folder)).is_dir()]
    for step in steps(options.fast, options.only_tests, pytest_arguments, code):
        failed = run(step, narrowed=bool(pytest_arguments))
        if failed:
            return failed
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
