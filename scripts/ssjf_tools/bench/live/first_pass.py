"""Before the arms: how long each answer is, and what the machine can do. Every prompt is asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ssjf_tools.bench.live.asking import Asker, Question, Run, run_plan
from ssjf_tools.bench.live.occupancy import full_tokens_per_s
from ssjf_tools.bench.live.plan import Plan


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine does with all slots busy: `tokens_per_s` of output, and how many answers of this mix that is.

    `mean_tokens` and `cv_tokens` (coefficient of variation) are of the answers, each prompt counted once.
    """

    tokens_per_s: float
    requests_per_s: float
    mean_tokens: float
    cv_tokens: float


@dataclass(frozen=True, slots=True)
class FirstPass:
    """`answered`: places of the questions that the server answered; `truth`: tokens of each of these answers."""

    answered: list[int]
    truth: list[int]
    capacity: Capacity


async def first_pass(
    asker: Asker, questions: Sequence[Question], slots: int, seed: int, progress: Callable[[], None]
) -> FirstPass:
    """A closed loop with twice as many clients as slots, so that no slot waits for a client.

    It warms the server up as well: the scheduler learns from these answers what a usual length is. Questions that the
    server refuses (too long for its context, say) are left out from here on. Raises RuntimeError when all are.
    """
    order = np.random.default_rng(seed).permutation(len(questions))
    run = await run_plan(asker, "scheduler", questions, Plan(order, None), None, 2 * slots, progress)
    tokens = dict(zip(order[run.ok].tolist(), run.output_tokens[run.ok].tolist(), strict=True))
    answered = sorted(tokens)
    return FirstPass(answered, [int(tokens[place]) for place in answered], measured_capacity(run, slots))


def measured_capacity(run: Run, slots: int) -> Capacity:
    """From a closed loop with more clients than slots: what came while all slots were taken.

    With too few requests for that, all tokens over all the time.
    """
    lengths = run.output_tokens[run.ok]
    mean = float(lengths.mean())
    rate = full_tokens_per_s(run, slots) or float(lengths.sum() / run.end_s[run.ok].max())
    return Capacity(rate, rate / mean, mean, float(lengths.std() / mean))
