"""The event loop: arrivals and ends of requests drive the scheduler that serves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
        self._arrivals: list[float] = requests.arrival_s.tolist()
        self._outputs: list[float] = requests.output_tokens.tolist()
        self._prompts: list[float] = requests.prompt_tokens.tolist()
        self._predictions = make_predictions(requests, predictor)
        self._longest = int(max(self._outputs)) + 1
        self._tells_truth = arm.policy == ORACLE
        self._engine = make_engine(setup, self._prompts, self._outputs)
        self._budgeted = setup.tokens is not None
        self._starts = [0.0] * len(requests)
        self._ends = [0.0] * len(requests)
        self._submitted = self._ended = 0
        self._next_arrival: float = self._arrivals[0]

    def run(self) -> Timeline:
        """Go on until every request has ended."""
        count, engine, now = len(self._arrivals), self._engine, 0.0
        while self._ended < count:
            now = min(self._next_arrival, engine.next_event())
            changed = self._arrive(now) if self._next_arrival == now else self._advance(now)
            if changed:
                self._dispatch(now)
        promotions = self._scheduler.snapshot(now).promotions
        return Timeline(self._requests.arrival_s, np.array(self._starts), np.array(self._ends), promotions)

    def _arrive(self, now: float) -> bool:
        """Submit the next request. False if another one comes at the same moment: they are decided on together."""
        place = self._submitted
        truth = self._outputs[place] if self._tells_truth else None
        prompt = int(self._prompts[place])
        job = Job(place, now, prompt, self._longest, 0, self._predictions[place], expected_tokens=truth)
        self._scheduler.submit(job, now)
        self._submitted = place + 1
        self._next_arrival = self._arrivals[place + 1] if place + 1 < len(self._arrivals) else math.inf
        return self._next_arrival != now

    def _advance(self, now: float) -> bool:
        """Let the engine reach its next event. False if no slot came free, or another one does at the same moment."""
        done = self._engine.advance()
        if done is None:
            return False
        self._scheduler.finish(done, int(self._outputs[done]), now)
        self._ends[done] = now
        self._ended += 1
        return self._engine.next_event() != now

    def _dispatch(self, now: float) -> None:
        if self._budgeted:
            for place, tokens in self._engine.progress(now):
                self._scheduler.progress(place, tokens, now)
        dispatched = [job.job_id for job in self._scheduler.schedule(now).dispatch]
        if dispatched:
            for place in dispatched:
                self._starts[place] = now
            self._engine.start(dispatched, now)


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


def make_predictions(requests: RequestSet, predictor: str | None) -> list[LengthPrediction]:
    """One prediction a request; equal ones are one object."""
    if predictor is None:
        return [LengthPrediction(1.0, 1.0, "prior")] * len(requests)
    values = requests.predicted[predictor].tolist()
    known = {value: LengthPrediction(value, value) for value in set(values)}
    return [known[value] for value in values]
