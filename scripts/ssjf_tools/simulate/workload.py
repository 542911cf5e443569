"""From a population to the requests of one run: who arrives when. Everything random comes from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ssjf_tools.simulate.service import ServiceModel
from ssjf_tools.simulate.sources import Population
from ssjf_tools.simulate.tables import Column

Arrivals = Literal["poisson", "gamma", "uniform", "burst", "trace", "per-second"]
ARRIVALS = get_args(Arrivals)


@dataclass(frozen=True, slots=True)
class ArrivalProcess:
    """How requests arrive. `rate`: requests a second (not for burst; for trace None keeps the trace's own times).

    poisson: exponential gaps. gamma: gaps of coefficient of variation `cv`. uniform: gaps between 0 and twice the mean.
    burst: all at once. trace: the population's own times, stretched to the rate. per-second: a Poisson number of
    requests at every full second, as the paper's code does.
    """

    kind: Arrivals
    rate: float | None = None
    cv: float = 1.0
    time_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class RequestSet:
    """The requests of one run in order of arrival; all columns [n], tokens and seconds."""

    arrival_s: Column
    output_tokens: Column
    prompt_tokens: Column
    predicted: dict[str, Column]

    def __len__(self) -> int:
        return len(self.arrival_s)


def rate_for_load(population: Population, model: ServiceModel, slots: int, load: float) -> float:
    """Requests a second that keep `slots` busy for a share `load` of the time."""
    mean_s = model.mean_service_s(population.prompt_tokens.mean(), population.output_tokens.mean(), slots)
    return float(load * slots / mean_s)


def draw(population: Population, process: ArrivalProcess, count: int, seed: int) -> RequestSet:
    """`count` requests: a replayed run in its order (repeated if it is shorter), else drawn with replacement."""
    source = np.random.default_rng(seed)
    size = len(population)
    chosen = np.arange(count) % size if population.ordered else source.integers(0, size, count)
    return RequestSet(
        arrival_s=arrival_times(population, process, count, source),
        output_tokens=population.output_tokens[chosen],
        prompt_tokens=population.prompt_tokens[chosen],
        predicted={name: values[chosen] for name, values in population.predicted.items()},
    )


def arrival_times(population: Population, process: ArrivalProcess, count: int, source: np.random.Generator) -> Column:
    """Ascending times in seconds, [count]."""
    if process.kind == "burst":
        return np.zeros(count)
    if process.kind == "trace":
        return trace_times(population, process, count)
    if process.rate is None:
        raise ValueError(f"{process.kind} arrivals need a rate or a load")
    mean = 1.0 / process.rate
    if process.kind == "per-second":
        return np.sort(_per_second(process.rate, count, source))
    if process.kind == "poisson":
        gaps = source.exponential(mean, count)
    elif process.kind == "uniform":
        gaps = source.uniform(0.0, 2.0 * mean, count)
    else:
        shape = process.cv**-2
        gaps = source.gamma(shape, mean / shape, count)
    return np.cumsum(gaps)


def trace_times(population: Population, process: ArrivalProcess, count: int) -> Column:
    """The trace's times, repeated end to end if it is too short; stretched to the rate if there is one."""
    times = population.arrival_s
    if times is None:
        raise ValueError("trace arrivals need a file with arrival times")
    period = times[-1] + (times[-1] / max(1, len(times) - 1))
    rounds, places = np.divmod(np.arange(count), len(times))
    repeated = times[places] + rounds * period
    if process.rate is not None and repeated[-1] > 0:
        return np.asarray(repeated * (count / process.rate / repeated[-1]))
    return np.asarray(repeated * process.time_scale)


def _per_second(rate: float, count: int, source: np.random.Generator) -> Column:
    times = np.zeros(0)
    while len(times) < count:
        seconds = np.arange(int(count / rate) + 1) + (times[-1] + 1 if len(times) else 0)
        times = np.append(times, np.repeat(seconds, source.poisson(rate, len(seconds))))
    return times[:count]
