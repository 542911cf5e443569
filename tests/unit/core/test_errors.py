from __future__ import annotations

import pytest

from ssjf.core.errors import InvalidRequest, InvalidSetting


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 5000, f"'{'x' * 120}'… (5000 characters)"),
        (b"x" * 5000, f"b'{'x' * 120}'… (5000 bytes)"),
        (10**400, f"1{'0' * 119}… (401 characters)"),
        ("short", "'short'"),
        (7, "7"),
    ],
)
def test_messages_show_a_value_but_never_megabytes_of_it(value: object, shown: str) -> None:
    assert str(InvalidRequest("tenant", value, "less")) == f"tenant is {shown}, allowed: less"
    assert str(InvalidSetting("policy", value, "less")) == f"policy is {shown}, allowed: less"
