"""Before the arms: how long each answer is, and what the machine can do. Every prompt is asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ssjf_tools.bench.live.asking import Asker, Question, Run, run_plan
from ssjf_tools.bench.live.plan import Plan


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine does with all slots busy: `tokens_per_s` of output, and how many answers of this mix that is."""

    tokens_per_s: float
    requests_per_s: float
    mean_tokens: float
    cv_tokens: float


@dataclass(frozen=True, slots=True)
class FirstPass:
    """`truth`: output tokens of each question's answer, [questions]."""

    truth: list[int]
    capacity: Capacity
    run: Run


async def first_pass(
    asker: Asker, questions: Sequence[Question], slots: int, seed: int, progress: Callable[[], None]
) -> FirstPass:
    """A closed loop with twice as many clients as slots, so that no slot waits for a client.

    It warms the server up as well: the scheduler learns from these answers what a usual length is. Raises RuntimeError
    when a question is not answered.
    """
    order = np.random.default_rng(seed).permutation(len(questions))
    run = await run_plan(asker, "scheduler", questions, Plan(order, None), None, 2 * slots, progress)
    if not run.ok.all():
        failed = order[~run.ok][0]
        raise RuntimeError(f"the first pass needs an answer to every prompt; none came to: {questions[failed].text!r}")
    truth = np.zeros(len(questions), dtype=np.int64)
    truth[order] = run.output_tokens
    return FirstPass(truth.tolist(), measured_capacity(run), run)


def measured_capacity(run: Run) -> Capacity:
    """From a closed loop: tokens that came while requests still waited, over that time.

    Afterwards slots run empty, which is no part of the capacity. Between an answer's first token and its last, tokens
    are taken to come evenly.
    """
    full = float((run.arrival_s + run.queue_s).max())  # the last request leaves the queue
    span = np.maximum(run.end_s - run.first_s, 1e-9)
    share = np.clip((full - run.first_s) / span, 0.0, 1.0)
    tokens, mean = float((run.output_tokens * share).sum()), float(run.output_tokens.mean())
    rate = tokens / full if full > 0 else float(run.output_tokens.sum() / run.end_s.max())
    return Capacity(rate, rate / mean, mean, float(run.output_tokens.std() / mean))
