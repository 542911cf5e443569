"""What a run tells about the speed of the machine: only while every slot is taken does it show what it can do."""

from __future__ import annotations

import numpy as np

from ssjf_tools.bench.live.asking import Run


def full_tokens_per_s(run: Run, slots: int) -> float | None:
    """Output tokens a second while all slots were taken; None if they never were, or nobody knows (`direct`).

    A request holds its slot from leaving the queue to its last token. Its tokens are taken to come evenly between the
    first and the last.
    """
    known = run.ok & np.isfinite(run.queue_s)
    if not known.any():
        return None
    first, end, tokens = run.first_s[known], run.end_s[known], run.output_tokens[known]
    start = (run.arrival_s + run.queue_s)[known]
    times = np.concatenate([start, end])
    change = np.repeat([1, -1], len(start))
    order = np.lexsort((change, times))  # who leaves makes room for who comes at the same moment
    times, taken = times[order], np.cumsum(change[order])
    full_s = np.concatenate([[0.0], np.cumsum(np.diff(times) * (taken[:-1] >= slots))])  # up to each of the times
    if full_s[-1] <= 0:
        return None
    # An answer of one token has no length in time: a moment before its end tells whether all slots were taken.
    spans = np.maximum(end - first, 1e-6)
    shares = (np.interp(end, times, full_s) - np.interp(end - spans, times, full_s)) / spans
    return float((tokens * shares).sum() / full_s[-1])


def realised_load(run: Run, slots: int) -> float | None:
    """Tokens that were asked for in a second, as a share of what the machine made in this run while it was full.

    None where that is not known, and where all came at once or in a closed loop: there was no rate.
    """
    speed = full_tokens_per_s(run, slots)
    due = run.arrival_s[run.ok]
    seconds = float(due.max() - due.min()) if len(due) else 0.0
    if speed is None or seconds <= 0:
        return None
    return float(run.output_tokens[run.ok].sum()) / seconds / speed
