"""Runs made up for the tests: n requests through a number of slots, each at a token a tenth of a second."""

from __future__ import annotations

import numpy as np

from ssjf_tools.bench.live.asking import Run
from ssjf_tools.bench.live.experiment import ArmRun, Outcome, Settings
from ssjf_tools.bench.live.figures import Objective
from ssjf_tools.bench.live.first_pass import Capacity, FirstPass
from ssjf_tools.bench.live.plan import Plan
from ssjf_tools.bench.live.prompts import Prompt
from ssjf_tools.bench.live.target import Target
from ssjf_tools.simulate.workload import ArrivalProcess

TOKEN_S = 0.1


def make_run(arrival: list[float], start: list[float], tokens: list[int], token_s: float = TOKEN_S) -> Run:
    """Requests that wait from arrival to start, then get a token every tenth of a second, or at another pace."""
    begun, lengths = np.array(start), np.array(tokens, dtype=np.float64)
    return Run(
        arrival_s=np.array(arrival),
        first_s=begun + token_s,
        end_s=begun + token_s * lengths,
        queue_s=begun - np.array(arrival),
        longest_gap_s=np.full(len(tokens), token_s),
        output_tokens=lengths,
        prompt_tokens=np.full(len(tokens), 5.0),
        predicted_tokens=lengths + 1,
    )


def one_slot(arrival: list[float], tokens: list[int], order: list[int], token_s: float = TOKEN_S) -> Run:
    """A machine with one slot that serves requests in this order."""
    start, now = [0.0] * len(tokens), 0.0
    for place in order:
        start[place] = max(now, arrival[place])
        now = start[place] + token_s * tokens[place]
    return make_run(arrival, start, tokens, token_s)


def make_outcome(runs: list[tuple[str, int, Run]], tokens: list[int]) -> Outcome:
    """An outcome whose repeat k asks all prompts in order."""
    arms = tuple(dict.fromkeys(arm for arm, _, _ in runs))
    repeats = 1 + max(repeat for _, repeat, _ in runs)
    settings = Settings(
        arms, len(tokens), repeats, 0, 64, True, ArrivalProcess("poisson", 1.0), 0.9, 1, None, Objective(1.0, 0.2)
    )
    plan = Plan(np.arange(len(tokens)), runs[0][2].arrival_s)
    first = FirstPass(list(range(len(tokens))), tokens, Capacity(10.0, 1.0, float(np.mean(tokens)), 1.0))
    prompts = [Prompt(f"p{at}", f"prompt {at}") for at in range(len(tokens))]
    target = Target("localhost:1", "token", 1, 60.0, own=True)
    made = [ArmRun(arm, repeat, run, arm, 0.5, 20.0) for arm, repeat, run in runs]
    return Outcome(settings, target, prompts, first, [1.0] * repeats, [plan] * repeats, made)
