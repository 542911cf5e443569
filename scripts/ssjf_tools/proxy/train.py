"""`scripts/train-proxy`: learn answer lengths from one's own prompts and measured lengths."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .artifact import ProxyArtifact
from .baselines import baseline_taus
from .ceiling import ceiling_scores
from .commands import add_data_arguments, run_command, show
from .crossval import cross_validate
from .describe import data_facts, describe, file_digest
from .encoder import Weights
from .fit import FitSettings
from .preparing import EncoderChoice, prepare
from .scores import score, score_groups, score_scheduling
from .training_set import TrainingSet

HOLDOUT = 0.2  # share of the prompts that a fine-tuned proxy is scored on
HEADS = (
    "distribution", "regression-l1", "regression-mse", "binary", "multi-class", "ordinal-l1", "ordinal-mse", "listmle",
    "pairwise",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; 0, or 1 with one line that says what is wrong."""
    return run_command(_parser(), _train, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/train-proxy",
        description="Trains the length predictor. Without --epochs: a calibrated distribution over answer lengths on "
        "the frozen encoder and n-grams of tokens, minutes, no torch. With --epochs, another --head or --recipe paper "
        "the encoder is tuned with transformers' Trainer (kept in DIR while it runs; the same command goes on where a "
        "killed run was). Prints held-out figures, then trains on all prompts and writes the proxy to DIR. Serve it "
        "with SSJF_PROXY_WEIGHTS=DIR scripts/serve. Several GPUs: accelerate launch -m ssjf_tools.proxy.train … in "
        ".venv-train with PYTHONPATH=scripts:client:python_backends.",
    )
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the trained proxy goes")
    parser.add_argument(
        "--cap",
        type=int,
        help="tokens at which answers were cut (default: the longest one seen, up to the next power of two, so that a "
        "proxy trained anew has the bins of the one before and can take over on a running server)",
    )
    parser.add_argument("--bins", type=int, default=32, help="most length bins below the cap (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one cross-validation each")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for the encoder (default: %(default)s)")
    parser.add_argument("--note", default="", help="free text for proxy.json: served model, sampling, licence")
    parser.add_argument(
        "--states",
        type=Path,
        metavar="FILE",
        help="hidden states of the served LLM (python -m ssjf_tools.proxy.states --help): they teach the proxy, about "
        "prompts without labels too; with --epochs the encoder is tuned on what they say",
    )
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument(
        "--encoder", type=Path, metavar="DIR", help="a Hugging Face encoder (BERT kin) instead of the packaged MiniLM"
    )
    encoder.add_argument("--layers", type=int, help="use its first N layers (default: 3; all with --encoder)")
    encoder.add_argument("--max-length", type=int, default=128, help="most tokens of a prompt (default: %(default)s)")
    encoder.add_argument(
        "--head-tokens",
        type=int,
        help="of a longer prompt keep so many from its start (default: half; 0: the end only)",
    )
    tuning = parser.add_argument_group("tuning (needs torch)")
    tuning.add_argument("--head", choices=HEADS, default=HEADS[0], help="what is learnt (default: %(default)s)")
    tuning.add_argument("--recipe", choices=("ours", "paper"), default="ours", help="paper: Qiu et al. 2024, see docs")
    tuning.add_argument(
        "--epochs", type=int, help="tune the encoder, this often over the data (default with tuning: 2)"
    )
    tuning.add_argument("--seed", type=int, help="of the tuning run that is kept (default: 0)")
    tuning.add_argument("--frozen-layers", type=int, help="lowest layers that stay as they are (default: 0)")
    tuning.add_argument(
        "--tune-seeds", type=int, nargs="*", help="score tuning on a held-out fifth, one run each (default: 0)"
    )
    return parser


