"""From the engine tensors of one Triton request to checked generations: the door where every value is validated once.

Names, types and the meaning of values left out follow TensorRT-LLM's `inflight_batcher_llm` backend. What this engine
cannot do (beams, several sequences, bad words) is refused by name unless the value is neutral.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from openvino_llm.errors import InvalidInput
from openvino_llm.messages import Generation, Sampling
from openvino_llm.settings import EngineSettings, ModelFacts, SamplingDefaults

# Below this temperature the distribution is a single token in 32-bit floats; it is taken as greedy.
COLDEST_TEMPERATURE = 1e-3

# Outside of these, products with 32-bit logits overflow and every token becomes equally likely.
REPETITION_PENALTIES = (1e-3, 1e3)

# Inputs that the engine does not implement, and the values of them that change nothing.
NEUTRAL: Mapping[str, tuple[float, ...]] = {
    "beam_width": (1,),
    "num_return_sequences": (1,),
    "len_penalty": (0.0, 1.0),  # only beam search has a length penalty
}

Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One Triton request: a generation per row, and how its answers are shaped."""

    request_id: str
    generations: tuple[Generation, ...]
    streaming: bool
    echo_prompt: bool


class RequestReader:
    """Checks requests against the model's facts and the engine's settings. `draw_seed` gives seeds left out."""

    def __init__(
        self, settings: EngineSettings, defaults: SamplingDefaults, facts: ModelFacts, draw_seed: Callable[[], int]
    ):
        self._defaults = defaults
        self._facts = facts
        self._longest = facts.longest_sequence(settings)
        self._draw_seed = draw_seed

    def read(self, request_id: str, tensors: Tensors) -> EngineRequest:
        """The whole request, tensors with their leading batch dimension. Raises InvalidInput."""
        rows = tensors["input_ids"].shape[0]
        for name, array in tensors.items():
            if array.ndim == 0 or array.shape[0] != rows:
                raise InvalidInput(name, f"of shape {list(array.shape)}", f"{rows} rows as input_ids has")
        streaming = {_flag(_Row(tensors, row), "streaming", False) for row in range(rows)}
        echo = {not _flag(_Row(tensors, row), "exclude_input_in_output", True) for row in range(rows)}
        for name, values in (("streaming", streaming), ("exclude_input_in_output", echo)):
            if len(values) > 1:
                raise InvalidInput(name, "mixed", "the same value in every row")
        generations = tuple(self._generation(_Row(tensors, row)) for row in range(rows))
        return EngineRequest(request_id, generations, streaming.pop(), echo.pop())

    def _generation(self, row: _Row) -> Generation:
        for name, neutral in NEUTRAL.items():
            value = row.number(name)
            if value is not None and value not in neutral:
                raise InvalidInput(name, value, f"{neutral[0]}: not supported by this engine")
        if word_list(row.array("bad_words_list"), "bad_words_list"):
            raise InvalidInput("bad_words_list", "not empty", "no bad words: not supported by this engine")
        prompt = self._prompt(row)
        max_tokens = self._max_tokens(row, len(prompt))
        min_tokens = _within("min_tokens", row.integer("min_tokens", 0), 0, max_tokens)
        stop_words = word_list(row.array("stop_words_list"), "stop_words_list")
        log_probs = _flag(row, "return_log_probs", False)
        return Generation(
            prompt, max_tokens, self._sampling(row), self._end_ids(row), stop_words, min_tokens, log_probs
        )

    def _prompt(self, row: _Row) -> tuple[int, ...]:
        ids = row.array("input_ids")
        assert ids is not None  # a required input of the model
        length = row.integer("input_lengths", len(ids))
        if not 1 <= length <= len(ids):
            raise InvalidInput("input_lengths", length, f"1 to {len(ids)}, the length of input_ids")
        if length >= self._longest:
            raise InvalidInput("input_lengths", length, f"at most {self._longest - 1} tokens (context less one)")
        ids = ids[:length]
        outside = (ids < 0) | (ids >= self._facts.vocab_size)
        if outside.any():
            at = int(outside.argmax())
            raise InvalidInput(f"input_ids[{at}]", ids[at], f"0 to {self._facts.vocab_size - 1} (vocabulary)")
        return tuple(ids.tolist())

    def _max_tokens(self, row: _Row, prompt: int) -> int:
        asked = row.integer("request_output_len", 0)
        room = self._longest - prompt
        if not 1 <= asked <= room:
            limit = f"1 to {room} (context of {self._longest} tokens less {prompt} of the prompt)"
            raise InvalidInput("request_output_len", asked, limit)
        return asked

    def _end_ids(self, row: _Row) -> tuple[int, ...]:
        """The request's own end id, none for -1, the model's where it is left out."""
        if row.number("end_id") is None:
            return self._facts.eos_token_ids
        end_id = _within("end_id", row.integer("end_id", -1), -1, self._facts.vocab_size - 1)
        return () if end_id == -1 else (end_id,)

    def _sampling(self, row: _Row) -> Sampling:
        defaults = self._defaults
        temperature = _within("temperature", row.real("temperature", defaults.default_temperature), 0.0, math.inf)
        top_k = _within("runtime_top_k", row.integer("runtime_top_k", defaults.default_top_k), 0, 1 << 31)
        top_p = _within("runtime_top_p", row.real("runtime_top_p", defaults.default_top_p), 0.0, 1.0)
        penalty = row.real("repetition_penalty", defaults.default_repetition_penalty)
        seed = row.number("seed")
        # TensorRT-LLM: top_k 0 is "no limit", top_p 0 is "no nucleus", both 0 are greedy.
        return Sampling(
            greedy=temperature < COLDEST_TEMPERATURE or top_k == 1 or (top_k == 0 and top_p == 0),
            temperature=temperature,
            top_p=top_p or 1.0,
            top_k=top_k,
            repetition_penalty=_within("repetition_penalty", penalty, *REPETITION_PENALTIES),
            presence_penalty=_within("presence_penalty", row.real("presence_penalty", 0.0), -2.0, 2.0),
            frequency_penalty=_within("frequency_penalty", row.real("frequency_penalty", 0.0), -2.0, 2.0),
            seed=self._draw_seed() if seed is None else int(seed),
        )


