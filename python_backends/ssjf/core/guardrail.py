"""Watches whether the predictions are worth ordering by."""

from __future__ import annotations

from collections import deque

import numpy as np

from ssjf.core.correlation import kendall_tau_b
from ssjf.core.settings import CoreSettings


class Guardrail:
    """Predicted against actual lengths of the last answers; falls when the predictions are worse than useless.

    It falls when Kendall's τ_b is below `guardrail_fall_tau` or the bias (sum predicted over sum actual) is off by more
    than a factor `guardrail_max_bias`. It recovers when τ_b is at least `guardrail_recover_tau` and the bias is half
    way back within its limit (on a log scale). The gap is hysteresis: τ_b over 256 answers has a standard error of
    0.04, and a useless proxy must not keep switching the order. Predictions go on being made and compared while
    it has fallen, so it recovers by itself. A τ_b that does not exist (all predictions or all answers equal) is no
    evidence: nothing changes.
    """

    def __init__(self, settings: CoreSettings):
        self._settings = settings
        self._lengths: deque[float] = deque(maxlen=2 * settings.guardrail_window)  # predicted, actual, predicted, …
        self._seen = 0
        self.fallen = False
        # How often it fell or recovered; the state after the last computation.
        self.changes = 0
        self.tau: float | None = None
        self.bias: float | None = None

    def observe(self, predicted: float, actual: float) -> bool:
        """Take one finished answer, lengths in tokens of one sequence. True if `fallen` changed."""
        self._lengths.extend((predicted, actual))
        self._seen = seen = self._seen + 1
        if seen % self._settings.guardrail_every or seen < self._settings.guardrail_min_answers:
            return False
        return self._judge()

    def _judge(self) -> bool:
        predicted, actual = np.fromiter(self._lengths, np.float64).reshape(-1, 2).T
        self.tau = kendall_tau_b(predicted, actual)
        self.bias = float(predicted.sum() / max(1.0, actual.sum()))
        if not self._settings.guardrail:
            return False
        fallen = not self._is_good() if self.fallen else self._is_bad()
        changed = fallen != self.fallen
        self.fallen = fallen
        self.changes += changed
        return changed

    def _is_bad(self) -> bool:
        tau_bad = self.tau is not None and self.tau < self._settings.guardrail_fall_tau
        return tau_bad or not self._bias_within(self._settings.guardrail_max_bias)

    def _is_good(self) -> bool:
        tau_good = self.tau is not None and self.tau >= self._settings.guardrail_recover_tau
        return tau_good and self._bias_within(self._settings.guardrail_max_bias**0.5)

    def _bias_within(self, factor: float) -> bool:
        assert self.bias is not None  # set by _judge
        return 1 / factor <= self.bias <= factor
