"""A request as the scheduler sees it, and what is predicted about its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# Binary digits of a predicted length; what is longer counts as the longest.
MOST_DIGITS = 32

PredictionSource = Literal["proxy", "prior", "client"]


@dataclass(frozen=True, slots=True)
class LengthPrediction:
    """Predicted output length in tokens of one sequence, before it is clamped to a request's limits.

    `mean`: expectation of the predicted distribution. `tail_mean`: mean of its upper tail (CVaR), for `sept-tail`.
    `quantiles`: pairs of probability and tokens, ascending, possibly none. `source`: the proxy model, the running prior
    (no proxy answer), or the client.
    """

    mean: float
    tail_mean: float
    source: PredictionSource = "proxy"
    quantiles: tuple[tuple[float, float], ...] = ()


@dataclass(slots=True, eq=False)
class Job:
    """One row of one request on its way through the scheduler. Owned by the scheduler from submit to finish.

    `job_id`: unique, increasing in order of arrival; breaks ties. `arrival` and deadlines: seconds of the caller's
    clock; the job must have started before `start_deadline`. `end_deadline`: what is not finished by then is thrown
    away, so a job that cannot be finished in time should not start either; `submit` derives the start deadline from it.
    `sequences`: beams × returned sequences. `priority_class`: 0 is the most urgent. `expected_tokens`: the client's own
    hint, used by `sjf-oracle` alone. `size_bytes`: what the waiting request holds in memory.

    The scheduler may make `start_deadline` earlier; `given_start_deadline` stays.

    `predicted_tokens` and `tail_tokens` are the prediction clamped to [`min_tokens`, `max_tokens`]: the only place
    where that happens. `predicted_work` is that of all sequences, without the prefill; `digits` the length's binary
    digits, its order of magnitude.
    """

    job_id: int
    arrival: float
    prompt_tokens: int
    max_tokens: int
    min_tokens: int
    prediction: LengthPrediction
    sequences: int = 1
    priority_class: int = 0
    tenant: str = ""
    start_deadline: float | None = None
    end_deadline: float | None = None
    expected_tokens: float | None = None
    size_bytes: int = 0
    given_start_deadline: float | None = field(init=False)
    predicted_tokens: float = field(init=False)
    predicted_work: float = field(init=False)
    digits: int = field(init=False)
    kv_tokens: int = field(init=False)
    requeued: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.given_start_deadline = self.start_deadline
        self.expect(self.prediction)

    def expect(self, prediction: LengthPrediction) -> None:
        """Take on a prediction. Of a job that waits, only its queue may do so: the job's place depends on it."""
        self.prediction = prediction
        predicted = self.clamp(prediction.mean)
        self.predicted_tokens = predicted
        self.predicted_work = predicted * self.sequences
        self.digits = min(int(predicted).bit_length(), MOST_DIGITS)
        self.kv_tokens = self.prompt_tokens + self.sequences * int(predicted + 0.5)

    @property
    def tail_tokens(self) -> float:
        """The mean of the predicted distribution's upper tail, clamped."""
        return self.clamp(self.prediction.tail_mean)

    def clamp(self, tokens: float) -> float:
        """`tokens` within the request's limits; a prediction that is not a number counts as the longest answer."""
        if not tokens < self.max_tokens:  # also true for NaN
            return float(self.max_tokens)
        return tokens if tokens > self.min_tokens else float(self.min_tokens)

    def work(self, output_tokens: float, prefill_weight: float) -> float:
        """Cost in output-token units of answering with `output_tokens` a sequence: all sequences, plus the prefill."""
        return output_tokens * self.sequences + prefill_weight * self.prompt_tokens
