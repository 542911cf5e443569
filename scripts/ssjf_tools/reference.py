"""`scripts/reference`: writes docs/configuration.md, metrics.md and tensors.md from the code; a test compares them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ssjf.service.metrics import METRICS
from ssjf.service.outcome import Outcome
from ssjf_tools import reference_settings, reference_tensors
from ssjf_tools.bootstrap import CHECKOUT

METRICS_HEAD = f"""\
# Metrics

*Written by `scripts/reference` from `python_backends/ssjf/service/metrics.py`; edit that.*

On Triton's own metrics port, beside Triton's `nv_…`. Times are seconds, lengths are tokens.

| label | values |
|---|---|
| `priority_class` | as requests have it, `0` is the most urgent |
| `policy` | the configured policy |
| `predicted` | length class of the prediction: `le_32`, `le_128`, `le_512`, `more` |
| `outcome` | {", ".join(f"`{outcome.value}`" for outcome in Outcome)} |
| `source` | `proxy`, `prior`, `client` |
| `endpoint` | host:port of an engine server, as in `engine_url` |
| `reason` | `queue`, `write` |

| name | kind | labels | meaning |
|---|---|---|---|
"""

METRICS_TAIL = """
## For the Kubernetes Gateway API inference extension

| extension's metric | ours |
|---|---|
| `queuedRequestsSpec` | `ssjf_waiting_requests` (the extension reads one sample and adds nothing up) |
| `runningRequestsSpec` | `ssjf_inflight_requests` |
| `kvUsageSpec` | TensorRT-LLM's own `nv_trt_llm_kv_cache_block_metrics` of the engine server |
"""


def metrics() -> str:
    """docs/metrics.md."""
    rows = (
        f"| `{spec.name}` | {spec.kind} | {', '.join(f'`{label}`' for label in spec.labels)} | {spec.help} |\n"
        for spec in METRICS
    )
    return METRICS_HEAD + "".join(rows) + METRICS_TAIL


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is not up to date")
    options = parser.parse_args(argv)
    stale = []
    pages = {
        "configuration.md": reference_settings.page(),
        "metrics.md": metrics(),
        "tensors.md": reference_tensors.page(),
    }
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
