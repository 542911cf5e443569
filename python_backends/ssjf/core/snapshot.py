"""The scheduler's state at one moment, for status, metrics and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force; see CoreSettings."""

    max_inflight: int
    over_dispatch: int
    max_inflight_tokens: int | None
    batching: str
    batch_size: int
    max_wait_s: float
    max_queue: int
    max_queue_bytes: int


@dataclass(slots=True)
class Counts:
    """What has happened since the start."""

    dispatched: int = 0
    finished: int = 0
    cancelled: int = 0
    expired: int = 0
    rejected: int = 0
    requeued: int = 0
    repredicted: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of a Scheduler. Times in seconds, lengths in tokens, counters since the start.

    `queue_lengths` and `backlog_tokens` (predicted output that waits) are by priority class. `effective_policy` differs
    from `policy` while the guardrail has fallen. `tau` and `bias` (sum predicted over sum actual) are None until enough
    answers have been seen. `promotions`: jobs dispatched after max_wait_s of waiting. `repredicted`: jobs whose
    prediction came after them.
    """

    policy: str
    effective_policy: str
    guardrail_fallen: bool
    guardrail_changes: int
    tau: float | None
    bias: float | None
    aging_rate: float | None
    prior_mean_tokens: float
    queue_length: int
    queue_bytes: int
    queue_lengths: Mapping[int, int]
    backlog_tokens: Mapping[int, float]
    oldest_wait_s: float
    in_flight: int
    tokens_in_flight: int
    mean_service_s: float | None
    dispatched: int
    finished: int
    cancelled: int
    expired: int
    rejected: int
    requeued: int
    repredicted: int
    promotions: int
    limits: Limits
