"""Sends the requests of a plan and notes when each began and ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import grpc.aio
import numpy as np
from numpy.typing import NDArray

from ssjf_tools.bench.live.engine import engine_parameters
from ssjf_tools.bench.live.plan import Plan
from ssjf_tools.bench.live.prompts import Prompt
from ssjf_tools.bench.streams import StreamClient, Timeline, engine_request, text_request
from ssjf_tools.simulate.tables import Column

# The arm that asks the engine itself, with no queue of ours before it.
DIRECT = "direct"

_GREEDY = np.array([[1]], dtype=np.int32)
_WARM_UP = "Say hello."


@dataclass(frozen=True, slots=True)
class Run:
    """What happened to the requests of a plan under one arm: columns [n], seconds from the start of the run.

    `arrival_s` is when the request was due, so that a late sender counts as waiting. NaN: unknown (an engine asked
    directly tells no queue time and predicts nothing; a failed request has no times).
    """

    arrival_s: Column
    first_s: Column
    end_s: Column
    queue_s: Column
    longest_gap_s: Column
    output_tokens: Column
    prompt_tokens: Column
    predicted_tokens: Column

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests were answered."""
        return np.isfinite(self.end_s)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt as it is sent: through the scheduler and, tokenized, to the engine itself."""

    text: str
    max_tokens: int
    input_ids: NDArray[np.int32]


class Asker:
    """Sends questions to one server. `greedy`: answers repeat; otherwise the server's own sampling."""

    def __init__(self, url: str, greedy: bool):
        self._url = url
        self._client = StreamClient(url)
        self._greedy = greedy

    async def prepare(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Question]:
        """Tokenize prompts on the server, for the engine asked directly and to know their lengths."""
        questions = []
        for prompt in prompts:
            inputs = {"text_input": np.array([[prompt.text.encode()]], dtype=np.object_)}
            try:
                ids = (await self._client.infer("preprocessing", inputs))["input_ids"]
            except grpc.aio.AioRpcError:  # too long, say: the scheduler will refuse it, too
                ids = np.zeros((1, 0), np.int32)
            limit = max_tokens if prompt.max_tokens is None else min(max_tokens, prompt.max_tokens)
            questions.append(Question(prompt.text, limit, ids))
        await self.ask("scheduler", Question(_WARM_UP, 8, np.zeros((1, 1), np.int32)), None)
        return questions

    async def check_direct(self) -> None:
        """Raise ValueError where the server has no engine that `direct` can ask."""
        await engine_parameters(self._client, self._url, f"the arm {DIRECT}")

    async def ask(self, arm: str, question: Question, expected_tokens: int | None) -> Timeline:
        """One answer to its end. Raises RuntimeError when it ends in an error."""
        if arm == DIRECT:
            more = {"runtime_top_k": _GREEDY} if self._greedy else {}
            return await self._client.stream(
                "tensorrt_llm", engine_request(question.input_ids, question.max_tokens, **more)
            )
        more = {"top_k": _GREEDY} if self._greedy else {}
        hints = {} if expected_tokens is None else {"expected_tokens": expected_tokens}
        return await self._client.stream("scheduler", text_request(question.text, question.max_tokens, **more), hints)

    async def close(self) -> None:
        await self._client.close()


async def run_plan(
    asker: Asker,
    arm: str,
    questions: Sequence[Question],
    plan: Plan,
    truth: Sequence[int] | None,
    concurrency: int,
    progress: Callable[[], None],
) -> Run:
    """Ask everything in the plan. `truth`: tokens of each question's answer, told to the server (for sjf-oracle).

    `concurrency`: clients of a closed loop; an open loop sends when a request is due, however many are open.
    """
    notes = _Notes(len(plan))

    async def one(place: int, due: float | None) -> None:
        which = int(plan.prompts[place])
        try:
            timeline = await asker.ask(arm, questions[which], None if truth is None else truth[which])
            notes.answer(place, timeline, due)
        except (RuntimeError, grpc.aio.AioRpcError) as error:
            notes.failure(place, time.perf_counter() if due is None else due, str(error))
        notes.columns["prompt_tokens"][place] = questions[which].input_ids.shape[1]
        progress()

    begun = time.perf_counter()
    if plan.arrival_s is None:
        await _closed_loop(one, len(plan), concurrency)
    else:
        await _open_loop(one, begun + plan.arrival_s)
    return notes.run(begun)


async def _open_loop(one: Callable[[int, float], Any], due: Column) -> None:
    tasks = []
    for place, moment in enumerate(due.tolist()):
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        tasks.append(asyncio.create_task(one(place, moment)))
    await asyncio.gather(*tasks)


async def _closed_loop(one: Callable[[int, None], Any], count: int, concurrency: int) -> None:
    places = iter(range(count))

    async def client() -> None:
        for place in places:
            await one(place, None)

    await asyncio.gather(*(client() for _ in range(concurrency)))


class _Notes:
    """Columns that fill while answers come in."""

    def __init__(self, count: int):
        self.columns: dict[str, Column] = {entry.name: np.full(count, np.nan) for entry in fields(Run)}
        self._errors: list[str] = []

    def answer(self, place: int, timeline: Timeline, due: float | None) -> None:
        """Note a complete answer; `due`: when it should have been sent, None: when it was."""
        # An answer that ends before its first token may come without any output.
        columns, last = self.columns, timeline.outputs[-1] if timeline.outputs else {}
        columns["arrival_s"][place] = timeline.sent if due is None else due
        columns["first_s"][place] = timeline.first or timeline.last
        columns["end_s"][place] = timeline.last
        columns["longest_gap_s"][place] = timeline.longest_gap
        columns["output_tokens"][place] = timeline.tokens
        if "queue_time_us" in last:
            columns["queue_s"][place] = last["queue_time_us"].item() / 1e6
            columns["predicted_tokens"][place] = last["predicted_tokens"].item()

    def failure(self, place: int, due: float, error: str) -> None:
        self.columns["arrival_s"][place] = due
        self._errors.append(error)

    def run(self, begun: float) -> Run:
        """The columns, times counted from `begun`. Raises RuntimeError when nothing at all was answered."""
        if len(self._errors) == len(self.columns["end_s"]):
            raise RuntimeError(f"every request failed; the last with: {self._errors[-1]}")
        for name in ("arrival_s", "first_s", "end_s"):
            self.columns[name] -= begun
        return Run(**self.columns)
