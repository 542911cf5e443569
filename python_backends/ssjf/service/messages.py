"""The way of a request, hop by hop: one frozen type for each, made in one place and consumed in the next.

Triton request ─► Call ─► Generation (one a row) ─► Job (core) ─► EngineRequest ─► EngineChunk… ─► TextChunk… ─► client
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Door(enum.Enum):
    """How a request came: through the ensemble (already tokenized and predicted) or straight with text."""

    ENSEMBLE = "ensemble"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Call:
    """One Triton request as plain data. Tensors keep their batch dimension; `arrival` is in seconds (monotonic)."""

    request_id: str
    tensors: Mapping[str, NDArray[Any]]
    parameters: Mapping[str, Any]
    timeout_us: int
    arrival: float

    @property
    def door(self) -> Door:
        return Door.ENSEMBLE if "input_ids" in self.tensors else Door.DIRECT


@dataclass(frozen=True, slots=True)
class Generation:
    """One validated row of a call.

    `engine_inputs` hold the pass-through values under their engine names, [1, …]; `flagged_outputs` name the engine
    outputs that a flag such as `return_log_probs` asked for. `context` goes with the request to the engine, as request
    parameters: the client's trace context and its request id.
    """

    row: int
    text: bytes
    max_tokens: int
    min_tokens: int
    stream: bool
    echo: bool
    stop_words: tuple[str, ...]
    bad_words: tuple[str, ...]
    biased_words: tuple[tuple[str, float], ...]
    prompt_table_extra_id: int | None
    beams: int
    sequences: int
    flagged_outputs: tuple[str, ...]
    engine_inputs: Mapping[str, NDArray[Any]]
    prompt_ids: NDArray[np.int32] | None
    distribution: NDArray[np.float32] | None
    priority_class: int
    tenant: str
    deadline: float | None
    expected_tokens: float | None
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What is sent to an engine for one job.

    `streaming`: a response per step instead of one at the end. `flagged_outputs`: engine outputs beyond the tokens.
    `text`: the prompt as the model sees it, for engines that tokenize themselves. `context`: see Generation.
    """

    engine_id: str
    prompt_ids: NDArray[np.int32]
    max_tokens: int
    streaming: bool
    flagged_outputs: tuple[str, ...]
    sequences: int
    inputs: Mapping[str, NDArray[Any]]
    text: str = ""
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineChunk:
    """News of one sequence: new tokens, one entry a beam; `extras` are further engine outputs, passed on untouched.

    An engine that gives text leaves `token_ids` empty and puts the whole text so far into `text`, with its own count of
    tokens (None: it does not count). `finish`: why the answer ended, where the engine says so (`stop`, `length`).
    """

    sequence_index: int
    token_ids: tuple[list[int], ...] = ()
    cum_log_probs: tuple[float, ...] = ()
    log_probs: tuple[tuple[float, ...], ...] = ()
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    text: str | None = None
    output_tokens: int | None = None
    finish: str | None = None


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A piece of an answer on its way to the client: one text a beam.

    `output_tokens` counts the tokens of this piece alone: so does upstream's `num_output_tokens`, and clients add up.
    """

    batch_index: int
    sequence_index: int
    texts: tuple[str, ...]
    input_tokens: int
    output_tokens: int
    predicted_tokens: int
    queue_time_us: int
    cum_log_probs: tuple[float, ...] = ()
    log_probs: tuple[tuple[float, ...], ...] = ()
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def joined(self, later: TextChunk) -> TextChunk:
        """This piece and the next one of the same sequence as one."""
        return TextChunk(
            batch_index=self.batch_index,
            sequence_index=self.sequence_index,
            texts=tuple(a + b for a, b in zip(self.texts, later.texts, strict=True)),
            input_tokens=later.input_tokens,
            output_tokens=self.output_tokens + later.output_tokens,
            predicted_tokens=later.predicted_tokens,
            queue_time_us=later.queue_time_us,
            cum_log_probs=later.cum_log_probs or self.cum_log_probs,
            log_probs=_join_log_probs(self.log_probs, later.log_probs),
            extras={**self.extras, **later.extras},
        )


def _join_log_probs(
    first: tuple[tuple[float, ...], ...], second: tuple[tuple[float, ...], ...]
) -> tuple[tuple[float, ...], ...]:
    if not first or not second:
        return first or second
    return tuple(a + b for a, b in zip(first, second, strict=True))
