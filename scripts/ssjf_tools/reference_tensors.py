"""docs/tensors.md: the one table of tensors, `python_backends/ssjf/tensors.py`, as a page for `scripts/reference`."""

from __future__ import annotations

from collections.abc import Iterable

from ssjf import tensors
from ssjf.tensors import TensorSpec

HEAD = """\
# Tensors

*Written by `scripts/reference` from `python_backends/ssjf/tensors.py`; edit that.*

Names, types and dims of every model. Dims leave the batch dimension out, as `config.pbtxt` does: a client sends
`text_input` as `[[prompt]]`. Every `config.pbtxt` is parsed with Triton's own schema and tested against these tables.
What a client's inputs are for is said by [TensorRT-LLM's own page](https://github.com/triton-inference-server/tensorrtllm_backend/blob/main/docs/model_config.md).
"""


def page() -> str:
    """The whole page."""
    sections: tuple[tuple[str, str, Iterable[TensorSpec]], ...] = (
        (
            "What clients send",
            "`ensemble`, `unary`; at `scheduler` all are optional, because it also takes the steps' tensors below.",
            (tensors.TEXT_INPUT, tensors.MAX_TOKENS, *tensors.CLIENT_OPTIONAL_INPUTS),
        ),
        (
            "What clients may send in production, too",
            "Passed through to TensorRT-LLM; the CPU profile does not declare them.",
            tensors.PRODUCTION_OPTIONAL_INPUTS,
        ),
        ("What clients get", "`predicted_tokens` and `queue_time_us` are ours.", tensors.CLIENT_OUTPUTS),
        ("What clients get in production, too", "Where a flag asked for it.", tensors.PRODUCTION_OUTPUTS),
        ("From `preprocessing`", "", tensors.PREPROCESSING_OUTPUTS),
        ("To and from `length_predictor`", "The last one comes out.", (*tensors.PROXY_INPUTS, tensors.PROXY_OUTPUT)),
        ("To `scheduler` from the steps before it", "", tensors.SCHEDULER_STEP_INPUTS),
        (
            "To the engine, flavour `inflight_batcher_llm`",
            "What the scheduler sends or passes on; the engine may declare more.",
            (*tensors.ENGINE_REQUIRED_INPUTS, *tensors.ENGINE_OPTIONAL_INPUTS),
        ),
        ("From the engine, flavour `inflight_batcher_llm`", "", tensors.ENGINE_OUTPUTS),
        ("To the engine, flavour `llmapi`", "No batch dimension.", tensors.LLMAPI_INPUTS),
        ("From the engine, flavour `llmapi`", "Metrics come as text, whatever is declared.", tensors.LLMAPI_OUTPUTS),
    )
    return HEAD + "".join(_section(title, text, specs) for title, text, specs in sections)


def _section(title: str, text: str, specs: Iterable[TensorSpec]) -> str:
    rows = "".join(
        f"| `{spec.name}` | {spec.dtype} | {list(spec.dims)} | {'optional' if spec.optional else ''} |\n"
        for spec in specs
    )
    said = f"{text}\n\n" if text else ""
    return f"\n## {title}\n\n{said}| tensor | type | dims | |\n|---|---|---|---|\n{rows}"
