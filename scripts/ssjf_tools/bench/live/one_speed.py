"""What a measurement would have shown had the machine kept its speed from one policy's run to the next.

The gain of a policy grows steeply with the load, so runs that a shared machine served at different speeds differ by
more than their policies. The simulator, which agrees with each run at the speed of that run, takes the difference out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.table import Table

from ssjf_tools.bench.live.against import Machine, machine_of, simulated
from ssjf_tools.bench.live.asking import DIRECT
from ssjf_tools.bench.live.figures import BASELINE
from ssjf_tools.bench.live.record import Record, RecordedRun
from ssjf_tools.bench.live.report import interval, percent, seconds, wide_console
from ssjf_tools.simulate.metrics import mean_interval
from ssjf_tools.simulate.policies import ORACLE
from ssjf_tools.simulate.service import ServiceModel


@dataclass(frozen=True, slots=True)
class Gain:
    """One policy against fcfs: mean completion times in seconds, changes as fractions (-0.3 is 30 % lower).

    The intervals are 95 %, paired over the repeats; None for a single one. `share_of_oracle_gain` is None where the
    oracle was not measured or gained nothing. `live_repeats_s` and `one_speed_repeats_s` are the mean completion times
    that the two means are of, one a repeat.
    """

    policy: str
    live_mean_s: float
    one_speed_mean_s: float
    live_vs_fcfs: float
    ci95_live_vs_fcfs: tuple[float, float] | None
    one_speed_vs_fcfs: float
    ci95_one_speed_vs_fcfs: tuple[float, float] | None
    share_of_oracle_gain: float | None
    live_repeats_s: tuple[float, ...]
    one_speed_repeats_s: tuple[float, ...]


def gains(record: Record, model: ServiceModel) -> list[Gain]:
    """One for each policy, on the machine that fcfs had in the same repeat; none where fcfs was not measured.

    A run's live mean is multiplied by what the simulator takes for the same requests and policy on that machine, over
    what it takes on the run's own. A repeat without fcfs is left out.
    """
    own = {(one.policy, one.repeat): one for one in record.runs if one.policy != DIRECT}
    repeats = sorted(repeat for policy, repeat in own if policy == BASELINE)
    policies = [name for name in dict.fromkeys(policy for policy, _ in own) if all((name, at) in own for at in repeats)]
    if not repeats:
        return []
    live = {name: [_live_mean(own[name, at]) for at in repeats] for name in policies}
    held: dict[str, list[float]] = {name: [] for name in policies}
    for at in repeats:
        common = machine_of(own[BASELINE, at], record, model)
        for name in policies:
            held[name].append(_live_mean(own[name, at]) * _change_of_machine(own[name, at], record, model, common))
    return [_gain(name, live, held) for name in policies]


def show(found: Sequence[Gain]) -> None:
    """Tables on the terminal, the second only where there are several repeats; nothing where there is none to show."""
    if not found:
        return
    table = Table("policy", title=f"As measured, and at the speed that {BASELINE} had in each repeat")
    for heading in ("mean live", f"against {BASELINE}", "95 %", "at one speed", f"against {BASELINE}", "95 %"):
        table.add_column(heading, justify="right")
    table.add_column("share of oracle's gain", justify="right")
    for one in found:
        measured = (seconds(one.live_mean_s), percent(one.live_vs_fcfs), interval(one.ci95_live_vs_fcfs))
        held = (seconds(one.one_speed_mean_s), percent(one.one_speed_vs_fcfs), interval(one.ci95_one_speed_vs_fcfs))
        share = "–" if one.share_of_oracle_gain is None else f"{one.share_of_oracle_gain:.0%}"
        table.add_row(one.policy, *measured, *held, share)
    wide_console().print(table)
    if len(found[0].live_repeats_s) > 1:
        wide_console().print(_by_repeat(found))


def _by_repeat(found: Sequence[Gain]) -> Table:
    table = Table("repeat", title="Mean by repeat: live / at one speed")
    for one in found:
        table.add_column(one.policy, justify="right")
    columns = [zip(one.live_repeats_s, one.one_speed_repeats_s, strict=True) for one in found]
    for place, row in enumerate(zip(*columns, strict=True), start=1):
        table.add_row(str(place), *(f"{seconds(live)} / {seconds(held)}" for live, held in row))
    return table


def _change_of_machine(one: RecordedRun, record: Record, model: ServiceModel, other: Machine) -> float:
    """How many times longer the simulated requests take on the other machine than on the run's own."""
    own = machine_of(one, record, model)
    elsewhere, here = (simulated(one, record, model, machine).completion_s.mean() for machine in (other, own))
    return float(elsewhere / here)


def _live_mean(one: RecordedRun) -> float:
    return float((one.run.end_s - one.run.arrival_s)[one.run.ok].mean())


def _gain(name: str, live: dict[str, list[float]], held: dict[str, list[float]]) -> Gain:
    return Gain(
        name,
        fmean(live[name]),
        fmean(held[name]),
        *_change(live[name], live[BASELINE]),
        *_change(held[name], held[BASELINE]),
        _share(fmean(held[name]), fmean(held[BASELINE]), fmean(held[ORACLE]) if ORACLE in held else None),
        tuple(live[name]),
        tuple(held[name]),
    )


def _change(own: Sequence[float], baseline: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    return fmean(own) / fmean(baseline) - 1, mean_interval([a / b - 1 for a, b in zip(own, baseline, strict=True)])


def _share(own: float, baseline: float, best: float | None) -> float | None:
    return None if best is None or best >= baseline else (baseline - own) / (baseline - best)
