"""The running batch: which generations are in the pipeline, which wait for a slot or for KV blocks.

First come, first served, and nothing is admitted that could later run out of KV cache: a generation reserves the blocks
of its prompt and its longest answer (TensorRT-LLM's `guaranteed_no_evict`). OpenVINO by itself would end a starved
request early without an error. Owner: the main thread of the inference process.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from openvino_llm.messages import Delta, Generation
from openvino_llm.settings import KV_BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class NewTokens:
    """What one generation produced since it was last read."""

    token_ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    finished: bool = False


class Handle(Protocol):
    """A generation inside the pipeline."""

    def read(self) -> NewTokens:
        """Everything produced since the last call; does not block."""

    def drop(self) -> None:
        """End the generation; the pipeline frees its slot and KV blocks in its next step."""


class Pipeline(Protocol):
    """Continuous batching: `step` advances every generation by at most one token."""

    def add(self, key: int, generation: Generation) -> Handle:
        """Take a generation in. Raises RuntimeError when the pipeline refuses it."""

    def step(self) -> None:
        """One forward pass over the batch."""


@dataclass(slots=True)
class _Running:
    generation: Generation
    handle: Handle
    blocks: int
    tail: list[int] = field(default_factory=list)


class Batch:
    """Slots and KV blocks of one pipeline."""

    def __init__(self, pipeline: Pipeline, slots: int, kv_blocks: int):
        self._pipeline = pipeline
        self._slots = slots
        self._free_blocks = kv_blocks
        self._waiting: deque[tuple[int, Generation]] = deque()
        self._running: dict[int, _Running] = {}
        self._leaving: list[int] = []  # blocks of dropped generations, free again after the next step

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting or self._running or self._leaving)

    def start(self, key: int, generation: Generation) -> None:
        """Queue a generation."""
        self._waiting.append((key, generation))

    def cancel(self, key: int) -> None:
        """Forget a generation, waiting or running."""
        running = self._running.pop(key, None)
        if running is not None:
            self._drop(running)
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != key)

    def step(self) -> list[Delta]:
        """Admit what fits, advance everything by a token, and say what is new."""
        deltas = self._admit()
        leaving, self._leaving = self._leaving, []
        self._pipeline.step()
        self._free_blocks += sum(leaving)
        deltas.extend(delta for key in list(self._running) if (delta := self._collect(key)) is not None)
        return deltas

    def _admit(self) -> list[Delta]:
        refused: list[Delta] = []
        while self._waiting and len(self._running) + len(self._leaving) < self._slots:
            key, generation = self._waiting[0]
            blocks = blocks_of(generation)
            if blocks > self._free_blocks:
                break
            self._waiting.popleft()
            try:
                handle = self._pipeline.add(key, generation)
            except RuntimeError as error:
                refused.append(Delta(key, finished=True, error=f"the inference engine refused the request: {error}"))
                continue
            self._free_blocks -= blocks
            self._running[key] = _Running(generation, handle, blocks)
        return refused

    def _collect(self, key: int) -> Delta | None:
        running = self._running[key]
        new = running.handle.read()
        if not new.token_ids and not new.finished:
            return None
        keep, stopped = _cut(new.token_ids, running)
        finished = new.finished or stopped
        if finished:
            del self._running[key]
            if new.finished:
                self._free_blocks += running.blocks
            else:
                self._drop(running)
        return Delta(key, new.token_ids[:keep], new.log_probs[:keep], finished)

    def _drop(self, running: _Running) -> None:
        running.handle.drop()
        self._leaving.append(running.blocks)


def blocks_of(generation: Generation) -> int:
    """KV blocks that a generation can need at most."""
    return -(-(len(generation.prompt) + generation.max_tokens) // KV_BLOCK_TOKENS)


def _cut(token_ids: tuple[int, ...], running: _Running) -> tuple[int, bool]:
    """How many of the new tokens belong to the answer, and whether a stop word or end id ended it.

    An end id is not part of the answer, a stop word is: TensorRT-LLM does not count the end id into the sequence length
    ("Seq len should always contain only tokens to be outputted", samplingTopKKernels.cu) and leaves stop words in.
    """
    generation = running.generation
    for position, token in enumerate(token_ids):
        if token in generation.end_ids:
            return position, True
        running.tail.append(token)
        if any(running.tail[-len(word) :] == list(word) for word in generation.stop_words):
            return position + 1, True
    if generation.stop_words:
        del running.tail[: -max(map(len, generation.stop_words))]
    else:
        running.tail.clear()
    return len(token_ids), False
