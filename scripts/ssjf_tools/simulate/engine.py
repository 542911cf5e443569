"""The simulated engine: who runs, and who ends when. Time moves only in the caller."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from ssjf_tools.simulate.service import ServiceModel


class Engine(ABC):
    """Runs requests by their place in the request set; `prompts` and `outputs` are tokens [n]."""

    def __init__(self, model: ServiceModel, prompts: Sequence[float], outputs: Sequence[float]):
        self._model = model
        self._prompts = prompts
        self._outputs = outputs

    @abstractmethod
    def start(self, requests: Sequence[int], now: float) -> None:
        """Begin these requests together."""

    @abstractmethod
    def next_event(self) -> float:
        """When something happens next if nothing else is started; inf if nothing runs."""

    @abstractmethod
    def advance(self) -> int | None:
        """Go to `next_event`; the request that ended there, None if none did."""

    @abstractmethod
    def progress(self, now: float) -> Iterator[tuple[int, int]]:
        """Each running request with the tokens that it has produced by `now`."""


class FixedEngine(Engine):
    """A request's time does not depend on what else runs. `together`: a group ends when its longest request does.

    The latter is a batch without early exit, as in the paper's experiments with what it calls static batching.
    """

    def __init__(
        self, model: ServiceModel, prompts: Sequence[float], outputs: Sequence[float], *, together: bool = False
    ):
        super().__init__(model, prompts, outputs)
        self._step_s = model.step_s(1)
        self._durations = [
            model.base_s + model.prefill_s * prompt + self._step_s * output
            for prompt, output in zip(prompts, outputs, strict=True)
        ]
        self._together = together
        self._ends: list[tuple[float, int]] = []

    def start(self, requests: Sequence[int], now: float) -> None:
        durations = self._durations
        longest = max(durations[place] for place in requests) if self._together else 0.0
        for place in requests:
            heappush(self._ends, (now + (longest or durations[place]), place))

    def next_event(self) -> float:
        return self._ends[0][0] if self._ends else math.inf

    def advance(self) -> int:
        return heappop(self._ends)[1]

    def progress(self, now: float) -> Iterator[tuple[int, int]]:
        for end, place in self._ends:
            output = self._outputs[place]
            yield place, int(max(0.0, output - (end - now) / self._step_s))


class LockstepEngine(Engine):
    """Inflight batching: all decoding requests gain a token each step, and a step's time depends on their number.

    A clock counts the steps that were made; a request ends when the clock has gone on by its output tokens, so a change
    of the batch touches no request. Prefill holds the slot but does not slow the others down: their step times were
    measured under load.
    """

    def __init__(self, model: ServiceModel, prompts: Sequence[float], outputs: Sequence[float]):
        super().__init__(model, prompts, outputs)
        self._now = 0.0
        self._steps = 0.0
        self._prefilling: list[tuple[float, int]] = []  # when the prefill ends
        self._decoding: list[tuple[float, int]] = []  # what the clock says at the end

    def start(self, requests: Sequence[int], now: float) -> None:
        self._move_to(now)
        for place in requests:
            ready = now + self._model.base_s + self._model.prefill_s * self._prompts[place]
            heappush(self._prefilling, (ready, place))

    def next_event(self) -> float:
        return min(self._prefilling[0][0] if self._prefilling else math.inf, self._next_end())

    def advance(self) -> int | None:
        if self._prefilling and self._prefilling[0][0] <= self._next_end():
            ready, place = heappop(self._prefilling)
            self._move_to(ready)
            heappush(self._decoding, (self._steps + self._outputs[place], place))
            return None
        self._move_to(self._next_end())
        self._steps, place = heappop(self._decoding)
        return place

    def progress(self, now: float) -> Iterator[tuple[int, int]]:
        self._move_to(now)
        for end, place in self._decoding:
            yield place, int(self._outputs[place] - (end - self._steps))

    def _next_end(self) -> float:
        if not self._decoding:
            return math.inf
        steps = max(0.0, self._decoding[0][0] - self._steps)
        return self._now + steps * self._model.step_s(len(self._decoding))

    def _move_to(self, now: float) -> None:
        if self._decoding:
            self._steps += (now - self._now) / self._model.step_s(len(self._decoding))
        self._now = now
