"""A folder as scripts/build-proxy-plan leaves it, with a fake plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy_tensorrt.plan import FACTS_FILE, PLAN_FILE, Machine, PlanFacts, Profile, sha256
from tests.unit.proxy import small_proxy
from tests.unit.proxy_tensorrt import fake_gpu

HERE = Machine("tensorrt", "10.13.3.9", "NVIDIA Test", "9.0")
PROFILE = Profile(opt_rows=8, opt_length=8, max_rows=64, max_length=12)


def fill(folder: Path, plan: bytes = fake_gpu.plan(), proxy: dict[str, Any] | None = None, **facts: Any) -> PlanFacts:
    """Write proxy.json (`proxy`: what is other than the small one), model.plan and plan.json (`facts`: likewise)."""
    folder.mkdir(exist_ok=True)
    document = json.dumps({**small_proxy.DOCUMENT, **(proxy or {})})
    (folder / "proxy.json").write_text(document)
    (folder / PLAN_FILE).write_bytes(plan)
    described = replace(
        PlanFacts(
            machine=HERE,
            version_compatible=False,
            profile=PROFILE,
            precision="typed",
            onnx_sha256="0" * 64,
            plan_sha256=sha256(plan),
            proxy_sha256=sha256(document.encode()),
            built="2026-11-22",
        ),
        **facts,
    )
    (folder / FACTS_FILE).write_text(json.dumps(described.document()))
    return described
