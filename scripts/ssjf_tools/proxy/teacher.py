"""A teacher: what the served LLM's own hidden states, at the end of a prompt, say about its answer's length.

They are known only after the LLM has read the prompt, so they are of no use to the queue. But a ridge on them ranks far
better than one on the prompt's words (docs/proxy-model-card.md), it costs a fraction of generating answers to apply it
to prompts without labels, and its predictions carry less noise than one answer does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bins import LengthBins
from .data import DataError, FlatLabels
from .fit import FitSettings, Inputs, Lesson, average_views, fit_ridge, kernel_of, out_of_fold

_RIDGE = 2.5
_PROMPT_WEIGHT = 0.3  # of the student's own inputs beside the states
_NEARNESS_WEIGHT = 2.0  # of a Laplacian kernel beside the linear one; it goes no further than a prompt's like


@dataclass(frozen=True, slots=True)
class Teacher:
    """States of every prompt in the student's inputs [n, D]; the prompts that nobody measured."""

    states: Inputs
    others: NDArray[np.int64]

    def teach(
        self, inputs: Inputs, chosen: NDArray[np.int64], labels: FlatLabels, bins: LengthBins, settings: FitSettings
    ) -> Lesson:
        """Learn from the chosen prompts' answers; say what is to be expected for each of them and for the others."""
        places = np.concatenate([chosen, self.others])
        states = kernel_of(self.states, places)
        kernel = states + np.float32(_NEARNESS_WEIGHT) * _nearness(states)
        kernel += np.float32(_PROMPT_WEIGHT) * kernel_of(inputs, places)
        views = average_views(labels, bins, len(chosen))
        own = kernel[: len(chosen), : len(chosen)]
        duals, mean = fit_ridge(own, views, _RIDGE)
        others = kernel[len(chosen) :, : len(chosen)] @ duals + mean
        return Lesson(out_of_fold(own, views, _RIDGE, settings.seed), others, self.others)


def _nearness(products: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp(-distance) between directions, from the inner products of all pairs [n, n]."""
    sizes = np.sqrt(np.maximum(products.diagonal(), 1e-12))
    cosines = products / sizes[:, None] / sizes[None, :]
    return np.asarray(np.exp(-np.sqrt(np.maximum(2 - 2 * cosines, 0))), dtype=np.float32)


def load_states(file: Path) -> dict[str, NDArray[np.float16]]:
    """States by prompt id, as `python -m ssjf_tools.proxy.states` writes them. Raises DataError."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            ids, states = stored["ids"], stored["states"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file}: not a file of hidden states: {error}") from error
    if len(ids) != len(states) or not np.isfinite(states).all():
        raise DataError(f"{file}: {len(ids)} ids and {len(states)} states, all of which must be finite")
    return {str(key): row for key, row in zip(ids, states, strict=True)}


def states_of(ids: Sequence[str], known: Mapping[str, NDArray[np.float16]], file: Path) -> NDArray[np.float32]:
    """States of these prompts [n, D]. Raises DataError when one has none."""
    missing = [key for key in ids if key not in known]
    if missing:
        raise DataError(f"{file}: no hidden states for {len(missing)} labelled prompts, the first is {missing[0]!r}")
    return np.stack([known[key] for key in ids]).astype(np.float32)
