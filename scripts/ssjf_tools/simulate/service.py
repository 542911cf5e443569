"""How long the engine takes: prefill, then decode steps whose time may depend on how many requests run."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssjf_tools.simulate.tables import InputError, json_number, open_text


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """Seconds of a request = base_s + prefill_s × prompt tokens + a decode step for each output token.

    `steps`: pairs of batch size and seconds a decode step takes then, ascending; linear in between, constant outside.
    One pair: independent of the batch, as in the paper.

    `chunk_tokens`: prompts are prefilled one after the other, at most so many tokens of one in each decode step, which
    takes longer by them, for all that run. None: prefill slows nobody down.
    """

    base_s: float = 0.1
    prefill_s: float = 0.0
    steps: tuple[tuple[int, float], ...] = field(default=((1, 0.02),))
    chunk_tokens: int | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether a request takes as long whatever else runs."""
        return len(self.steps) == 1 and self.chunk_tokens is None

    def step_s(self, batch: int) -> float:
        """Seconds of a decode step with `batch` requests running."""
        sizes = [size for size, _ in self.steps]
        place = bisect_left(sizes, batch)
        if place == 0:
            return self.steps[0][1]
        if place == len(sizes):
            return self.steps[-1][1]
        (low, low_s), (high, high_s) = self.steps[place - 1], self.steps[place]
        return low_s + (high_s - low_s) * (batch - low) / (high - low)

    def mean_service_s(self, mean_prompt: float, mean_output: float, batch: int) -> float:
        """Mean seconds of a request in an engine that always runs `batch` of them."""
        # In chunks, every request is held up by the prefills of those that start while it runs: one for each slot.
        prefills = 1 if self.chunk_tokens is None else batch
        return self.base_s + self.prefill_s * mean_prompt * prefills + self.step_s(batch) * mean_output

    def describe(self) -> str:
        """The times of a request in words."""
        (low, low_s), (high, high_s) = self.steps[0], self.steps[-1]
        if len(self.steps) == 1:
            decode = f"{low_s:g} s a token whatever the batch"
        else:
            decode = f"{low_s:.3g} s a token with {low} running to {high_s:.3g} s with {high}"
        prefill = f" + {self.prefill_s * 1e3:.3g} ms a prompt token" if self.prefill_s else ""
        chunks = f", prompts in chunks of {self.chunk_tokens} tokens" if self.chunk_tokens is not None else ""
        return f"{self.base_s:.3g} s{prefill} + {decode}{chunks}"


# The service model of the paper: 0.1 s and 20 ms a token, independent of the batch.
PAPER = ServiceModel()


def read_service(path: Path) -> ServiceModel:
    """A calibration as JSON: {"base_s": 0.02, "prefill_s": 0.001, "steps": {"1": 0.017, "4": 0.02, "16": 0.026}}.

    "chunk_tokens" may be there too; `scripts/bench --calibrate` writes such a file. Raises InputError.
    """
    try:
        with open_text(path) as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(path, f"is not JSON: {error.msg}", line=error.lineno) from None
    if not isinstance(content, dict) or not isinstance(content.get("steps"), dict) or not content["steps"]:
        raise InputError(path, 'needs "steps", an object of batch size and seconds', column="steps")
    steps = {_whole(path, size): _seconds(path, f"steps.{size}", value) for size, value in content["steps"].items()}
    base, prefill = (_seconds(path, name, content.get(name, 0.0)) for name in ("base_s", "prefill_s"))
    chunk = content.get("chunk_tokens")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise InputError(path, f"is {chunk!r}, expected a whole number from 1 up, or null", column="chunk_tokens")
    return ServiceModel(base, prefill, tuple(sorted(steps.items())), chunk)


def _whole(path: Path, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(path, f"has batch size {text!r}, expected a whole number from 1 up", column="steps")
    return int(text)


def _seconds(path: Path, name: str, value: Any) -> float:
    seconds = json_number(value)
    if seconds is None:
        raise InputError(path, f"is {value!r}, expected seconds from 0 up", column=name)
    return seconds
