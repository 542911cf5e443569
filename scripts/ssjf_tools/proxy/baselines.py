"""Predictors that a trained proxy has to beat: prompt length, and ridge regression on hashed n-grams of words."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .crossval import Fit, cross_validate
from .data import LabelledPrompt, flatten
from .metrics import kendall_tau_b

_WIDTH = 2**14
_RIDGE = 1.0
_WORD = re.compile(r"\w+|[^\w\s]")


def baseline_taus(prompts: Sequence[LabelledPrompt], folds: int, seeds: Sequence[int]) -> dict[str, float]:
    """Held-out Kendall tau_b by baseline, mean over the seeds' cross-validations; the ridge's for each file, too."""
    labels = flatten(prompts)
    true = labels.tokens.astype(np.float64)
    lengths = np.array([len(prompt.text) for prompt in prompts], dtype=np.float64)
    grams = [ngram_taus(prompts, folds, seed) for seed in seeds]
    return {
        "prompt_length": round(kendall_tau_b(lengths[labels.prompt], true), 4),
        **{name: round(float(np.mean([taus[name] for taus in grams])), 4) for name in grams[0]},
    }


def ngram_taus(prompts: Sequence[LabelledPrompt], folds: int, seed: int) -> dict[str, float]:
    """Held-out tau_b of ridge regression from hashed word 1- and 2-grams to the mean log length.

    Of all prompts, and where they come from several files of each: `hashed_ngram_ridge`, `hashed_ngram_ridge_<file>`.
    """
    predicted = cross_validate(len(prompts), 1, folds, seed, ngram_ridge(prompts))[:, 0]
    labels = flatten(prompts)
    order, true = predicted[labels.prompt], labels.tokens.astype(np.float64)
    taus = {"hashed_ngram_ridge": kendall_tau_b(order, true)}
    groups = np.array([prompt.group for prompt in prompts])[labels.prompt]
    names = list(dict.fromkeys(groups.tolist()))
    for name in names if len(names) > 1 else ():
        taus[f"hashed_ngram_ridge_{name}"] = kendall_tau_b(order[groups == name], true[groups == name])
    return taus


def ngram_ridge(prompts: Sequence[LabelledPrompt]) -> Fit:
    """Fits the ridge on some of the prompts and gives the mean log length of others [held, 1]."""
    targets = np.array([np.mean([np.log(sample.tokens) for sample in prompt.samples]) for prompt in prompts])
    features = np.stack([hashed_ngrams(prompt.text) for prompt in prompts])
    kernel = features @ features.T

    def fit(train: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float64]:
        mean = targets[train].mean()
        own = kernel[np.ix_(train, train)] + _RIDGE * np.eye(len(train))
        weights = np.linalg.solve(own, targets[train] - mean)
        return np.asarray(kernel[np.ix_(held, train)] @ weights + mean)[:, None]

    return fit


def hashed_ngrams(text: str) -> NDArray[np.float32]:
    """Unit vector of log counts of word 1- and 2-grams, hashed into 16,384 places with signs [16384]."""
    words = _WORD.findall(text.lower())
    vector = np.zeros(_WIDTH, np.float32)
    for gram in [*words, *(" ".join(pair) for pair in pairwise(words))]:
        code = zlib.crc32(gram.encode("utf-8", "replace"))
        vector[code % _WIDTH] += 1.0 if code & 0x8000_0000 else -1.0
    vector = np.sign(vector) * np.log1p(np.abs(vector))
    norm = float(np.linalg.norm(vector))
    return np.asarray(vector / np.float32(norm)) if norm > 0 else vector
