from __future__ import annotations

import math
from typing import Any

import pytest

from ssjf.core.errors import InvalidSetting, SchedulerError
from ssjf.core.settings import LIVE_LIMITS, POLICY_SETTINGS, CoreSettings


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("max_inflight", 0, "a whole number from 1"),
        ("max_inflight", 2.5, "a whole number from 1"),
        ("max_inflight", True, "a whole number from 1"),
        ("over_dispatch", -1, "from 0"),
        ("max_inflight_tokens", 0, "from 1"),
        ("batching", "static", "none, dynamic, continuous"),
        ("batch_size", 0, "from 1"),
        ("max_wait_s", 0, "from 0.001"),
        ("max_wait_s", math.nan, "from 0.001"),
        ("aging_rate", -0.1, "from 0"),
        ("prefill_weight", "much", "a number from 0"),
        ("priority_classes", 0, "from 1"),
        ("max_queue", 0, "from 1"),
        ("guardrail_recover_tau", -0.5, "at least guardrail_fall_tau"),
        ("guardrail_min_answers", 300, "at most guardrail_window 256"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_value_and_range(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        CoreSettings(**{key: value})
    assert caught.value.key == key
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)
    assert isinstance(caught.value, SchedulerError)
    assert isinstance(caught.value, ValueError)


def test_a_tenants_weight_must_be_positive() -> None:
    with pytest.raises(InvalidSetting, match="tenant_weights"):
        CoreSettings(tenant_weights={"a": 1.0, "b": 0.0})


def test_no_bound_on_waiting_and_no_budget_are_allowed() -> None:
    settings = CoreSettings(max_wait_s=math.inf, max_inflight_tokens=None, aging_rate=None)
    assert settings.max_wait_s == math.inf


def test_live_keys_are_settings() -> None:
    assert set(CoreSettings.__dataclass_fields__) >= LIVE_LIMITS | POLICY_SETTINGS
