"""The simulated engine: who runs, and who ends when. Time moves only in the caller."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
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


class ChunkedEngine(Engine):
    """Inflight batching with prefill in chunks: a step carries all decoding requests and a chunk of one prompt.

    Prompts go one after the other. A prompt of n chunks takes n steps, each longer by what its tokens cost, and all who
    decode feel it. As in LockstepEngine a clock counts steps: a request decodes until the clock has gone on by its
    output tokens, the prompt in turn is done when it has gone on by its chunks.
    """

    def __init__(self, model: ServiceModel, prompts: Sequence[float], outputs: Sequence[float]):
        super().__init__(model, prompts, outputs)
        self._now = 0.0
        self._steps = 0.0
        self._coming: list[tuple[float, int]] = []  # on the way to the engine: when they are there
        self._prompts_waiting: deque[int] = deque()
        self._in_turn: tuple[float, float, int] | None = None  # clock at its end, seconds of a chunk, request
        self._decoding: list[tuple[float, int]] = []  # what the clock says at the end

    def start(self, requests: Sequence[int], now: float) -> None:
        self._move_to(now)
        for place in requests:
            heappush(self._coming, (now + self._model.base_s, place))

    def next_event(self) -> float:
        return min(self._coming[0][0] if self._coming else math.inf, self._next_step_event())

    def advance(self) -> int | None:
        if self._coming and self._coming[0][0] <= self._next_step_event():
            ready, place = heappop(self._coming)
            self._move_to(ready)
            self._prompts_waiting.append(place)
            self._turn()
            return None
        self._move_to(self._next_step_event())
        if self._in_turn is not None and (not self._decoding or self._in_turn[0] <= self._decoding[0][0]):
            self._steps, _, place = self._in_turn
            heappush(self._decoding, (self._steps + self._outputs[place], place))
            self._in_turn = None
            self._turn()
            return None
        self._steps, place = heappop(self._decoding)
        return place

    def progress(self, now: float) -> Iterator[tuple[int, int]]:
        self._move_to(now)
        for end, place in self._decoding:
            yield place, int(self._outputs[place] - (end - self._steps))

    def _turn(self) -> None:
        """The next prompt begins, if none is in turn."""
        if self._in_turn is None and self._prompts_waiting:
            place = self._prompts_waiting.popleft()
            chunks = max(1, math.ceil(self._prompts[place] / (self._model.chunk_tokens or math.inf)))
            self._in_turn = (self._steps + chunks, self._model.prefill_s * self._prompts[place] / chunks, place)

    def _step_s(self) -> float:
        decode = self._model.step_s(len(self._decoding)) if self._decoding else 0.0
        return decode + (self._in_turn[1] if self._in_turn is not None else 0.0)

    def _next_step_event(self) -> float:
        ends = [self._in_turn[0]] if self._in_turn is not None else []
        ends += [self._decoding[0][0]] if self._decoding else []
        return self._now + max(0.0, min(ends) - self._steps) * self._step_s() if ends else math.inf

    def _move_to(self, now: float) -> None:
        step_s = self._step_s()
        if step_s > 0:
            self._steps += (now - self._now) / step_s
        self._now = now
