"""Jobs and schedulers for tests of the core, made in one line."""

from __future__ import annotations

import itertools
import math
from typing import Any

from ssjf.core.job import Job, LengthPrediction
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import CoreSettings

_ids = itertools.count(1)


def make_job(predicted: float = 100.0, *, arrival: float = 0.0, tail: float | None = None, **fields: Any) -> Job:
    """A job of up to 4,096 tokens; ids count up in the order of the calls."""
    fields.setdefault("job_id", next(_ids))
    source = fields.pop("source", "proxy")
    prediction = LengthPrediction(predicted, predicted if tail is None else tail, source)
    defaults: dict[str, Any] = {"prompt_tokens": 0, "max_tokens": 4096, "min_tokens": 1}
    return Job(arrival=arrival, prediction=prediction, **(defaults | fields))


def make_scheduler(**settings: Any) -> Scheduler:
    """Plain ssjf with one slot and no bound on waiting, unless told otherwise."""
    defaults: dict[str, Any] = {"policy": "ssjf", "max_inflight": 1, "max_wait_s": math.inf, "guardrail": False}
    return Scheduler(CoreSettings(**(defaults | settings)))


def drain(scheduler: Scheduler, now: float = 0.0, *, actual: float | None = None) -> list[int]:
    """Run everything that waits, each dispatched job to its end; the ids in order of dispatch."""
    order: list[int] = []
    while jobs := scheduler.schedule(now).dispatch:
        order.extend(job.job_id for job in jobs)
        for job in jobs:
            tokens = job.predicted_tokens * job.sequences if actual is None else actual
            scheduler.finish(job.job_id, int(tokens), now)
    return order
