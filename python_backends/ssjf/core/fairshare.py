"""Whose turn it is: tenants of one priority class share served tokens by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush

# Accounts of absent tenants that are remembered at most, besides one for each tenant that is present. Names come from
# clients: without a limit, a client that invents names would fill the memory.
_MAX_ABSENT = 1024


class FairShare:
    """Served work over weight for each tenant; the present tenant with the least goes next.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996) with tokens as in the Virtual Token Counter (Sheng et al.,
    OSDI 2024): charged with the prediction at dispatch, corrected at completion. A tenant that comes back starts at the
    present level of service, so that absence earns no credit, while debts are kept. Only tenants with waiting jobs are
    present.
    """

    def __init__(self, weights: Mapping[str, float]):
        self._weights = weights
        self._served: dict[str, float] = {}
        self._present: set[str] = set()
        self._level = 0.0
        # Turns are kept only while at least two tenants compete; entries that no longer match an account are dead.
        self._turns: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Accounts, absent tenants included."""
        return len(self._served)

    @property
    def present(self) -> int:
        """Tenants that have waiting jobs."""
        return len(self._present)

    def served(self, tenant: str) -> float:
        """Work over weight that the tenant was charged, in the units of `charge`."""
        return self._served.get(tenant, self._level)

    def enter(self, tenant: str) -> None:
        """The tenant has waiting jobs again."""
        self._present.add(tenant)
        self._set(tenant, max(self._served.get(tenant, 0.0), self._level))
        if len(self._present) == 2:
            self._rebuild_turns()
        self._forget_absent()

    def leave(self, tenant: str) -> None:
        """The tenant has no waiting jobs any more."""
        self._present.discard(tenant)
        if len(self._present) < 2:
            self._turns.clear()

    def charge(self, tenant: str, work: float) -> None:
        """One of the tenant's jobs goes to the engine, predicted to cost `work`."""
        served = self._served[tenant]
        self._level = max(self._level, served)
        self._set(tenant, served + work / self._weights.get(tenant, 1.0))

    def correct(self, tenant: str, difference: float) -> None:
        """A job cost `difference` more (or less) than was charged. Forgotten tenants stay forgotten."""
        served = self._served.get(tenant)
        if served is not None and difference:
            self._set(tenant, served + difference / self._weights.get(tenant, 1.0))

    def next(self) -> str:
        """The present tenant that was served least. At least one must be present."""
        if len(self._present) == 1:
            return next(iter(self._present))
        turns = self._turns
        while not self._is_live(turns[0]):
            heappop(turns)
        return turns[0][1]

    def in_turn(self) -> Iterator[str]:
        """All present tenants, the least served first."""
        return iter(sorted(self._present, key=lambda tenant: (self._served[tenant], tenant)))

    def _set(self, tenant: str, served: float) -> None:
        self._served[tenant] = served
        present = self._present
        if len(present) > 1 and tenant in present:
            heappush(self._turns, (served, tenant))
            if len(self._turns) > 4 * len(present) + 64:
                self._rebuild_turns()

    def _is_live(self, turn: tuple[float, str]) -> bool:
        served, tenant = turn
        return tenant in self._present and self._served[tenant] == served

    def _rebuild_turns(self) -> None:
        self._turns = [(self._served[tenant], tenant) for tenant in self._present]
        heapify(self._turns)

    def _forget_absent(self) -> None:
        if len(self._served) <= 2 * (len(self._present) + _MAX_ABSENT):
            return
        # Those with the smallest debts go: a tenant at or below the level loses nothing by being forgotten.
        absent = sorted((served, tenant) for tenant, served in self._served.items() if tenant not in self._present)
        for _, tenant in absent[: len(absent) - _MAX_ABSENT]:
            del self._served[tenant]
