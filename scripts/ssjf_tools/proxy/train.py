"""`scripts/train-proxy`: learn answer lengths from one's own prompts and measured lengths."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from proxy_onnx.encode import ProxyEncoder
from proxy_onnx.errors import ProxyError

from .artifact import ProxyArtifact
from .baselines import baseline_taus
from .bins import fit_bins
from .crossval import cross_validate, select
from .data import DataError, flatten, load_labelled
from .describe import ENCODER_LAYERS, data_facts, describe
from .encoder import EncoderError, load_encoder, package_dir
from .features import pooled_features
from .fit import FitSettings, fit_head
from .progress import ProgressLine
from .scores import score, score_scheduling
from .training_set import TrainingSet

HOLDOUT = 0.2  # share of the prompts that a fine-tuned proxy is scored on
FEWEST_PROMPTS = 50  # below this a held-out rank correlation says nothing


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; 0, or 1 with one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    try:
        _train(options)
    except (DataError, EncoderError, ProxyError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/train-proxy",
        description="Trains the length predictor: a calibrated distribution over answer lengths on the frozen MiniLM "
        "encoder. Prints held-out figures by cross-validation over prompts, then fits on all prompts and writes "
        "proxy.json and head.npz. Serve the result with SSJF_PROXY_WEIGHTS=DIR scripts/serve.",
    )
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, metavar="FILE", help="JSONL: id, prompt")
    parser.add_argument(
        "--lengths", type=Path, nargs="+", required=True, metavar="FILE", help="JSONL: id, output_tokens, finish"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where proxy.json and head.npz go")
    parser.add_argument("--cap", type=int, help="tokens at which answers were cut (default: the longest one seen)")
    parser.add_argument("--bins", type=int, default=32, help="most length bins below the cap (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one cross-validation each")
    parser.add_argument(
        "--ridge", type=float, default=FitSettings().ridge, help="regularisation (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, default=0, help="fine-tune the encoder too, this often over the data (needs torch)"
    )
    parser.add_argument(
        "--tune-seeds", type=int, nargs="*", default=[0], help="score fine-tuning on a held-out fifth, one run each"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for the encoder (default: %(default)s)")
    parser.add_argument(
        "--note", default="", help="free text for proxy.json: served model, sampling, licence of the data"
    )
    return parser


def _train(options: argparse.Namespace) -> None:
    data = _prepare(options)
    settings = FitSettings(ridge=options.ridge)
    training: dict[str, Any] = {
        "date": date.today().isoformat(),
        "data": data_facts([*options.prompts, *options.lengths], data.prompts),
        "note": options.note,
        "cap": int(data.bins.edges[-2]),
        "baselines": baseline_taus(data.prompts, options.folds, options.seeds),
    }
    _show("baselines", training["baselines"])
    training["cross_validation"] = _held_out(data, settings, options)
    if options.epochs:
        artifact = _fine_tuned(data, settings, training, options)
    else:
        head = fit_head(data.features, data.labels, data.bins, settings)
        artifact = ProxyArtifact(describe(data.bins, data.spec, training), head)
    artifact.save(options.out)
    print(f"wrote {options.out}")


def _prepare(options: argparse.Namespace) -> TrainingSet:
    prompts = load_labelled(options.prompts, options.lengths)
    if len(prompts) < FEWEST_PROMPTS:
        raise DataError(f"{len(prompts)} labelled prompts; expected at least {FEWEST_PROMPTS}")
    labels = flatten(prompts)
    bins = fit_bins(options.cap or int(labels.tokens.max()), options.bins, labels.tokens, labels.censored)
    spec, weights = load_encoder(package_dir(), ENCODER_LAYERS)
    tokenizer = Tokenizer.from_file(str(package_dir() / "tokenizer.json"))
    encoder = ProxyEncoder(tokenizer, describe(bins, spec, {}))
    texts = [prompt.text for prompt in prompts]
    features = pooled_features(texts, encoder, spec, weights, options.threads, ProgressLine("encoding", "prompts"))
    return TrainingSet(prompts, labels, bins, features, encoder, spec, weights, options.threads)


def _held_out(data: TrainingSet, settings: FitSettings, options: argparse.Namespace) -> dict[str, Any]:
    """Mean figures over the seeds' cross-validations, with the spread of the rank correlation; printed as well."""

    def fit(chosen: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float64]:
        head = fit_head(data.features[chosen], select(data.labels, chosen), data.bins, settings)
        return head.probabilities(data.features[held])

    runs = []
    for seed in options.seeds:
        held_out = cross_validate(len(data.prompts), data.bins.count, options.folds, seed, fit)
        scheduling = score_scheduling(held_out, data.prompts, data.bins)
        runs.append({**score(held_out, data.prompts, data.bins), **scheduling})
        _show(f"frozen encoder, held out, seed {seed}", runs[-1])
    scores: dict[str, Any] = {name: round(float(np.mean([run[name] for run in runs])), 4) for name in runs[0]}
    by_seed = [run["kendall_tau_b"] for run in runs]
    return {"folds": options.folds, "seeds": options.seeds, **scores, "kendall_tau_b_by_seed": by_seed}


def _fine_tuned(
    data: TrainingSet, settings: FitSettings, training: dict[str, Any], options: argparse.Namespace
) -> ProxyArtifact:
    """Tune encoder and head: per seed on four fifths for the record, then on all prompts for the result."""
    from .finetune import TuneSettings  # noqa: PLC0415 (torch, which training a head does without)
    from .tuning import holdout_figures, tune  # noqa: PLC0415

    runs = []
    for seed in options.tune_seeds:
        tuning = TuneSettings(epochs=options.epochs, seed=seed, threads=options.threads)
        state = options.out / f"holdout-{seed}.checkpoint"
        runs.append(
            holdout_figures(data, HOLDOUT, tuning, settings.smoothing, state, ProgressLine("encoding", "prompts"))
        )
        _show(f"tuned, held out, seed {seed}", runs[-1]["tuned"])
        _show(f"frozen, same prompts, seed {seed}", runs[-1]["frozen"])
    tuning = TuneSettings(epochs=options.epochs, threads=options.threads)
    everything = np.arange(len(data.prompts))
    adapter, head = tune(data, everything, tuning, settings.smoothing, options.out / "all.checkpoint")
    training = {**training, "fine_tuning": {**asdict(tuning), "holdout": runs}}
    return ProxyArtifact(describe(data.bins, data.spec, training, frozen=False), head, adapter)


def _show(what: str, figures: Mapping[str, float]) -> None:
    print(f"{what}: " + ", ".join(f"{name} {value:g}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
