"""How fast the machine was in each minute and a half of a live run, from the times of the run itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ssjf_tools.bench.live.asking import Run
from ssjf_tools.simulate.pace import Clock
from ssjf_tools.simulate.service import ServiceModel
from ssjf_tools.simulate.tables import Column

WINDOW_S = 90.0
# Answers shorter than this say little: their first token's way and the last piece's weigh more than decoding.
_FEWEST_TOKENS = 8
# A window with fewer such answers is taken to be like the whole run.
_FEWEST_ANSWERS = 10


def clock_of(run: Run, model: ServiceModel) -> Clock:
    """The clock of the machine during the run: in each window the median slowness of the answers that ended there."""
    ends, slow = slowness(run, model)
    if not len(ends):
        return Clock([0.0], [1.0])
    since = np.arange(max(1, math.ceil(float(ends.max()) / WINDOW_S))) * WINDOW_S
    places = np.minimum((ends / WINDOW_S).astype(int), len(since) - 1)
    overall = float(np.median(slow))
    factors = []
    for window in range(len(since)):
        own = slow[places == window]
        factors.append(float(np.median(own)) if len(own) >= _FEWEST_ANSWERS else overall)
    return Clock(since.tolist(), factors)


def slowness(run: Run, model: ServiceModel) -> tuple[Column, Column]:
    """When each answer of some length ended, and how many times longer than the model says it decoded.

    What the model says depends on who else ran, and that is taken from the run: how many decoded at each moment, and
    whose prompts held them up meanwhile (each spread evenly from leaving the queue to the first token). With f for the
    slowness, an answer gains (1/f - prefill seconds a second) / step time tokens a second; f is what makes this its
    number of tokens.
    """
    ok = run.ok & np.isfinite(run.queue_s)
    first, end, tokens = run.first_s[ok], run.end_s[ok], run.output_tokens[ok]
    if not len(first):
        return first, first
    begun = np.minimum((run.arrival_s + run.queue_s)[ok], first)
    prefill_s = np.zeros(len(first)) if model.chunk_tokens is None else model.prefill_s * run.prompt_tokens[ok]
    pace = prefill_s / np.maximum(first - begun, 1e-3)
    one, none = np.ones(len(first)), np.zeros(len(first))

    times = np.concatenate([first, end, begun, first])
    order = np.argsort(times, kind="stable")
    moments = times[order]
    decoding = np.cumsum(np.concatenate([one, -one, none, none])[order])
    prefilling = np.cumsum(np.concatenate([none, none, pace, -pace])[order])
    step_s = np.array([math.inf, *(model.step_s(size) for size in range(1, len(first) + 1))])
    steps_a_second = 1.0 / step_s[np.rint(decoding).astype(int)]
    made, lost = _integral(moments, steps_a_second), _integral(moments, prefilling * steps_a_second)

    long = (tokens >= _FEWEST_TOKENS) & (end > first)
    first, end, steps = first[long], end[long], tokens[long] - 1
    return end, (made(end) - made(first)) / (steps + lost(end) - lost(first))


def _integral(moments: Column, values: Column) -> Callable[[Column], Column]:
    """Over time of what has these values from these moments on; a function of times [n] → [n]."""
    total = np.concatenate([np.zeros(1), np.cumsum(values[:-1] * np.diff(moments))])
    return lambda at: np.asarray(np.interp(at, moments, total))
