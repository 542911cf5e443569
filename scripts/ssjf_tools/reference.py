"""`scripts/reference`: writes docs/configuration.md, metrics.md and tensors.md from the code; a test compares them."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from openvino_llm.settings import EngineSettings, SamplingDefaults
from proxy_onnx.settings import ProxySettings
from proxy_tensorrt.settings import PlanSettings
from ssjf.core.settings import LIVE_LIMITS, POLICY_SETTINGS, CoreSettings
from ssjf.service.metrics import METRICS
from ssjf.service.settings import ServiceSettings
from ssjf_tools import reference_tensors
from ssjf_tools.bootstrap import CHECKOUT
from tokenizer.settings import FolderSettings
from tokenizer.text import TextSettings

SECTIONS: tuple[tuple[str, tuple[type[Any], ...]], ...] = (
    ("scheduler", (CoreSettings, ServiceSettings, TextSettings)),
    ("preprocessing", (FolderSettings, TextSettings)),
    ("length_predictor (production)", (PlanSettings,)),
    ("length_predictor (CPU profile)", (ProxySettings,)),
    ("tensorrt_llm (CPU profile)", (EngineSettings, SamplingDefaults)),
)

CONFIGURATION_HEAD = """\
# Configuration

*Written by `scripts/reference` from the settings classes; edit those.*

Every setting is a key of the model's `parameters` in its `config.pbtxt`. `SSJF_<KEY>` in the environment of
`tritonserver` beats it, and `${NAME:-default}` in a value is taken from the environment. Relative paths start at the
folder that holds `model_repository`. An unknown key, a wrong type or a value out of range keeps the model from loading,
with an error that names model, key, value and range. *live*: changed on a running server by a control request,
`set_limits` or `set_policy` (`ssjf limits`, `ssjf policy`).
"""

METRICS_HEAD = """\
# Metrics

*Written by `scripts/reference` from `python_backends/ssjf/service/metrics.py`; edit that.*

On Triton's own metrics port, beside Triton's `nv_…`. Times are seconds, lengths are tokens. `policy` is the configured
policy, `predicted` a length class of the prediction (`le_32`, `le_128`, `le_512`, `more`).

| name | kind | meaning |
|---|---|---|
"""

METRICS_TAIL = """
## For the Kubernetes Gateway API inference extension

| extension's metric | ours |
|---|---|
| `queuedRequestsSpec` | `ssjf_waiting_requests` (the extension reads one sample and adds nothing up) |
| `runningRequestsSpec` | `ssjf_inflight_requests` |
| `kvUsageSpec` | TensorRT-LLM's own `nv_trt_llm_kv_cache_block_metrics` of the engine server |
"""


def configuration() -> str:
    """docs/configuration.md."""
    parts = [CONFIGURATION_HEAD]
    for model, classes in SECTIONS:
        parts.append(f"\n## `{model.split()[0]}`{model[len(model.split()[0]) :]}\n")
        parts += [
            f"\n{_prose(cls)}\n\n| key | type | default | |\n|---|---|---|---|\n{_rows(cls)}\n" for cls in classes
        ]
    return "".join(parts)


def metrics() -> str:
    """docs/metrics.md."""
    rows = "".join(f"| `{spec.name}` | {spec.kind} | {spec.help} |\n" for spec in METRICS)
    return METRICS_HEAD + rows + METRICS_TAIL


def _prose(cls: type[Any]) -> str:
    paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in paragraphs)


def _rows(cls: type[Any]) -> str:
    return "\n".join(_cells(cls))


def _cells(cls: type[Any]) -> Iterator[str]:
    for entry, default in zip(fields(cls), _defaults(cls), strict=True):
        live = "live" if cls is CoreSettings and entry.name in LIVE_LIMITS | POLICY_SETTINGS | {"policy"} else ""
        kind = str(entry.type).replace("|", "or")
        yield f"| `{entry.name}` | {kind} | `{default}` | {live} |"


def _defaults(cls: type[Any]) -> Iterator[str]:
    """As one writes them in config.pbtxt."""
    instance = cls()
    for entry in fields(cls):
        value = getattr(instance, entry.name)
        if isinstance(value, tuple):
            yield ",".join(value)
        elif isinstance(value, bool) or value is None:
            yield str(value).lower()
        else:
            yield str(value)


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is not up to date")
    options = parser.parse_args(argv)
    stale = []
    pages = {"configuration.md": configuration(), "metrics.md": metrics(), "tensors.md": reference_tensors.page()}
    for name, text in pages.items():
        page = CHECKOUT / "docs" / name
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                page.write_text(text, encoding="utf-8")
    if stale:
        print(f"{'not up to date' if options.check else 'written'}: {', '.join(stale)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
