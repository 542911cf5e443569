"""Orders over one shared dict of waiting jobs. Deletion is lazy: who leaves the dict is skipped when met.

An ordering never owns jobs. `waiting` (job id → Job) belongs to the queue that made the ordering; a job that left it
is a dead entry here. The owner calls `trim` after it removed a job, which rebuilds the ordering when dead entries
outnumber live ones, so that memory stays within twice the live jobs whatever is pushed and cancelled. Amortised O(1).
A job whose place has changed (`move`) gets a second entry and leaves its first one behind, dead. Ids must not come
again. To move a job that is old is O(n) where lines are kept by arrival (`hrrn`), else O(log n).
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from ssjf.core.job import Job
from ssjf.core.policies.base import DynamicPolicy, KeyedPolicy, Policy

_BYTES_OF = struct.Struct("<d").pack
_BITS_OF = struct.Struct("<q").unpack
_MAGNITUDE = 2**63 - 1
_ID_MASK = 2**64 - 1

# Dead entries below this count are not worth a rebuild.
_SLACK = 64


class Ordering(ABC):
    """What a queue needs of an order: who is first, and who is the first that fits into some room of tokens."""

    def __init__(self, waiting: Mapping[int, Job]):
        self._waiting = waiting

    @abstractmethod
    def __len__(self) -> int:
        """Entries, dead ones included."""

    @abstractmethod
    def add(self, job: Job) -> None:
        """Enter a job that is (or is about to be) in `waiting`."""

    @abstractmethod
    def move(self, job: Job) -> None:
        """Give a job that is in `waiting` the place that its new prediction asks for."""

    @abstractmethod
    def first(self, now: float) -> Job | None:
        """The live job that goes first at `now`; it stays."""

    @abstractmethod
    def fitting(self, now: float, room: float, lookahead: int) -> Job | None:
        """The first of at most `lookahead` live jobs that needs at most `room` KV tokens; it stays."""

    @abstractmethod
    def rebuild(self) -> None:
        """Make the order anew from the live jobs."""

    def trim(self) -> None:
        """Bound the dead entries; to be called after a job left `waiting` or was moved."""
        if len(self) > 2 * len(self._waiting) + _SLACK:
            self.rebuild()


class KeyedOrder(Ordering):
    """By a constant key, ties by job id: a heap. Also serves for costs and deadlines."""

    def __init__(self, waiting: Mapping[int, Job], key: Callable[[Job], float]):
        super().__init__(waiting)
        self._key = key
        self._heap: list[int] = []  # see _entry
        self._moved: dict[int, int] = {}  # the entry that counts, of those jobs that have left others behind
        self.rebuild()

    def __len__(self) -> int:
        return len(self._heap) + len(self._moved)

    def add(self, job: Job) -> None:
        heappush(self._heap, _entry(self._key(job), job.job_id))

    def move(self, job: Job) -> None:
        entry = _entry(self._key(job), job.job_id)
        self._moved[job.job_id] = entry
        heappush(self._heap, entry)

    def first(self, now: float = 0.0) -> Job | None:
        heap, waiting, moved = self._heap, self._waiting, self._moved
        while heap:
            job = waiting.get(heap[0] & _ID_MASK)
            if job is not None and (not moved or moved.get(job.job_id, heap[0]) == heap[0]):
                return job
            heappop(heap)
        return None

    def fitting(self, now: float, room: float, lookahead: int) -> Job | None:
        passed: list[int] = []
        found = None
        for _ in range(lookahead):
            job = self.first()
            if job is None or job.kv_tokens <= room:
                found = job
                break
            passed.append(heappop(self._heap))
            while self._heap and self._heap[0] == passed[-1]:  # a job that was moved to where it had been
                heappop(self._heap)
        for entry in passed:
            heappush(self._heap, entry)
        return found

    def rebuild(self) -> None:
        key = self._key
        self._heap = [_entry(key(job), job.job_id) for job in self._waiting.values()]
        heapify(self._heap)
        self._moved.clear()


class ArrivalLine(Ordering):
    """By arrival, ties by job id: a deque, since jobs come nearly in order."""

    def __init__(self, waiting: Mapping[int, Job]):
        super().__init__(waiting)
        self._line: deque[Job] = deque()
        self.rebuild()

    def __len__(self) -> int:
        return len(self._line)

    def add(self, job: Job) -> None:
        line = self._line
        if not line or line[-1].arrival < job.arrival:
            line.append(job)
        else:
            _line_up(line, job)

    def move(self, job: Job) -> None:
        """Nothing to do: no prediction changes when a job arrived."""

    def first(self, now: float = 0.0) -> Job | None:
        line, waiting = self._line, self._waiting
        while line:
            job = line[0]
            if job.job_id in waiting:
                return job
            line.popleft()
        return None

    def first_of(self, arrived_by: float) -> Job | None:
        """The live job that goes first if it arrived by then, else None; it stays."""
        # Dead entries sort among the live ones, so that the very first tells that nobody came early enough.
        if not self._line or self._line[0].arrival > arrived_by:
            return None
        job = self.first()
        return job if job is not None and job.arrival <= arrived_by else None

    def fitting(self, now: float, room: float, lookahead: int) -> Job | None:
        live = (job for job in self._line if job.job_id in self._waiting)
        for _, job in zip(range(lookahead), live, strict=False):
            if job.kv_tokens <= room:
                return job
        return None

    def rebuild(self) -> None:
        self._line = deque(sorted(self._waiting.values(), key=_age))


class GroupedOrder(Ordering):
    """By a dynamic policy: a line of arrival for each of its groups, and a look at the head of each."""

    def __init__(self, waiting: Mapping[int, Job], policy: DynamicPolicy):
        super().__init__(waiting)
        self._policy = policy
        self._groups: dict[int, deque[Job]] = {}
        self._moved: dict[int, int] = {}  # the group that counts, of those jobs that have left others
        self._entries = 0
        self.rebuild()

    def __len__(self) -> int:
        return self._entries + len(self._moved)

    def add(self, job: Job) -> None:
        _line_up(self._groups.setdefault(self._policy.group(job), deque()), job)
        self._entries += 1

    def move(self, job: Job) -> None:
        self._moved[job.job_id] = self._policy.group(job)
        self.add(job)

    def first(self, now: float) -> Job | None:
        heads = self._heads()
        return min(heads, key=lambda job: (self._policy.score(job, now), job.job_id), default=None)

    def fitting(self, now: float, room: float, lookahead: int) -> Job | None:
        heads = sorted(self._heads(), key=lambda job: (self._policy.score(job, now), job.job_id))
        return next((job for job in heads[:lookahead] if job.kv_tokens <= room), None)

    def rebuild(self) -> None:
        self._groups.clear()
        self._moved.clear()
        self._entries = 0
        for job in sorted(self._waiting.values(), key=_age):
            self.add(job)

    def _heads(self) -> list[Job]:
        """The oldest live job of each group; empty groups go."""
        heads: list[Job] = []
        for group, line in list(self._groups.items()):
            while line and not self._is_live(line[0], group):
                line.popleft()
                self._entries -= 1
            if line:
                heads.append(line[0])
            else:
                del self._groups[group]
        return heads

    def _is_live(self, job: Job, group: int) -> bool:
        return job.job_id in self._waiting and self._moved.get(job.job_id, group) == group


def _entry(key: float, job_id: int) -> int:
    """Key and job id in one number that sorts as the pair (key, id) does; ids are 64 bits, not negative.

    NOTE(speed): with a million jobs a pop is bound by cache misses, and a pair would be three objects. This halves it.
    """
    bits: int = _BITS_OF(_BYTES_OF(key + 0.0))[0]  # + 0.0 makes one of both zeros
    # The bits of positive floats sort as the floats do, those of negative ones the other way round.
    return ((bits if bits >= 0 else bits ^ _MAGNITUDE) << 64) | job_id


def _age(job: Job) -> tuple[float, int]:
    return job.arrival, job.job_id


def _line_up(line: deque[Job], job: Job) -> None:
    """Insert by arrival, from the end: jobs come in the order in which their predictions were ready, nearly that."""
    place = len(line)
    while place and _age(line[place - 1]) > _age(job):
        place -= 1
    line.insert(place, job)


def order_of(policy: Policy, waiting: Mapping[int, Job]) -> Ordering:
    """The structure that keeps `waiting` in the policy's order."""
    if isinstance(policy, KeyedPolicy):
        return KeyedOrder(waiting, policy.key)
    assert isinstance(policy, DynamicPolicy)  # the only other kind
    return GroupedOrder(waiting, policy)
