"""Whose turn it is: tenants of one priority class share served tokens by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush

# Accounts of absent tenants that are remembered at most, besides one for each tenant that is present. Names come from
# clients: without a limit, a client that invents names would fill the memory.
_MAX_ABSENT = 1024


class _Account:
    """One tenant's: work over weight that it was charged."""

    __slots__ = ("served", "tenant", "weight")

    def __init__(self, tenant: str, weight: float, served: float):
        self.tenant = tenant
        self.weight = weight
        self.served = served


class FairShare:
    """Served work over weight for each tenant; the present tenant with the least goes next.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996) with tokens as in the Virtual Token Counter (Sheng et al.,
    OSDI 2024): charged with the prediction at dispatch, corrected at completion. A tenant that comes back starts at the
    present level of service, so that absence earns no credit, while debts are kept. Only tenants with waiting jobs are
    present.
    """

    def __init__(self, weights: Mapping[str, float]):
        self._weights = weights
        self._accounts: dict[str, _Account] = {}
        self._present: dict[str, _Account] = {}
        self._level = 0.0
        # Turns are kept only while at least two tenants compete; entries that no longer match an account are dead.
        self._turns: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Accounts, absent tenants included."""
        return len(self._accounts)

    @property
    def present(self) -> int:
        """Tenants that have waiting jobs."""
        return len(self._present)

    def served(self, tenant: str) -> float:
        """Work over weight that the tenant was charged, in the units of `charge`."""
        account = self._accounts.get(tenant)
        return self._level if account is None else account.served

    def enter(self, tenant: str) -> None:
        """The tenant has waiting jobs again."""
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _Account(tenant, self._weights.get(tenant, 1.0), self._level)
        elif account.served < self._level:
            account.served = self._level
        self._present[tenant] = account
        if len(self._present) > 1:
            self._line_up(account)
        if len(self._accounts) > 2 * (len(self._present) + _MAX_ABSENT):
            self._forget_absent()

    def leave(self, tenant: str) -> None:
        """The tenant has no waiting jobs any more."""
        del self._present[tenant]
        if len(self._present) < 2:
            self._turns.clear()

    def charge(self, tenant: str, work: float) -> None:
        """One of the tenant's jobs goes to the engine, predicted to cost `work`."""
        account = self._accounts[tenant]
        self._level = max(self._level, account.served)
        account.served += work / account.weight
        if len(self._present) > 1:
            self._line_up(account)

    def correct(self, tenant: str, difference: float) -> None:
        """A job cost `difference` more (or less) than was charged. Forgotten tenants stay forgotten."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.served += difference / account.weight
            if len(self._present) > 1:
                self._line_up(account)

    def next(self) -> str:
        """The present tenant that was served least. At least one must be present."""
        present, turns = self._present, self._turns
        if len(present) == 1:
            return next(iter(present))
        while not self._is_live(turns[0]):
            heappop(turns)
        return turns[0][1]

    def in_turn(self) -> Iterator[str]:
        """All present tenants, the least served first."""
        return iter(sorted(self._present, key=lambda tenant: (self._present[tenant].served, tenant)))

    def _line_up(self, account: _Account) -> None:
        """The account has changed while at least two tenants compete."""
        if account.tenant not in self._present:
            return
        # There are none when the second competitor has just come.
        if 0 < len(self._turns) <= 4 * len(self._present) + 64:
            heappush(self._turns, (account.served, account.tenant))
        else:
            self._turns = [(present.served, tenant) for tenant, present in self._present.items()]
            heapify(self._turns)

    def _is_live(self, turn: tuple[float, str]) -> bool:
        served, tenant = turn
        account = self._present.get(tenant)
        return account is not None and account.served == served

    def _forget_absent(self) -> None:
        # Those with the smallest debts go: a tenant at or below the level loses nothing by being forgotten.
        debts = ((account.served, tenant) for tenant, account in self._accounts.items() if tenant not in self._present)
        absent = sorted(debts)
        for _, tenant in absent[: len(absent) - _MAX_ABSENT]:
            del self._accounts[tenant]
