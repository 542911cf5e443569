from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssjf.parameters import Parameters
from ssjf.service.engine.flavours import ADAPTERS
from ssjf.service.engine.tls import EngineTls
from ssjf.service.settings import FLAVOURS, ServiceSettings


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("engine_flavour", {"engine_flavour": "vllm"}),
        ("engine_url", {"engine_url": ()}),
        ("engine_url", {"engine_url": ("engine",)}),
        ("engine_url", {"engine_url": ("a:8001", "b:8001", "a:8001")}),
        ("engine_slots", {"engine_slots": 0}),
        ("engine_wait_s", {"engine_wait_s": 0.0}),
        ("engine_tls_key", {"engine_tls_cert": Path("cert.pem")}),
        ("engine_tls_cert", {"engine_tls_key": Path("key.pem")}),
        ("journal_files", {"journal_files": 0}),
        ("journal_max_bytes", {"journal_max_bytes": 10}),
    ],
)
def test_a_bad_setting_is_named(key: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=key):
        ServiceSettings(**values)


def test_every_flavour_has_an_adapter() -> None:
    assert set(ADAPTERS) == set(FLAVOURS)


def test_settings_come_as_text(tmp_path: Path) -> None:
    values = {
        "engine_url": "a:8001, b:8001", "engine_slots": "32", "engine_tls_ca": "ca.pem", "journal_path": "j.jsonl",
        "journal_prompts": "true", "engine_tls_cert": "none",
    }  # fmt: skip
    settings = Parameters("scheduler", values, {}, tmp_path).build(ServiceSettings)
    assert (settings.engine_url, settings.engine_slots) == (("a:8001", "b:8001"), 32)
    assert (settings.engine_tls_ca, settings.journal_path) == (tmp_path / "ca.pem", tmp_path / "j.jsonl")
    assert (settings.journal_prompts, settings.engine_tls_cert) == (True, None)


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert EngineTls().credentials() is None
    with pytest.raises(ValueError, match=r"engine_tls_ca is .*missing\.pem.*: No such file"):
        EngineTls(ca=tmp_path / "missing.pem").credentials()
