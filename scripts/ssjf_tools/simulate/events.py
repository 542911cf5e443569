"""The event loop: arrivals and ends of requests drive the scheduler that serves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from ssjf.core.job import Job, LengthPrediction
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import CoreSettings
from ssjf_tools.simulate.engine import ChunkedEngine, Engine, FixedEngine, LockstepEngine
from ssjf_tools.simulate.pace import Clock, PacedEngine
from ssjf_tools.simulate.policies import ORACLE, Arm
from ssjf_tools.simulate.service import ServiceModel
from ssjf_tools.simulate.tables import Column
from ssjf_tools.simulate.workload import RequestSet

# Nothing is refused in a simulation: an open queue shows how long it would have grown.
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Setup:
    """The machine: batching mode, slots, service times, KV tokens (None: no limit). `together`: see FixedEngine.

    `prior_tokens`: the usual length that the scheduler knows at the start; None: what a fresh server assumes.
    `clock`: for a machine whose speed changes while it runs.
    """

    batching: str
    slots: int
    model: ServiceModel
    together: bool = False
    tokens: int | None = None
    prior_tokens: float | None = None
    clock: Clock | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened to each request of a set: seconds [n]. `promotions`: jobs started by the bound on waiting."""

    arrival_s: Column
    start_s: Column
    end_s: Column
    promotions: int

    @property
    def completion_s(self) -> Column:
        """Job completion times: arrival to last token."""
        return self.end_s - self.arrival_s

    @property
    def wait_s(self) -> Column:
        """Queue times."""
        return self.start_s - self.arrival_s


def core_settings(arm: Arm, setup: Setup, seed: int) -> CoreSettings:
    """The settings that a server with this policy and machine would run with."""
    return CoreSettings(
        policy=arm.policy,
        max_inflight=setup.slots,
        max_inflight_tokens=setup.tokens,
        batching=setup.batching,
        batch_size=setup.slots,
        max_wait_s=arm.max_wait_s,
        max_queue=_UNLIMITED,
        max_queue_bytes=2**53,
        random_seed=seed,
        prior_tokens=CoreSettings().prior_tokens if setup.prior_tokens is None else setup.prior_tokens,
    )


def simulate(requests: RequestSet, arm: Arm, predictor: str | None, setup: Setup, seed: int = 0) -> Timeline:
    """Run the requests to the end. `predictor` None: the policy needs none (the oracle is told the truth)."""
    return Simulation(requests, arm, predictor, setup, seed).run()


class Simulation:
    """One run: the next arrival or the next event of the engine, whichever is earlier, then a decision."""

    def __init__(self, requests: RequestSet, arm: Arm, predictor: str | None, setup: Setup, seed: int):
        self._scheduler = Scheduler(core_settings(arm, setup, seed))
        self._requests = requests
        # Lists: single elements of numpy arrays are slow to get.
        self._arrivals: list[float] = [*requests.arrival_s.tolist(), math.inf]
        self._output_tokens: list[int] = requests.output_tokens.astype(np.int64).tolist()
        self._jobs = make_jobs(requests, predictor, tells_truth=arm.policy == ORACLE)
        self._engine = make_engine(setup, requests.prompt_tokens.tolist(), requests.output_tokens.tolist())
        self._budgeted = setup.tokens is not None
        self._starts = [math.nan] * len(requests)
        self._ends = [0.0] * len(requests)
        self._submitted = 0

    def run(self) -> Timeline:
        """Go on until every request has ended. What comes at one moment from one side is decided on together."""
        arrivals, lengths, ends = self._arrivals, self._output_tokens, self._ends
        submit, finish, dispatch = self._scheduler.submit, self._scheduler.finish, self._dispatch
        advance, next_event, jobs = self._engine.advance, self._engine.next_event, self._jobs
        place, left, now, event = 0, len(self._requests), 0.0, math.inf
        while left:
            if arrivals[place] <= event:
                now = arrivals[place]
                submit(next(jobs), now)
                self._submitted = place = place + 1
                changed = arrivals[place] != now
            else:
                now, done = event, advance()
                event = next_event()
                changed = done is not None and event != now
                if done is not None:  # else only a prefill ended
                    finish(done, lengths[done], now)
                    ends[done] = now
                    left -= 1
            if changed and dispatch(now):
                event = next_event()
        promotions = self._scheduler.snapshot(now).promotions
        return Timeline(self._requests.arrival_s, np.array(self._starts), np.array(ends), promotions)

    def _dispatch(self, now: float) -> bool:
        """Start what the scheduler decides to. Whether the engine was touched."""
        if self._budgeted:
            for place, tokens in self._engine.progress(now):
                self._scheduler.progress(place, tokens, now)
        places = []
        for job in self._scheduler.schedule(now).dispatch:
            place = job.job_id
            places.append(place)
            self._starts[place] = now
        if places:
            self._engine.start(places, now)
        return self._budgeted or bool(places)


def make_engine(setup: Setup, prompts: Sequence[float], outputs: Sequence[float]) -> Engine:
    """The engine that the service model needs, on the machine's clock."""
    engine = _engine_at_full_speed(setup, prompts, outputs)
    return engine if setup.clock is None else PacedEngine(engine, setup.clock)


def _engine_at_full_speed(setup: Setup, prompts: Sequence[float], outputs: Sequence[float]) -> Engine:
    if setup.model.is_fixed or setup.together:
        return FixedEngine(setup.model, prompts, outputs, together=setup.together)
    if setup.model.chunk_tokens is not None:
        return ChunkedEngine(setup.model, prompts, outputs)
    return LockstepEngine(setup.model, prompts, outputs)


def make_jobs(requests: RequestSet, predictor: str | None, *, tells_truth: bool) -> Iterator[Job]:
    """The requests as the scheduler sees them, in order of arrival; their ids are their places in the set."""
    outputs = requests.output_tokens
    prompts = requests.prompt_tokens.astype(np.int64).tolist()
    truths: Iterable[float | None] = outputs.tolist() if tells_truth else repeat(None)
    columns = zip(requests.arrival_s.tolist(), prompts, make_predictions(requests, predictor), truths, strict=False)
    longest = int(outputs.max()) + 1
    for place, (arrival, prompt_tokens, prediction, truth) in enumerate(columns):
        yield Job(place, arrival, prompt_tokens, longest, 0, prediction, expected_tokens=truth)


def make_predictions(requests: RequestSet, predictor: str | None) -> list[LengthPrediction]:
    """One prediction a request; equal ones are one object."""
    if predictor is None:
        return [LengthPrediction(1.0, 1.0, "prior")] * len(requests)
    values = requests.predicted[predictor].tolist()
    known = {value: LengthPrediction(value, value) for value in set(values)}
    return [known[value] for value in values]
