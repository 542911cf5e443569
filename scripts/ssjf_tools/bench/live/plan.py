"""Who is asked when: one plan a repeat, the same for every arm. Everything random comes from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssjf_tools.simulate.sources import Population, read_trace
from ssjf_tools.simulate.tables import Column
from ssjf_tools.simulate.workload import ArrivalProcess, arrival_times


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests of one repeat: places in the list of prompts [n], and arrivals in seconds [n] from the start.

    `arrival_s` None: a closed loop, in which each of a number of clients sends its next request when it has an answer.
    """

    prompts: NDArray[np.int64]
    arrival_s: Column | None

    def __len__(self) -> int:
        return len(self.prompts)


def draw_prompts(available: int, count: int, source: np.random.Generator) -> NDArray[np.int64]:
    """`count` places among `available` prompts: each equally often as far as that goes, in random order."""
    rounds = -(-count // available)
    places: NDArray[np.int64] = np.concatenate([source.permutation(available) for _ in range(rounds)])[:count]
    return places


def make_plan(available: int, count: int, process: ArrivalProcess | None, trace: Path | None, seed: int) -> Plan:
    """The plan of one repeat. `process` None: a closed loop. `trace`: the file whose arrivals kind `trace` replays.

    Raises InputError for a trace that cannot be read, ValueError for a process that lacks its rate or its trace.
    """
    source = np.random.default_rng(seed)
    prompts = draw_prompts(available, count, source)
    if process is None:
        return Plan(prompts, None)
    times = read_trace(trace, 0.0, 0).arrival_s if trace is not None else None
    clock = Population(np.zeros(1), np.zeros(1), {}, times)
    return Plan(prompts, _within(arrival_times(clock, process, count, source), process.rate))


def _within(times: Column, rate: float | None) -> Column:
    """The times stretched so that all come within count / rate seconds.

    A Poisson process that is known to have so many arrivals by then: each repeat has the load that was asked for, not
    one that chance put some per cent above or below, which at a load of 0.9 would decide about the waits.
    """
    if rate is None or times[-1] <= 0:
        return times
    return np.asarray(times * (len(times) / rate / times[-1]))
