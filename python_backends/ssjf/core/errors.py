"""What the scheduler refuses, and why. The service maps these to Triton's error codes.

SchedulerError
├── InvalidRequest      a field of one request is out of range
├── InvalidSetting      a setting is out of range (also a ValueError)
├── QueueFull           overload: the request was not taken in
├── DeadlineExceeded    the request cannot start, or did not start, in time
└── UnknownJob          a job id that is not in the scheduler (a fault of the caller)
"""

from __future__ import annotations

# Of a value in a message: more than this is not read, and a client may have sent megabytes.
_SHOWN = 120


def shown(value: object) -> str:
    """A value for a message: long ones are cut, with their length."""
    if isinstance(value, str | bytes) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}… ({len(value)} {'bytes' if isinstance(value, bytes) else 'characters'})"
    text = repr(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


class SchedulerError(Exception):
    """Base of everything that the scheduler raises on purpose."""


class InvalidRequest(SchedulerError):
    """One field of a request is wrong: names the field, the value and the limit."""

    def __init__(self, field: str, value: object, limit: str):
        super().__init__(f"{field} is {shown(value)}, allowed: {limit}")
        self.field = field
        self.value = value
        self.limit = limit


class InvalidSetting(SchedulerError, ValueError):
    """One setting is wrong: names the key, the value and the allowed range."""

    def __init__(self, key: str, value: object, allowed: str):
        super().__init__(f"{key} is {shown(value)}, allowed: {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed


class QueueFull(SchedulerError):
    """The waiting queue is at its limit of requests or bytes.

    `retry_after_s` is an estimate in seconds of when a tenth of the queue, at least one request, will have left it.
    """

    def __init__(self, queue_length: int, retry_after_s: float, limit: str):
        super().__init__(
            f"the queue is full: {queue_length} requests wait, the limit is {limit}; retry in {retry_after_s:.2f} s"
        )
        self.queue_length = queue_length
        self.retry_after_s = retry_after_s
        self.limit = limit


class DeadlineExceeded(SchedulerError):
    """The request's deadline has passed, or will have passed before it could start."""


class UnknownJob(SchedulerError):
    """The job is not where the caller believes it is: finished twice, or never submitted."""

    def __init__(self, job_id: int, expected: str):
        super().__init__(f"job {job_id} is not {expected}")
        self.job_id = job_id
