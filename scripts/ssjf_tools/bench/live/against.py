"""A measurement against the simulator: the same requests at the same times, live and simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from rich.table import Table

from ssjf_tools.bench.live.asking import DIRECT, Run
from ssjf_tools.bench.live.pace import clock_of
from ssjf_tools.bench.live.record import Record, RecordedRun
from ssjf_tools.bench.live.report import percent, seconds, wide_console
from ssjf_tools.simulate.events import Setup, Timeline, simulate
from ssjf_tools.simulate.pace import Clock
from ssjf_tools.simulate.policies import Arm
from ssjf_tools.simulate.service import ServiceModel
from ssjf_tools.simulate.workload import RequestSet

# What the simulator is to agree within.
TOLERANCE = 0.10
_PREDICTOR = "server"
_SPEED_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Agreement:
    """One policy, live and simulated: completion times in seconds, means over the repeats.

    `slowness`: with own speed, the least and the most that any window of its runs took of what the calibration says.
    """

    policy: str
    live_mean_s: float
    simulated_mean_s: float
    live_p90_s: float
    simulated_p90_s: float
    slowness: tuple[float, float] | None = None

    @property
    def mean_off(self) -> float:
        """How far the simulated mean is off, as a fraction of the live one."""
        return self.simulated_mean_s / self.live_mean_s - 1

    @property
    def p90_off(self) -> float:
        return self.simulated_p90_s / self.live_p90_s - 1

    @property
    def holds(self) -> bool:
        """Whether both are within the tolerance."""
        return abs(self.mean_off) <= TOLERANCE and abs(self.p90_off) <= TOLERANCE


def agreements(record: Record, model: ServiceModel, own_speed: bool = False) -> list[Agreement]:
    """One for each policy of the measurement; the engine asked directly has no queue to simulate.

    `own_speed`: each run is simulated on the machine as it was then. How its speed went up and down is read off the
    pace of decoding, window by window; then all times are stretched until simulated requests spend on average as long
    in the engine as the live ones did. What is left to agree is the waiting. Raises ValueError when the measurement has
    no policy.
    """
    policies = [name for name in dict.fromkeys(run.policy for run in record.runs) if name != DIRECT]
    if not policies:
        raise ValueError("the measurement has no policy to simulate, only the engine asked directly")
    by_policy = ([run for run in record.runs if run.policy == name] for name in policies)
    return [_agreement(runs, record, model, own_speed) for runs in by_policy]


def show(found: Sequence[Agreement], own_speed: bool = False) -> None:
    """A table on the terminal."""
    speed = ", at the speed that the machine had in each run" if own_speed else ""
    table = Table("policy", title=f"Simulator against reality: completion times in seconds{speed}")
    for heading in ("mean live", "simulated", "off", "p90 live", "simulated", "off", f"within {TOLERANCE:.0%}"):
        table.add_column(heading, justify="right")
    if own_speed:
        table.add_column("a step took, of calibrated", justify="right")
    for one in found:
        means = (seconds(one.live_mean_s), seconds(one.simulated_mean_s), percent(one.mean_off))
        tails = (seconds(one.live_p90_s), seconds(one.simulated_p90_s), percent(one.p90_off))
        slowness = () if one.slowness is None else ("{:.0%} to {:.0%}".format(*one.slowness),)
        table.add_row(one.policy, *means, *tails, "yes" if one.holds else "no", *slowness)
    wide_console().print(table)


def request_set(run: Run) -> RequestSet:
    """The answered requests in order of arrival, with the predictions that the server made."""
    places = np.flatnonzero(run.ok)
    places = places[np.argsort(run.arrival_s[places], kind="stable")]
    return RequestSet(
        run.arrival_s[places],
        run.output_tokens[places],
        run.prompt_tokens[places],
        {_PREDICTOR: run.predicted_tokens[places]},
    )


def stretched(model: ServiceModel, factor: float) -> ServiceModel:
    """A machine that takes `factor` times as long for everything."""
    steps = tuple((size, seconds * factor) for size, seconds in model.steps)
    return replace(model, base_s=model.base_s * factor, prefill_s=model.prefill_s * factor, steps=steps)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as it was during one run: its clock, and a factor on all times of the calibration."""

    clock: Clock
    factor: float

    @property
    def slowness(self) -> tuple[float, float]:
        """The least and the most of the calibrated time that a step took in any window."""
        return min(self.clock.factors) * self.factor, max(self.clock.factors) * self.factor


def machine_of(one: RecordedRun, record: Record, model: ServiceModel) -> Machine:
    """See agreements. How many run at once depends on the speed, so it is found in some rounds."""
    live_s = float(np.nanmean(one.run.end_s - one.run.arrival_s - one.run.queue_s))
    machine = Machine(clock_of(one.run, model), 1.0)
    for _ in range(_SPEED_ROUNDS):
        timeline = simulated(one, record, model, machine)
        factor = machine.factor * live_s / float((timeline.completion_s - timeline.wait_s).mean())
        machine = replace(machine, factor=factor)
    return machine


def simulated(one: RecordedRun, record: Record, model: ServiceModel, machine: Machine | None = None) -> Timeline:
    """A run's requests under its policy, on this machine; None: exactly the calibrated one."""
    clock = None if machine is None else machine.clock
    model = model if machine is None else stretched(model, machine.factor)
    setup = Setup("continuous", record.max_inflight, model, prior_tokens=one.prior_tokens, clock=clock)
    arm = Arm(one.policy, one.policy, record.max_wait_s)
    return simulate(request_set(one.run), arm, _PREDICTOR, setup, one.repeat)


def _agreement(runs: Sequence[RecordedRun], record: Record, model: ServiceModel, own_speed: bool) -> Agreement:
    machines = [machine_of(one, record, model) if own_speed else None for one in runs]
    pairs = zip(runs, machines, strict=True)
    times = [simulated(one, record, model, machine).completion_s for one, machine in pairs]
    live = [(one.run.end_s - one.run.arrival_s)[one.run.ok] for one in runs]
    extremes = [share for machine in machines if machine is not None for share in machine.slowness]
    return Agreement(
        runs[0].policy,
        fmean(float(each.mean()) for each in live),
        fmean(float(each.mean()) for each in times),
        fmean(float(np.percentile(each, 90)) for each in live),
        fmean(float(np.percentile(each, 90)) for each in times),
        (min(extremes), max(extremes)) if extremes else None,
    )