def _tunes(options: argparse.Namespace) -> bool:
    """Whether the encoder is tuned. Raises ValueError for arguments that would have no effect."""
    if options.epochs is not None and options.epochs < 1:
        raise ValueError(f"--epochs is {options.epochs}; expected at least 1")
    others = options.head != HEADS[0] or options.recipe == "paper"
    if options.states is not None and others:
        raise ValueError("--states teaches a distribution; it has no effect on another --head or --recipe")
    if options.epochs or others:
        return True
    for name in ("seed", "frozen_layers", "tune_seeds"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for tuning: it needs --epochs, another --head or --recipe")
    return False


def _train(options: argparse.Namespace) -> None:
    tunes = _tunes(options)
    choice = EncoderChoice(options.encoder, options.layers, options.max_length, options.head_tokens)
    data = prepare(options.prompts, options.lengths, choice, options.cap, options.bins, options.threads, options.states)
    settings = FitSettings()
    training: dict[str, Any] = {
        "date": date.today().isoformat(),
        "data": data_facts([*options.prompts, *options.lengths], data.prompts),
        "note": options.note,
        "cap": int(data.bins.edges[-2]),
        "taught_prompts": 0 if data.teacher is None else len(data.teacher.others),
        "baselines": baseline_taus(data.prompts, options.folds, options.seeds),
    }
    show("baselines", training["baselines"])
    training["cross_validation"] = _held_out(data, settings, options)
    if tunes:
        artifact = _tuned(data, settings, training, options)
    else:
        head = data.fit(np.arange(len(data.prompts)), settings)
        artifact = ProxyArtifact(describe(data, training), head, **_own_encoder(data, data.weights))
    if int(os.environ.get("RANK", "0")) == 0:  # one of accelerate's processes writes
        artifact.save(options.out)
        shutil.rmtree(_state(options), ignore_errors=True)
        print(f"wrote {options.out}")


def _state(options: argparse.Namespace) -> Path:
    """Where a killed run left its checkpoints: a folder of its own for every set of arguments and contents of files."""
    asked = {name: str(value) for name, value in vars(options).items() if name not in {"out", "threads", "note"}}
    given = [*options.prompts, *options.lengths, *([options.states] if options.states else [])]
    asked["contents"] = " ".join(file_digest(file) for file in given)
    code = zlib.crc32(json.dumps(asked, sort_keys=True).encode())
    return Path(options.out / f"tuning-{code:08x}")


def _held_out(data: TrainingSet, settings: FitSettings, options: argparse.Namespace) -> dict[str, Any]:
    """Mean figures over the seeds' cross-validations, with the spread of the rank correlation; printed as well."""

    def fit(chosen: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float64]:
        return data.predict(data.fit(chosen, settings), held)

    runs = []
    for seed in options.seeds:
        held_out = cross_validate(len(data.prompts), data.bins.count, options.folds, seed, fit)
        runs.append(
            {
                **score(held_out, data.prompts, data.bins),
                **score_groups(held_out, data.prompts, data.bins),
                **score_scheduling(held_out, data.prompts, data.bins),
                **ceiling_scores(held_out, data.prompts, data.bins),
            }
        )
        show(f"frozen encoder, held out, seed {seed}", runs[-1])
    scores: dict[str, Any] = {name: round(float(np.mean([run[name] for run in runs])), 4) for name in runs[0]}
    by_seed = [run["kendall_tau_b"] for run in runs]
    return {"folds": options.folds, "seeds": options.seeds, **scores, "kendall_tau_b_by_seed": by_seed}


def _tuned(
    data: TrainingSet, settings: FitSettings, training: dict[str, Any], options: argparse.Namespace
) -> ProxyArtifact:
    """Tune encoder and head: per seed on four fifths for the record, then on all prompts for the result."""
    from .taught import TAUGHT, holdout_taught, tune_taught  # noqa: PLC0415 (torch, which training a head does without)
    from .trainer import PAPER, TuneSettings  # noqa: PLC0415
    from .tuning import adapter_of, holdout_figures, tune  # noqa: PLC0415

    if not 0 <= (options.frozen_layers or 0) <= data.spec.layers:
        raise ValueError(f"--frozen-layers is {options.frozen_layers}; the encoder has {data.spec.layers} layers")
    state = _state(options)
    asked = {"head": options.head, "threads": options.threads, "frozen_layers": options.frozen_layers or 0}
    asked |= PAPER if options.recipe == "paper" else TAUGHT if data.teacher else {}
    asked |= {"epochs": options.epochs} if options.epochs else {}
    runs = []
    for seed in [0] if options.tune_seeds is None else options.tune_seeds:
        tuning, folder = TuneSettings(**asked, seed=seed), state / f"holdout-{seed}"
        if data.teacher:
            runs.append(holdout_taught(data, HOLDOUT, tuning, settings, folder))
        else:
            runs.append(holdout_figures(data, HOLDOUT, tuning, settings.smoothing, folder))
        show(f"tuned, held out, seed {seed}", runs[-1]["tuned"])
        show(f"frozen, same prompts, seed {seed}", runs[-1]["frozen"])
    tuning = TuneSettings(**asked, seed=options.seed or 0)
    record = {**training, "fine_tuning": {**asdict(tuning), "holdout": runs}}
    everything = np.arange(len(data.prompts))
    if data.teacher:
        taught = tune_taught(data, everything, tuning, settings, state / "all")
        document = describe(data, record, frozen=False)
        return ProxyArtifact(document, taught.head, taught.adapter, **_own_encoder(data, taught.weights))
    tuned = tune(data, everything, tuning, settings.smoothing, state / "all")
    document = describe(data, record, frozen=False, first_token=tuning.paper_head)
    return ProxyArtifact(document, tuned.head, adapter_of(data, tuned.weights), **_own_encoder(data, tuned.weights))


def _own_encoder(data: TrainingSet, weights: Weights) -> dict[str, Any]:
    """What an artifact needs that is not on the packaged encoder."""
    if data.folder is None:
        return {}
    return {"encoder": weights, "tokenizer": (data.folder / "tokenizer.json").read_text(encoding="utf-8")}


if __name__ == "__main__":
    sys.exit(main())
