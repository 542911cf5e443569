"""Policies by name. A new policy is a new file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ssjf.core.errors import InvalidSetting
from ssjf.core.policies.aging import SsjfAging, default_rate
from ssjf.core.policies.base import Policy
from ssjf.core.policies.fcfs import Fcfs
from ssjf.core.policies.hrrn import Hrrn
from ssjf.core.policies.prompt_length import PromptLength
from ssjf.core.policies.random import Random
from ssjf.core.policies.sept_tail import SeptTail
from ssjf.core.policies.sjf_oracle import SjfOracle
from ssjf.core.policies.ssjf import Ssjf
from ssjf.core.settings import CoreSettings


def _aging(settings: CoreSettings, mean_tokens: float) -> Policy:
    rate = settings.aging_rate
    if rate is None:
        rate = default_rate(mean_tokens, settings.max_wait_s)
    return SsjfAging(rate, settings.prefill_weight)


# Each maker takes the settings and the running mean output length in tokens.
_MAKERS: Final[dict[str, Callable[[CoreSettings, float], Policy]]] = {
    "fcfs": lambda _settings, _mean: Fcfs(),
    "ssjf": lambda settings, _mean: Ssjf(settings.prefill_weight),
    "ssjf-aging": _aging,
    "sept-tail": lambda settings, _mean: SeptTail(settings.sept_tail_beta, settings.prefill_weight),
    "hrrn": lambda settings, _mean: Hrrn(settings.prefill_weight),
    "prompt-length": lambda _settings, _mean: PromptLength(),
    "sjf-oracle": lambda settings, _mean: SjfOracle(settings.prefill_weight),
    "random": lambda settings, _mean: Random(settings.random_seed),
}
POLICY_NAMES: Final = tuple(_MAKERS)


def make_policy(name: str, settings: CoreSettings, mean_tokens: float | None = None) -> Policy:
    """The policy of that name. `mean_tokens`: running mean output length, by default the settings' prior.

    Raises InvalidSetting for an unknown name.
    """
    if name not in _MAKERS:
        raise InvalidSetting("policy", name, "one of " + ", ".join(POLICY_NAMES))
    return _MAKERS[name](settings, settings.prior_tokens if mean_tokens is None else mean_tokens)
