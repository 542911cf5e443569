"""A plan's answers against ONNX Runtime's: is the ranking the same?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy_onnx.errors import PlanError, ProxyError
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor
from ssjf_tools.plan.reference import Reference
from ssjf_tools.proxy.metrics import kendall_tau_b


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan may differ by. lowest_tau: Kendall's tau_b of the mean lengths that both predict."""

    lowest_tau: float = 0.99
    largest_difference: float = 0.01  # of any probability of any prompt

    def __post_init__(self) -> None:
        if not -1 <= self.lowest_tau <= 1:
            raise ValueError(f"lowest tau is {self.lowest_tau}; expected from -1 to 1")
        if not 0 <= self.largest_difference <= 1:
            raise ValueError(f"largest difference is {self.largest_difference}; expected from 0 to 1")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Over `prompts` prompts; mean_difference in tokens, the largest of any prompt."""

    prompts: int
    tau: float
    probability_difference: float
    mean_difference: float

    def check(self, limits: Limits) -> None:
        """Raises PlanError when the plan must not be installed."""
        if not self.tau >= limits.lowest_tau:  # NaN, when all predictions are equal, is refused as well
            raise PlanError(
                f"the plan ranks {self.prompts} prompts otherwise than ONNX Runtime: "
                f"Kendall tau_b {self.tau:.4f}, expected at least {limits.lowest_tau}"
            )
        if not self.probability_difference <= limits.largest_difference:
            raise PlanError(
                f"a probability differs by {self.probability_difference:.4f} from ONNX Runtime's, "
                f"expected at most {limits.largest_difference}"
            )


def compare(predictor: Predictor, metadata: ProxyMetadata, reference: Reference) -> Comparison:
    """Ask for all prompts of `reference` at once, as a full dynamic batch would. Raises ProxyError."""
    (answer,) = predictor.predict([(reference.ids, reference.mask)])
    if isinstance(answer, ProxyError):
        raise answer
    if reference.expected.shape != answer.shape:
        raise PlanError(f"the plan answers {list(answer.shape)}, the reference has {list(reference.expected.shape)}")
    found, expected = _means(metadata, answer), _means(metadata, reference.expected)
    return Comparison(
        prompts=len(answer),
        tau=kendall_tau_b(found, expected),
        probability_difference=float(np.abs(answer - reference.expected).max()),
        mean_difference=float(np.abs(found - expected).max()),
    )


def _means(metadata: ProxyMetadata, distributions: NDArray[Any]) -> NDArray[np.float64]:
    return np.array([metadata.summarize(row).mean for row in distributions])
