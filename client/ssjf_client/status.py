"""What the scheduler says about itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .errors import ServerError

__all__ = ["Status", "parse_status"]


@dataclass(frozen=True, slots=True)
class Status:
    """Live state of the scheduler. None: the server did not say (without a token it says less).

    Lengths in tokens, times in seconds, counters since the server's start. Keys that this version of the library does
    not know, or whose value has another type, are in `extra`.
    """

    ready: bool | None = None
    """False while the scheduler drains: it takes no new requests."""
    live_requests: int | None = None
    """Client requests that have not ended, wherever they are."""
    policy: str | None = None
    effective_policy: str | None = None
    """What orders the queue now: `fcfs` while the guardrail distrusts the predictions."""
    tau: float | None = None
    """Rank correlation of predicted and actual lengths over the last answers."""
    bias: float | None = None
    """Predicted over actual tokens, summed over the last answers."""
    queue_length: int | None = None
    oldest_wait_s: float | None = None
    in_flight: int | None = None
    tokens_in_flight: int | None = None
    mean_service_s: float | None = None
    queue_lengths: Mapping[int, int] = field(default_factory=dict)
    """Waiting requests by priority class."""
    backlog_tokens: Mapping[int, float] = field(default_factory=dict)
    """Predicted output that waits, by priority class."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """The limits in force: `max_inflight`, `batching`, …; `max_wait_s` is inf without a bound on waiting."""
    ended: Mapping[str, int] = field(default_factory=dict)
    """Ended requests by outcome: finished, cancelled, rejected, … (the server's `requests_*`)."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All that the server said, under its own keys."""
        known = {name: getattr(self, name) for name in (*_SCALARS, *_BY_CLASS)}
        known["limits"] = _exchange(self.limits, math.inf, None)
        ended = {_ENDED + outcome: count for outcome, count in self.ended.items()}
        return {name: value for name, value in known.items() if value not in (None, {})} | ended | dict(self.extra)


_ENDED: Final = "requests_"
_NUMBER: Final = (int, float)
_SCALARS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "ready": bool,
    "live_requests": int,
    "policy": str,
    "effective_policy": str,
    "tau": _NUMBER,
    "bias": _NUMBER,
    "queue_length": int,
    "oldest_wait_s": _NUMBER,
    "in_flight": int,
    "tokens_in_flight": int,
    "mean_service_s": _NUMBER,
}
_BY_CLASS: Final = ("queue_lengths", "backlog_tokens")


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    # bool is a subclass of int in Python.
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _by_class(value: Any) -> dict[int, Any] | None:
    """A JSON object with priority classes for keys, or None when it is something else."""
    if not isinstance(value, dict) or not all(key.isdecimal() and _fits(n, _NUMBER) for key, n in value.items()):
        return None
    return {int(key): number for key, number in value.items()}


def _exchange(limits: Mapping[str, Any], old: float | None, new: float | None) -> dict[str, Any]:
    """The limits with another word for no bound on waiting: null in JSON, inf in Python."""
    unbounded = "max_wait_s" in limits and limits["max_wait_s"] == old
    return {**limits, "max_wait_s": new} if unbounded else dict(limits)


def parse_status(text: str) -> Status:
    """The JSON object that the server answers to a status request. Raises ServerError when it is no JSON object."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ServerError(f"status: the server's answer is not JSON ({error}): {text[:80]!r}") from error
    if not isinstance(data, dict):
        raise ServerError(f"status: the server's answer is not a JSON object: {text[:80]!r}")
    known: dict[str, Any] = {name: data[name] for name, kind in _SCALARS.items() if _fits(data.get(name), kind)}
    for name in _BY_CLASS:
        by_class = _by_class(data.get(name))
        if by_class is not None:
            known[name] = by_class
    if isinstance(data.get("limits"), dict):
        known["limits"] = _exchange(data["limits"], None, math.inf)
    ended = {name: count for name, count in data.items() if name.startswith(_ENDED) and _fits(count, int)}
    return Status(
        **known,
        ended={name.removeprefix(_ENDED): count for name, count in ended.items()},
        extra={name: value for name, value in data.items() if name not in known and name not in ended},
    )
