"""How much may run: slots, groups and KV tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssjf.core.errors import UnknownJob
from ssjf.core.job import Job
from ssjf.core.settings import CoreSettings

# An answer that outgrew its prediction reserves this much more than it has, so that it need not be corrected at
# every token and the engine has room for the next ones.
_HEADROOM = 1.25
_UNLIMITED = math.inf


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the engines can take now, beside the limits: `slots` more jobs, and `share` (0 to 1) of the KV budget.

    Where one of two engines is out, its half of the budget is gone with it.
    """

    slots: int
    share: float = 1.0


@dataclass(slots=True, eq=False)
class Running:
    """A job that was handed to the engine. `reserved`: KV tokens held for it; `charged`: work charged to its tenant.

    `output_tokens`: of all sequences together, as of `heard`, the last news of it.
    """

    job: Job
    reserved: int
    charged: float
    started: float
    output_tokens: int = 0
    heard: float = 0.0
    cancelled: bool = False


class Admission:
    """The jobs in the engine against the limits in force.

    A job that is larger than the whole token budget may run when nothing else does: refusing it would depend on a limit
    that can change while it waits, and whether its prompt fits the engine at all is the engine's to say.
    """

    def __init__(self, settings: CoreSettings):
        self.tokens = 0
        # By id: to be read by everyone, to be changed by this class.
        self.running: dict[int, Running] = {}
        self.apply(settings)

    def apply(self, settings: CoreSettings) -> None:
        """Let these limits hold from now on. What runs beyond them stays."""
        self._budget = settings.max_inflight_tokens
        self._continuous = settings.batching == "continuous"
        if self._continuous:
            self._slots = settings.max_inflight + settings.over_dispatch
        else:
            self._slots = 1 if settings.batching == "none" else min(settings.batch_size, settings.max_inflight)

    def __len__(self) -> int:
        return len(self.running)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self.running

    def free_slots(self) -> int:
        """How many jobs may start now by the batching mode, KV tokens aside."""
        if self._continuous:
            return self._slots - len(self.running)  # below 0 after a limit was lowered
        return 0 if self.running else self._slots

    def room(self, share: float = 1.0) -> float:
        """KV tokens of `share` of the budget that may still be reserved; below 0 when answers outgrew predictions."""
        if self._budget is None or not self.running:
            return _UNLIMITED
        return self._budget * share - self.tokens

    def start(self, job: Job, work: float, now: float) -> None:
        self.running[job.job_id] = Running(job, job.kv_tokens, work, now)
        self.tokens += job.kv_tokens

    def grow(self, job_id: int, output_tokens: int, now: float) -> None:
        """Note that a job has produced `output_tokens` so far, all sequences together, and correct its reservation."""
        running = self.get(job_id)
        job = running.job
        running.output_tokens, running.heard = output_tokens, now
        if job.prompt_tokens + output_tokens <= running.reserved:
            return
        most = job.max_tokens * job.sequences
        reserved = job.prompt_tokens + max(output_tokens, min(most, math.ceil(output_tokens * _HEADROOM)))
        self.tokens += reserved - running.reserved
        running.reserved = reserved

    def get(self, job_id: int) -> Running:
        """The running job. Raises UnknownJob."""
        try:
            return self.running[job_id]
        except KeyError:
            raise UnknownJob(job_id, "running") from None

    def end(self, job_id: int) -> Running:
        """Free the job's slot and tokens. Raises UnknownJob."""
        running = self.running.pop(job_id, None)
        if running is None:
            raise UnknownJob(job_id, "running")
        self.tokens -= running.reserved
        return running
