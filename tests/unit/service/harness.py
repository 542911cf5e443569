"""A Service with a scripted engine and clients that record: everything real but Triton, gRPC and the models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, cast

import numpy as np

from ssjf.core.errors import SchedulerError
from ssjf.core.job import LengthPrediction
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import CoreSettings
from ssjf.service.channel import Outbox
from ssjf.service.engine.base import EngineAdapter, EngineError
from ssjf.service.engine.flavours import ADAPTERS
from ssjf.service.engine.pool import Endpoint, EnginePool, PoolSettings
from ssjf.service.messages import Call, EngineChunk, EngineRequest, Generation, TextChunk
from ssjf.service.preparation import Preparation, PreparedRow
from ssjf.service.records import FinishedRow, Recorder
from ssjf.service.service import Parts, Service
from ssjf.service.settings import ServiceSettings
from tests.unit.byte_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
MakeEndpoints = Callable[[EngineAdapter], Sequence[Endpoint]]
FAST_PROBES = PoolSettings(first_pause_s=0.01, longest_pause_s=0.02)


class Client:
    """One client's side of a request; `gone` makes Triton say that it was cancelled."""

    def __init__(self) -> None:
        self.pieces: list[TextChunk] = []
        self.ends: list[str] = []
        self.gone = False

    def send(self, chunk: TextChunk, final: bool) -> None:
        self.pieces.append(chunk)
        if final:
            self.ends.append("final")

    def finish(self) -> None:
        self.ends.append("empty final")

    def fail(self, error: SchedulerError) -> None:
        self.ends.append(f"{type(error).__name__}: {error}")

    def is_cancelled(self) -> bool:
        return self.gone

    @property
    def text(self) -> str:
        return "".join(piece.texts[0] for piece in self.pieces)

    @property
    def one_end(self) -> str:
        """How the request ended; fails where it has not, or has more than once."""
        assert len(self.ends) == 1
        return self.ends[0]


class ScriptedEngine:
    """Answers a prompt with its own bytes, one token at a time; holds every token back while `gate` is closed.

    Prompts that begin with `!` fail: `!refuse` at once, `!break` after the first token.
    """

    def __init__(self) -> None:
        self.url = "fake"
        self.started: list[str] = []
        self.left: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        prompt = TOKENIZER.decode(request.prompt_ids.tolist())
        self.started.append(prompt)
        try:
            if prompt.startswith("!refuse"):
                raise EngineError("beam_width is 2, not supported")
            for count, token in enumerate(request.prompt_ids.tolist()[: request.max_tokens]):
                await self.gate.wait()
                await asyncio.sleep(0)
                if prompt.startswith("!break") and count == 1:
                    raise EngineError("the engine broke", connection=True)
                yield EngineChunk(0, ([token],))
        finally:
            self.left.append(prompt)

    async def is_ready(self, timeout_s: float) -> bool:
        return True

    async def close(self) -> None:
        self.gate.set()


class FakePreparation:
    """Tokenizes by bytes; predicts the length of the prompt, since that is how long ScriptedEngine's answer is."""

    tokenizer = TOKENIZER

    def __init__(self) -> None:
        self.predicts = True
        # A prompt's late prediction, where it has one: its request comes into the queue without.
        self.coming: dict[str, asyncio.Task[LengthPrediction]] = {}

    def is_ready(self, generation: Generation) -> bool:
        return not self.coming

    async def make(self, generation: Generation) -> PreparedRow:
        ready = self.read(generation)
        coming = self.coming.get(generation.text.decode())
        return ready if coming is None else PreparedRow(ready.prompt_ids, None, coming)

    def read(self, generation: Generation) -> PreparedRow:
        ids = np.array(TOKENIZER.encode(generation.text.decode(), add_special_tokens=False).ids, dtype=np.int32)
        length = float(len(ids))
        return PreparedRow(ids, LengthPrediction(length, length) if self.predicts else None)

    def engine_request(self, engine_id: str, row: Generation, prompt_ids: Any, streaming: bool) -> EngineRequest:
        inputs = dict(row.engine_inputs)
        return EngineRequest(
            engine_id, prompt_ids, row.max_tokens, streaming, (), row.sequences, inputs, row.text.decode(), row.context
        )

    def close(self) -> None:
        pass


class Bench:
    """The service and everything around it, for one test."""

    def __init__(self, core: CoreSettings, settings: ServiceSettings, make_endpoints: MakeEndpoints | None = None):
        self.engine = ScriptedEngine()
        adapter = ADAPTERS[settings.engine_flavour]("tensorrt_llm")
        endpoints: Sequence[Endpoint] = make_endpoints(adapter) if make_endpoints else (self.engine,)
        self.pool = EnginePool(endpoints, FAST_PROBES, asyncio.get_running_loop().time)
        self.preparation = FakePreparation()
        self.records: list[FinishedRow] = []
        self.outbox = Outbox(lambda _channel: None)
        self.core = Scheduler(core)
        parts = Parts(
            settings=settings,
            core=self.core,
            preparation=cast("Preparation", self.preparation),
            adapter=adapter,
            pool=self.pool,
            outbox=self.outbox,
            recorder=Recorder(self.records.append),
        )
        self.service = Service(parts, asyncio.get_running_loop())

    def send(
        self, text: str = "hello", *, request_id: str = "", parameters: dict[str, Any] | None = None, **tensors: Any
    ) -> Client:
        """One request of one row; keyword arguments are further tensors."""
        given = {
            "text_input": np.array([[text.encode()]], dtype=np.object_),
            "max_tokens": np.array([[64]], np.int32),
            **tensors,
        }
        client = Client()
        arrival = asyncio.get_running_loop().time()
        self.service.accept(Call(request_id, given, parameters or {}, 0, arrival), client)
        return client

    async def occupied(self) -> Client:
        """Close the engine's gate behind one request, `running`, that has the first slot."""
        self.engine.gate.clear()
        client = self.send("running")
        await self.until(lambda: self.engine.started == ["running"])
        return client

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Let the service run until `condition` holds."""

        async def poll() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        await asyncio.wait_for(poll(), timeout_s)

    async def ended(self, *clients: Client) -> None:
        await self.until(lambda: all(client.ends for client in clients))


def run(
    scenario: Callable[[Bench], Awaitable[None]],
    core: CoreSettings | None = None,
    settings: ServiceSettings | None = None,
    make_endpoints: MakeEndpoints | None = None,
) -> Bench:
    """Run a scenario with a live sender and poller; afterwards nothing may be left in the scheduler."""

    async def main() -> Bench:
        bench = Bench(
            core or CoreSettings(max_inflight=2), settings or ServiceSettings(cancel_poll_s=0.005), make_endpoints
        )
        bench.outbox.start()
        bench.service.poller.start()
        try:
            await scenario(bench)
        finally:
            bench.service.poller.stop(5)
            await bench.service.shut_down("the test is over")
            bench.outbox.stop(5)
        state = bench.service.snapshot()
        assert (state.queue_length, state.in_flight, bench.service.live_calls) == (0, 0, 0)
        assert [member.in_flight for member in bench.pool.members()] == [0] * len(bench.pool.members())
        return bench

    return asyncio.run(main())
