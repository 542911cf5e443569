"""Which requests are open, and which of their tokens have not been sent: merges deltas into responses.

Plain bookkeeping without threads, clocks or Triton. Owner: the desk's thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from openvino_llm.errors import InvalidInput
from openvino_llm.messages import Delta, Generation, Start
from openvino_llm.request import EngineRequest
from openvino_llm.responses import RowChunk

ClientT = TypeVar("ClientT")


@dataclass(frozen=True, slots=True)
class Outgoing(Generic[ClientT]):
    """One thing to send to a client: tokens of a row or an error; `final` ends the request."""

    client: ClientT
    chunk: RowChunk | None
    final: bool
    error: str | None = None


@dataclass(slots=True)
class _Row(Generic[ClientT]):
    open_request: _Open[ClientT]
    index: int
    generation: Generation
    token_ids: list[int] = field(default_factory=list)  # not sent yet
    log_probs: list[float] = field(default_factory=list)
    cum_log_prob: float = 0.0
    finished: bool = False


@dataclass(slots=True)
class _Open(Generic[ClientT]):
    client: ClientT
    request: EngineRequest
    rows: dict[int, _Row[ClientT]] = field(default_factory=dict)


class Ledger(Generic[ClientT]):
    """Open requests by client and by id, their unfinished rows by key."""

    def __init__(self) -> None:
        self._next_key = 0
        self._open: dict[ClientT, _Open[ClientT]] = {}
        self._by_id: dict[str, ClientT] = {}
        self._rows: dict[int, _Row[ClientT]] = {}
        self._touched: dict[int, None] = {}  # keys with something to send, in order of arrival

    @property
    def clients(self) -> list[ClientT]:
        """The clients of all open requests."""
        return list(self._open)

    def open(self, client: ClientT, request: EngineRequest) -> list[Start]:
        """Take a request in and return what the inference process must start. Raises InvalidInput for a live id."""
        if request.request_id and request.request_id in self._by_id:
            raise InvalidInput("request id", repr(request.request_id), "an id that no running request has")
        entry = _Open(client, request)
        for index, generation in enumerate(request.generations):
            self._next_key += 1
            entry.rows[self._next_key] = self._rows[self._next_key] = _Row(entry, index, generation)
        self._open[client] = entry
        if request.request_id:
            self._by_id[request.request_id] = client
        return [Start(key, row.generation) for key, row in entry.rows.items()]

    def apply(self, delta: Delta) -> Outgoing[ClientT] | None:
        """Note new tokens. A failed row fails its request at once: then that answer is returned."""
        row = self._rows.get(delta.key)
        if row is None:  # cancelled meanwhile
            return None
        if delta.error is not None:
            client = row.open_request.client
            self.close(client)
            return Outgoing(client, None, final=True, error=delta.error)
        row.token_ids.extend(delta.token_ids)
        row.log_probs.extend(delta.log_probs)
        row.cum_log_prob += sum(delta.log_probs)
        row.finished = delta.finished
        if row.finished or row.open_request.request.streaming:
            self._touched[delta.key] = None
        return None

    def flush(self) -> list[Outgoing[ClientT]]:
        """Everything that is to be sent now: one response a row, whatever number of deltas it merges."""
        touched, self._touched = self._touched, {}
        return [self._take(key) for key in touched if key in self._rows]

    def end(self, client: ClientT) -> tuple[list[int], list[Outgoing[ClientT]]]:
        """`stop=true`: the keys to cancel, and the last responses with what the rows have so far."""
        keys = list(self._open[client].rows)
        for key in keys:
            self._rows[key].finished = True
            self._touched.pop(key, None)
        return keys, [self._take(key) for key in keys]

    def close(self, client: ClientT) -> list[int]:
        """Forget a request; the keys that are still with the inference process."""
        entry = self._open.pop(client)
        if entry.request.request_id:
            del self._by_id[entry.request.request_id]
        for key in entry.rows:
            del self._rows[key]
            self._touched.pop(key, None)
        return list(entry.rows)

    def client_of(self, request_id: str) -> ClientT | None:
        """Who runs under this id."""
        return self._by_id.get(request_id)

    def _take(self, key: int) -> Outgoing[ClientT]:
        row = self._rows[key]
        entry, generation = row.open_request, row.generation
        new = tuple(row.token_ids)
        echo = generation.prompt if entry.request.echo_prompt and not entry.request.streaming else ()
        log_probs = tuple(row.log_probs) if generation.log_probs else None
        chunk = RowChunk(row.index, echo + new, len(generation.prompt), len(new), log_probs, row.cum_log_prob)
        row.token_ids.clear()
        row.log_probs.clear()
        if row.finished:
            del self._rows[key]
            del entry.rows[key]
            if not entry.rows:
                self.close(entry.client)
        return Outgoing(entry.client, chunk, final=not entry.rows)
