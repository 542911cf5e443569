"""All arms over all repeats on one server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from ssjf.core.policies.registry import POLICY_NAMES
from ssjf_client import AsyncClient
from ssjf_tools.bench.live.asking import DIRECT, Asker, Question, Run, run_plan
from ssjf_tools.bench.live.figures import (
    BASELINE,
    Figures,
    Objective,
    alone_seconds,
    beyond_guarantee,
    block_interval,
    compare,
    run_figures,
)
from ssjf_tools.bench.live.first_pass import Capacity, FirstPass, first_pass
from ssjf_tools.bench.live.occupancy import full_tokens_per_s, realised_load
from ssjf_tools.bench.live.plan import Plan, draw_prompts, make_plan
from ssjf_tools.bench.live.prompts import Prompt
from ssjf_tools.bench.live.target import Target
from ssjf_tools.simulate.workload import ArrivalProcess

ARMS = (*POLICY_NAMES, DIRECT)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of the benchmark. `process` None: a closed loop of `concurrency` clients.

    `load`: arrivals as a share of the capacity that the first pass finds; None: the process has its own rate.
    """

    arms: tuple[str, ...]
    requests: int
    repeats: int
    seed: int
    max_tokens: int
    greedy: bool
    process: ArrivalProcess | None
    load: float | None
    concurrency: int
    trace: Path | None
    objective: Objective


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One arm in one repeat.

    `effective_policy` and `tau` are what the scheduler said at the end, `prior_tokens` the usual length that it had
    learned before the start; None for the engine asked directly.
    """

    arm: str
    repeat: int
    run: Run
    effective_policy: str | None
    tau: float | None
    prior_tokens: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was measured. `plans`, `rates` (requests a second): one a repeat; `prompts`: those that were asked;
    `refused`: how many more.
    """

    settings: Settings
    target: Target
    prompts: list[Prompt]
    first: FirstPass
    rates: list[float | None]
    plans: list[Plan]
    runs: list[ArmRun]
    refused: int = 0

    def of_arm(self, arm: str) -> list[ArmRun]:
        """The arm's runs in order of the repeats."""
        return sorted((run for run in self.runs if run.arm == arm), key=lambda run: run.repeat)

    def alone_s(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Seconds that each prompt takes without waiting, [prompts]."""
        everything = [(one.run, self.plans[one.repeat].prompts) for one in self.runs]
        return alone_seconds([run for run, _ in everything], [which for _, which in everything], len(self.prompts))

    def rows(self) -> list[dict[str, object]]:
        """One row an arm; see figures.compare."""
        return rows_of([self])

    def figures(self) -> dict[str, list[Figures]]:
        """The figures of each arm's runs, in order of the repeats."""
        alone, truth = self.alone_s(), np.array(self.first.truth, dtype=np.float64)
        slots = self.target.max_inflight
        baseline = {one.repeat: one.run for one in self.of_arm(BASELINE)}
        figures: dict[str, list[Figures]] = {arm: [] for arm in self.settings.arms}
        for one in sorted(self.runs, key=lambda run: run.repeat):
            which = self.plans[one.repeat].prompts
            own = run_figures(one.run, alone[which], self.settings.objective)
            own["kept_lengths"] = float((one.run.output_tokens == truth[which])[one.run.ok].mean())
            own["realised_load"] = realised_load(one.run, slots) if self.settings.process is not None else None
            if one.repeat in baseline and one.arm != DIRECT:
                bound = self.target.max_wait_s
                own["beyond_guarantee"] = float(beyond_guarantee(one.run, baseline[one.repeat], bound))
            figures[one.arm].append(own)
        return figures


def rows_of(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """One row an arm, over all repeats of all measurements, which have the same arms; see figures.compare."""
    each = [outcome.figures() for outcome in outcomes]
    rows = compare({arm: [one for figures in each for one in figures[arm]] for arm in outcomes[0].settings.arms})
    same = [one.run for outcome in outcomes for one in outcome.of_arm(BASELINE)]
    for row in rows:
        runs = [one.run for outcome in outcomes for one in outcome.of_arm(str(row["policy"]))]
        row["ci95_blocks_mean_jct_vs_fcfs"] = block_interval(runs, same) if same else None
    return rows


def chosen_prompts(prompts: Sequence[Prompt], settings: Settings) -> list[Prompt]:
    """Those that the repeats will use: all, or a random part of them where there are more than requests."""
    if len(prompts) <= settings.requests:
        return list(prompts)
    places = draw_prompts(len(prompts), settings.requests, np.random.default_rng(settings.seed))
    return [prompts[place] for place in sorted(places.tolist())]


async def measure(
    target: Target,
    prompts: Sequence[Prompt],
    settings: Settings,
    progress: Callable[[str, int, int], None],
    keep: Callable[[Outcome], None],
) -> Outcome:
    """The first pass, then every arm in every repeat. `progress`: what is running, requests done and in total.

    `keep` gets what is there after each repeat (a run can take hours, and may be cut off); nothing is asked meanwhile.
    Raises RuntimeError when requests fail that must not, InputError and ValueError for a wrong trace or process, or for
    the arm `direct` on a server without the engine for it.
    """
    chosen = chosen_prompts(prompts, settings)
    asker = Asker(target.url, settings.greedy)
    count = _Counter(progress, len(chosen) + settings.requests * settings.repeats * len(settings.arms))
    if DIRECT in settings.arms:
        await asker.check_direct()
    async with AsyncClient(target.url) as control:
        await control.set_policy("fcfs", target.token)
        questions = await asker.prepare(chosen, settings.max_tokens)
        first = await first_pass(asker, questions, target.max_inflight, settings.seed, count.step)
        kept = [chosen[place] for place in first.answered]
        refused, capacity = len(chosen) - len(kept), first.capacity.requests_per_s
        course = _Course(target, settings, asker, control, [questions[place] for place in first.answered], first.truth)
        runs: list[ArmRun] = []
        plans: list[Plan] = []
        rates: list[float | None] = []
        for repeat in range(settings.repeats):
            process, rate = _paced(settings, capacity)
            plan = make_plan(len(kept), settings.requests, process, settings.trace, settings.seed + repeat)
            arms = [await course.run(arm, repeat, plan, count) for arm in _rotated(settings.arms, repeat)]
            plans, rates, runs = [*plans, plan], [*rates, rate], [*runs, *arms]
            outcome = Outcome(replace(settings, repeats=repeat + 1), target, kept, first, rates, plans, runs, refused)
            keep(outcome)
            capacity = _capacity_now([one.run for one in arms], target.max_inflight, first.capacity) or capacity
    await asker.close()
    return outcome


@dataclass(frozen=True, slots=True)
class _Course:
    """Runs an arm: switches to it, asks, and notes what the scheduler says."""

    target: Target
    settings: Settings
    asker: Asker
    control: AsyncClient
    questions: list[Question]
    truth: list[int]

    async def run(self, arm: str, repeat: int, plan: Plan, count: _Counter) -> ArmRun:
        count.what = f"repeat {repeat + 1}, {arm}"
        if arm != DIRECT:
            await self.control.set_policy(arm, self.target.token)
        before = await self.control.status(self.target.token)
        run = await run_plan(self.asker, arm, self.questions, plan, self.truth, self.settings.concurrency, count.step)
        if arm == DIRECT:
            return ArmRun(arm, repeat, run, None, None, None)
        after = await self.control.status(self.target.token)
        learned = before.extra.get("prior_mean_tokens")
        return ArmRun(arm, repeat, run, after.effective_policy, after.tau, learned)


def _paced(settings: Settings, capacity: float) -> tuple[ArrivalProcess | None, float | None]:
    """The process with the rate that the load asks for."""
    process = settings.process
    if process is None or settings.load is None:
        return process, None if process is None else process.rate
    rate = settings.load * capacity
    return replace(process, rate=rate), rate


def _capacity_now(runs: Sequence[Run], slots: int, first: Capacity) -> float | None:
    """Requests a second that the machine can do, from how fast it was in these runs; None if it never was full.

    A first pass of minutes can meet a machine that others use; a gain at a load of 0.85 is not that at 0.9.
    """
    speeds = [speed for run in runs if (speed := full_tokens_per_s(run, slots)) is not None]
    return fmean(speeds) / first.mean_tokens if speeds else None


def _rotated(arms: Sequence[str], repeat: int) -> list[str]:
    """Every repeat begins with another arm, so that a drift of the machine does not favour one."""
    at = repeat % len(arms)
    return [*arms[at:], *arms[:at]]


class _Counter:
    """Requests done so far."""

    def __init__(self, progress: Callable[[str, int, int], None], total: int):
        self.what = "first pass"
        self._progress, self._done, self._total = progress, 0, total

    def step(self) -> None:
        self._done += 1
        self._progress(self.what, self._done, self._total)
