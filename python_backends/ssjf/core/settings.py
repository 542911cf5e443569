"""Settings of the scheduling core: one frozen object, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from ssjf.core.errors import InvalidSetting

Batching = Literal["none", "dynamic", "continuous"]

# Settings that `Scheduler.set_limits` may change on a live server.
LIVE_LIMITS = frozenset({
    "max_inflight", "over_dispatch", "max_inflight_tokens", "batching", "batch_size", "max_wait_s", "max_queue",
    "max_queue_bytes",
})  # fmt: skip

# Settings that `Scheduler.set_policy` may change together with the policy.
POLICY_SETTINGS = frozenset({"aging_rate", "sept_tail_beta", "prefill_weight", "random_seed"})


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Everything that decides who goes next. Times in seconds, lengths in tokens.

    Raises InvalidSetting, naming key, value and range; the policy's name is checked by the registry.
    """

    policy: str = "ssjf-aging"
    # Requests that the engine runs at once (its batch slots), and how many more to send ahead to hide the refill gap.
    max_inflight: int = 8
    over_dispatch: int = 0
    # Budget of prompt plus predicted output of the running jobs, the engine's KV cache; None: not limited.
    max_inflight_tokens: int | None = None
    # continuous: a slot frees, the best job goes. dynamic: groups of up to batch_size, the next when one is done.
    # none: one at a time.
    batching: str = "continuous"
    batch_size: int = 8
    # A job that waited this long goes to the front of its tenant; inf: no bound.
    max_wait_s: float = 60.0
    # Tokens a second of waiting; None: twice the running mean length over max_wait_s (see policies/aging.py).
    aging_rate: float | None = None
    sept_tail_beta: float = 0.5
    # Output tokens that one prompt token costs: a prefill token is 50 to 200 times cheaper than a decode step.
    prefill_weight: float = 0.01
    random_seed: int = 0
    # Shares of tenants; a tenant that is not listed has weight 1.
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    # priority_class of a request: 0 to priority_classes - 1.
    priority_classes: int = 10
    max_queue: int = 10_000
    max_queue_bytes: int = 256 * 2**20
    # Output length to assume before the first answers, and how many recent answers the prior remembers.
    prior_tokens: float = 256.0
    prior_window: int = 512
    # The guardrail: Kendall's tau_b over the last answers, computed after every `guardrail_every` of them.
    guardrail: bool = True
    guardrail_window: int = 256
    guardrail_every: int = 64
    guardrail_min_answers: int = 128
    guardrail_fall_tau: float = 0.0
    guardrail_recover_tau: float = 0.15
    guardrail_max_bias: float = 10.0

    def __post_init__(self) -> None:
        _check_choices(self)
        for key, (low, high) in RANGES.items():
            _check_range(key, getattr(self, key), low, high)
        for tenant, weight in self.tenant_weights.items():
            _check_range(f"tenant_weights[{tenant!r}]", weight, 1e-6, 1e6)
        fall, recover = self.guardrail_fall_tau, self.guardrail_recover_tau
        if recover < fall:
            raise InvalidSetting("guardrail_recover_tau", recover, f"at least guardrail_fall_tau {fall:g}")
        answers, window = self.guardrail_min_answers, self.guardrail_window
        if answers > window:
            raise InvalidSetting("guardrail_min_answers", answers, f"at most guardrail_window {window}")


_MANY = 2**31 - 1
# Allowed ranges, both ends included. A key whose value may be None is only checked when it is set.
RANGES: dict[str, tuple[float, float]] = {
    "max_inflight": (1, _MANY),
    "over_dispatch": (0, _MANY),
    "max_inflight_tokens": (1, 2**53),
    "batch_size": (1, _MANY),
    "max_wait_s": (1e-3, math.inf),
    "aging_rate": (0, 1e9),
    "sept_tail_beta": (0, 1e3),
    "prefill_weight": (0, 10),
    "random_seed": (0, 2**64 - 1),
    "priority_classes": (1, 1000),
    "max_queue": (1, _MANY),
    "max_queue_bytes": (1, 2**53),
    "prior_tokens": (1, 1e9),
    "prior_window": (16, 1_000_000),
    "guardrail_window": (16, 4096),
    "guardrail_every": (1, 4096),
    "guardrail_min_answers": (8, 4096),
    "guardrail_fall_tau": (-1, 1),
    "guardrail_recover_tau": (-1, 1),
    "guardrail_max_bias": (1.01, 1e9),
}
_WHOLE = frozenset(entry.name for entry in fields(CoreSettings) if str(entry.type).startswith("int"))


def check_keys(changes: Mapping[str, object], allowed: frozenset[str]) -> None:
    """Raises InvalidSetting for a key that is not one of `allowed`."""
    for key, value in changes.items():
        if key not in allowed:
            raise InvalidSetting(key, value, "one of " + ", ".join(sorted(allowed)))


def _check_choices(settings: CoreSettings) -> None:
    if settings.batching not in get_args(Batching):
        raise InvalidSetting("batching", settings.batching, "one of " + ", ".join(get_args(Batching)))


def _check_range(key: str, value: float | None, low: float, high: float) -> None:
    if value is None and key in ("aging_rate", "max_inflight_tokens"):
        return
    number = isinstance(value, int if key in _WHOLE else (int, float)) and not isinstance(value, bool)
    if not number or value is None or not low <= value <= high:
        kind = "a whole number from" if key in _WHOLE else "a number from"
        raise InvalidSetting(key, value, f"{kind} {low:g} to {high:g}")
