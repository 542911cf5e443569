"""From files to a training set: prompts, bins, and what the frozen encoder says about every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from proxy_onnx.encode import ProxyEncoder

from .bins import fit_bins
from .data import DataError, LabelledPrompt, flatten, load_labelled, read_prompts
from .describe import ENCODER_LAYERS, describe_input
from .encoder import load_encoder, package_dir
from .features import pooled_features
from .fit import Inputs
from .progress import ProgressLine
from .teacher import Teacher, load_states, states_of
from .training_set import TrainingSet, token_rows, with_grams

FEWEST_PROMPTS = 50  # below this a held-out rank correlation says nothing


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """Which encoder, how many of its layers and how much of a prompt it sees."""

    folder: Path | None = None  # a Hugging Face folder; without: the packaged MiniLM
    layers: int | None = None
    max_length: int = 128
    head_tokens: int | None = None


def prepare(
    prompt_files: Sequence[Path],
    length_files: Sequence[Path],
    choice: EncoderChoice,
    cap: int | None,
    bins: int,
    threads: int,
    states: Path | None = None,
) -> TrainingSet:
    """Read and encode everything. `states`: hidden states of the served LLM, of more prompts than the labelled ones.

    Raises DataError or EncoderError.
    """
    prompts = load_labelled(prompt_files, length_files)
    if len(prompts) < FEWEST_PROMPTS:
        raise DataError(f"{len(prompts)} labelled prompts; expected at least {FEWEST_PROMPTS}")
    labels = flatten(prompts)
    made = fit_bins(cap or usual_cap(int(labels.tokens.max())), bins, labels.tokens, labels.censored)
    folder = choice.folder or package_dir()
    spec, weights = load_encoder(folder, choice.layers or (None if choice.folder else ENCODER_LAYERS))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder = ProxyEncoder(tokenizer, describe_input(made, spec, choice.max_length, choice.head_tokens))
    known = load_states(states) if states else {}
    others = unmeasured(prompt_files, prompts, known)
    texts = [prompt.text for prompt in [*prompts, *others]]
    features = pooled_features(texts, encoder, spec, weights, threads, ProgressLine("encoding", "prompts"))
    inputs = with_grams(features, token_rows(encoder, texts), spec.vocabulary)
    teacher = None
    if states:
        ids = [prompt.id for prompt in [*prompts, *others]]
        teacher = Teacher(Inputs(states_of(ids, known, states)), np.arange(len(prompts), len(ids)))
    return TrainingSet(prompts, labels, made, inputs, encoder, spec, weights, threads, choice.folder, teacher, others)


def usual_cap(longest: int) -> int:
    """The power of two at or above the longest answer. Edges must stay the same if a running server is to take over."""
    return 1 << max(0, longest - 1).bit_length()


def unmeasured(
    files: Sequence[Path], measured: Sequence[LabelledPrompt], known: Mapping[str, object]
) -> list[LabelledPrompt]:
    """Prompts whose states are known and whose text nobody measured, each text once."""
    seen = {prompt.text for prompt in measured}
    found = []
    for prompt in read_prompts(files).values():
        if prompt.id in known and prompt.text not in seen:
            seen.add(prompt.text)
            found.append(prompt)
    return found
