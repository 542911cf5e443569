"""How a request ended: one word for metrics, journal and status."""

from __future__ import annotations

import enum

from ssjf.core.errors import DeadlineExceeded, InvalidRequest, InvalidSetting, QueueFull, SchedulerError
from ssjf.service.errors import ControlRefused, EngineFailed, NotAccepting, RequestCancelled


class Outcome(enum.Enum):
    """Every request ends in exactly one of these."""

    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    INVALID = "invalid"
    ENGINE_ERROR = "engine_error"
    INTERNAL_ERROR = "internal_error"

    @classmethod
    def of_error(cls, error: SchedulerError) -> Outcome:
        """The outcome that an error stands for; what is not listed is a fault of ours."""
        return next((outcome for kinds, outcome in _OF_ERROR if isinstance(error, kinds)), cls.INTERNAL_ERROR)


_OF_ERROR: tuple[tuple[type[SchedulerError] | tuple[type[SchedulerError], ...], Outcome], ...] = (
    (RequestCancelled, Outcome.CANCELLED),
    (DeadlineExceeded, Outcome.EXPIRED),
    ((QueueFull, NotAccepting), Outcome.REJECTED),
    (EngineFailed, Outcome.ENGINE_ERROR),
    ((InvalidRequest, InvalidSetting, ControlRefused), Outcome.INVALID),
)
