"""`python -m ssjf_tools.proxy.states`: the served LLM's hidden states at the end of each prompt. Needs torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from tokenizer.text import TextSettings, TextTokenizer

from .commands import run_command
from .data import load_prompts
from .progress import ProgressLine
from .teacher import load_states

_LONGEST_TEXT_BYTES = 1 << 24
_SAVE_EVERY = 20  # batches
# Of a longer prompt: SmolLM2's system message takes 24 tokens, its template's end 6; that leaves 64 at either end.
FIRST, LAST = 88, 70


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; 0, or 1 with one line that says what is wrong."""
    return run_command(_parser(), _collect, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ssjf_tools.proxy.states",
        description="Runs the served LLM over prompts, generating nothing, and keeps some layers' hidden states at the "
        "last token and on average, for scripts/train-proxy --states. Costs a fraction of generating the answers. Go "
        "on with the same command. Runs in .venv-train with PYTHONPATH=scripts:client:python_backends.",
    )
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, metavar="FILE", help="JSONL: id, prompt")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npz: ids, states")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(".assets/smollm2"),
        help="Hugging Face folder, or one with a GGUF and tokenizer",
    )
    parser.add_argument("--gguf", default="model-f16.gguf", help="weights' file in it, '' for safetensors")
    parser.add_argument("--format", choices=("chat", "raw"), default="chat", help="as in preprocessing's config.pbtxt")
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 16, 20], help="kept (default: %(default)s)")
    parser.add_argument("--first", type=int, default=FIRST, help="tokens kept at the start (default: %(default)s)")
    parser.add_argument("--last", type=int, default=LAST, help="tokens kept at the end (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="prompts at a time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    return parser


def _collect(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    settings = TextSettings(
        prompt_format=options.format, max_context_tokens=1 << 30, max_prompt_bytes=_LONGEST_TEXT_BYTES
    )
    tokenizer = TextTokenizer.from_dir(options.model, settings)
    known = _stored(options.out)
    rows = {
        key: _ends(tokenizer.encode(text.encode()), options.first, options.last)
        for key, text in load_prompts(options.prompts).items()
        if key not in known
    }
    model = _model(options)
    order = sorted(rows, key=lambda key: len(rows[key]))
    # A random order of batches: what a killed run leaves is a fair sample of the prompts.
    batches = [order[start : start + options.batch] for start in range(0, len(order), options.batch)]
    progress, done = ProgressLine("reading", "prompts"), 0
    for number, place in enumerate(np.random.default_rng(0).permutation(len(batches)), start=1):
        keys = batches[place]
        known.update(zip(keys, run_model(model, [rows[key] for key in keys], options.layers), strict=True))
        done += len(keys)
        progress(done, len(order))
        if number % _SAVE_EVERY == 0 or number == len(batches):
            _save(options.out, known)


def _model(options: argparse.Namespace) -> Any:
    given = {"gguf_file": options.gguf} if options.gguf else {}
    model = AutoModel.from_pretrained(options.model, dtype=torch.bfloat16, **given)
    if max(options.layers) > len(model.layers):
        raise ValueError(f"layers has {max(options.layers)}; expected at most the model's {len(model.layers)}")
    model.layers = model.layers[: max(options.layers)]
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()  # type: ignore[untyped-decorator]
def run_model(model: Any, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> NDArray[np.float16]:
    """Last and mean state of each of the layers, side by side [rows, 2 * layers * width]. Rows are padded behind."""
    kept: dict[int, Any] = {}
    hooks = [
        model.layers[layer - 1].register_forward_hook(
            lambda _module, _inputs, output, layer=layer: kept.update(
                {layer: output[0] if isinstance(output, tuple) else output}
            )
        )
        for layer in layers
    ]
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    try:
        model(ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    last, real = mask.sum(1) - 1, mask[..., None].float()
    parts = []
    for layer in layers:
        state = kept[layer].float().cpu()
        parts += [state[torch.arange(len(rows)), last], (state * real).sum(1) / real.sum(1)]
    return np.asarray(torch.cat(parts, dim=1).numpy().astype(np.float16))


def _ends(row: list[int], first: int, last: int) -> list[int]:
    return row if len(row) <= first + last else row[:first] + row[-last:]


def _stored(file: Path) -> dict[str, NDArray[np.float16]]:

    return load_states(file) if file.is_file() else {}


def _save(file: Path, known: dict[str, NDArray[np.float16]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.npz")
    np.savez(draft, ids=np.array(list(known)), states=np.stack(list(known.values())))
    draft.replace(file)


if __name__ == "__main__":
    sys.exit(main())
