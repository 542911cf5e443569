"""What stands in `--policies`: a policy of the server, with its bound on waiting."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssjf.core.policies.base import Policy
from ssjf.core.policies.registry import POLICY_NAMES, make_policy
from ssjf.core.settings import CoreSettings

# The bound that the default policy is built around, where none is given.
_DEFAULT_MAX_WAIT_S = CoreSettings().max_wait_s
ORACLE = "sjf-oracle"


@dataclass(frozen=True, slots=True)
class Arm:
    """One policy to simulate. `label` is what the user wrote: ssjf, or ssjf@60 for ssjf with max_wait 60 s."""

    label: str
    policy: str
    max_wait_s: float

    @property
    def uses_predictions(self) -> bool:
        """Whether it has to be run once for every predictor."""
        return self._policy().uses_predictions

    def _policy(self) -> Policy:
        return make_policy(self.policy, CoreSettings())


def parse_arm(text: str, max_wait_s: float | None) -> Arm:
    """`name` or `name@seconds`. Without seconds: `max_wait_s`; if that is None, no bound but for ssjf-aging.

    Raises ValueError.
    """
    name, _, seconds = text.partition("@")
    if name not in POLICY_NAMES:
        raise ValueError(f"policy {name!r} is none of {', '.join(POLICY_NAMES)}")
    if seconds:
        try:
            bound = float(seconds)
        except ValueError:
            bound = math.nan
        if not bound > 0:
            raise ValueError(f"policy {text!r}: the bound after @ must be seconds above 0")
        return Arm(text, name, bound)
    if max_wait_s is None:
        max_wait_s = _DEFAULT_MAX_WAIT_S if name == "ssjf-aging" else math.inf
    return Arm(text, name, max_wait_s)
