"""`python -m ssjf_tools.proxy.compare`: every head on the same splits, beside the frozen encoder. Needs torch."""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .commands import add_data_arguments, run_command, show
from .describe import file_digest
from .fit import FitSettings
from .head import softmax
from .metrics import kendall_tau_b
from .preparing import EncoderChoice, prepare
from .scores import score, score_groups, score_scheduling
from .train import HEADS, HOLDOUT
from .trainer import PAPER, Lower, TuneSettings
from .training_set import TrainingSet
from .tuning import frozen_states, holdout, mean_tokens_of, outputs_of, tune


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; 0, or 1 with one line that says what is wrong."""
    return run_command(_parser(), _compare, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ssjf_tools.proxy.compare",
        description="Tunes every head on four fifths of the prompts and scores it on the rest, once a seed; a seed "
        "decides the split as well. Results are appended to --out as JSON lines; what is there is not done again. "
        "Runs in .venv-train with PYTHONPATH=scripts:client:python_backends.",
    )
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL, appended to")
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=HEADS, help="default: all")
    parser.add_argument("--recipe", choices=("ours", "paper"), default="ours", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--layers", type=int, help="layers of the encoder (default: 3)")
    parser.add_argument("--frozen-layers", type=int, default=0, help="lowest layers that stay as they are")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    return parser


def _compare(options: argparse.Namespace) -> None:
    data = prepare(options.prompts, options.lengths, EncoderChoice(layers=options.layers), None, 32, options.threads)
    if not 0 <= options.frozen_layers <= data.spec.layers:
        raise ValueError(f"--frozen-layers is {options.frozen_layers}; the encoder has {data.spec.layers} layers")
    lower = frozen_states(data, options.frozen_layers)
    contents = " ".join(file_digest(file) for file in [*options.prompts, *options.lengths])
    known = {"recipe": options.recipe, "layers": data.spec.layers, "data": f"{zlib.crc32(contents.encode()):08x}"}
    done = _done(options.out)
    for seed in options.seeds:
        frozen = _frozen(data, seed)
        for head in options.heads:
            asked = {"head": head, "threads": options.threads, "frozen_layers": options.frozen_layers, "seed": seed}
            asked |= PAPER if options.recipe == "paper" else {}
            asked |= {"epochs": options.epochs} if options.epochs else {}
            settings = TuneSettings(**asked)
            run = {**known, "settings": asdict(settings)}
            if run in done:
                continue
            state = options.out.with_name(f"{options.out.name}-{zlib.crc32(json.dumps(run).encode()):08x}")
            record = {**run, **_one(data, settings, lower, state), "frozen": frozen}
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            show(f"{options.recipe} {head} seed {seed}", record["tuned"])


def _one(data: TrainingSet, settings: TuneSettings, lower: Sequence[Lower] | None, state: Path) -> dict[str, Any]:
    held, rest = holdout(len(data.prompts), HOLDOUT, settings.seed)
    smoothing = FitSettings().smoothing
    start = time.monotonic()
    tuned = tune(data, rest, settings, smoothing, state, lower)
    seconds = time.monotonic() - start
    prompts = [data.prompts[index] for index in held]
    outputs = outputs_of(data, tuned, held, lower)
    served = softmax(outputs @ tuned.link[0] + tuned.link[1])
    raw = tuned.objective.order(outputs)
    return {
        "seconds": round(seconds),
        "tuned": {**score(served, prompts, data.bins), **score_groups(served, prompts, data.bins)},
        "scheduling": score_scheduling(served, prompts, data.bins),
        "raw_tau_b": kendall_tau_b(raw, mean_tokens_of(prompts)) if settings.head != HEADS[0] else None,
    }


def _frozen(data: TrainingSet, seed: int) -> dict[str, float]:
    """The shipped kind of head on the same split."""
    held, rest = holdout(len(data.prompts), HOLDOUT, seed)
    return score(data.predict(data.fit(rest, FitSettings()), held), [data.prompts[index] for index in held], data.bins)


def _done(out: Path) -> list[dict[str, Any]]:
    """What was asked in the runs that `out` has."""
    if not out.is_file():
        return []
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [{name: record.get(name) for name in ("recipe", "layers", "data", "settings")} for record in records]


if __name__ == "__main__":
    sys.exit(main())