class _Row:
    """One row of a request's tensors."""

    def __init__(self, tensors: Tensors, row: int):
        self._tensors = tensors
        self._row = row

    def array(self, name: str) -> np.ndarray[Any, Any] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor[self._row]

    def number(self, name: str) -> Any:
        """The row's only value, or None where the input is left out."""
        array = self.array(name)
        if array is None:
            return None
        if array.size != 1:
            raise InvalidInput(name, f"of shape {list(array.shape)}", "one value a row")
        return array.reshape(-1)[0].item()

    def integer(self, name: str, default: int) -> int:
        value = self.number(name)
        return default if value is None else int(value)

    def real(self, name: str, default: float) -> float:
        value = self.number(name)
        if value is None:
            return default
        if not math.isfinite(value):
            raise InvalidInput(name, value, "a finite number")
        return float(value)


def _flag(row: _Row, name: str, default: bool) -> bool:
    value = row.number(name)
    return default if value is None else bool(value)


def _within(name: str, value: Any, low: float, high: float) -> Any:
    if not low <= value <= high:
        raise InvalidInput(name, value, f"{low} to {high}" if high < math.inf else f"at least {low}")
    return value


def word_list(array: np.ndarray[Any, Any] | None, name: str) -> tuple[tuple[int, ...], ...]:
    """TensorRT-LLM's word list, INT32[2, n]: row 0 the words' tokens end to end, row 1 where each ends, then -1.

    Empty words are left out. Raises InvalidInput for another shape or ends that do not grow.
    """
    if array is None:
        return ()
    if array.ndim != 2 or array.shape[0] != 2:
        raise InvalidInput(name, f"of shape {list(array.shape)}", "shape [2, n]: tokens and the words' ends")
    tokens, ends = array.tolist()
    used = ends[: ends.index(-1)] if -1 in ends else ends
    starts = [0, *used][: len(used)]
    if any(not start <= end <= len(tokens) for start, end in zip(starts, used, strict=True)):
        raise InvalidInput(name, f"with ends {used[:8]}", f"growing ends of at most {len(tokens)}, then -1")
    return tuple(tuple(tokens[start:end]) for start, end in zip(starts, used, strict=True) if end > start)
