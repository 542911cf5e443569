"""The rule against starvation in the code of the paper."""

from __future__ import annotations

import math

from ssjf_tools.simulate.events import Setup, Simulation
from ssjf_tools.simulate.policies import Arm
from ssjf_tools.simulate.workload import RequestSet

_LONGEST_WAIT_S = 100.0
_LONGEST_WAIT_IN_SERVICES = 10.0
# Low enough for every job to be overdue, so that all who wait are served in order of arrival.
_ALL_OVERDUE_S = 1e-3


class PaperSimulation(Simulation):
    """A run that decides first come, first served while the oldest waiting job starves.

    It starves when it has waited for more than 100 s, or ten times its own service time
    (James-QiuHaoran/LLM-serving-with-proxy-models, model-serving/sjf.py). The second half looks at true lengths, which
    no server knows. Such a decision is made with the scheduler's own bound on waiting, lowered for the moment.
    """

    def __init__(self, requests: RequestSet, arm: Arm, predictor: str | None, setup: Setup, seed: int = 0):
        super().__init__(requests, arm, predictor, setup, seed)
        prompts, outputs = requests.prompt_tokens.tolist(), requests.output_tokens.tolist()
        services = [setup.model.mean_service_s(*lengths, 1) for lengths in zip(prompts, outputs, strict=True)]
        self._most_s = [min(_LONGEST_WAIT_S, _LONGEST_WAIT_IN_SERVICES * service) for service in services]
        self._oldest = 0
        self._usual_bound_s = self._bound_s = arm.max_wait_s

    def _dispatch(self, now: float) -> bool:
        bound_s = _ALL_OVERDUE_S if self._oldest_starves(now) else self._usual_bound_s
        if bound_s != self._bound_s:
            self._bound_s = bound_s
            self._scheduler.set_limits(now, max_wait_s=bound_s)
        return super()._dispatch(now)

    def _oldest_starves(self, now: float) -> bool:
        while self._oldest < self._submitted and not math.isnan(self._starts[self._oldest]):
            self._oldest += 1
        return self._oldest < self._submitted and now - self._arrivals[self._oldest] > self._most_s[self._oldest]
