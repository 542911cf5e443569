"""What is known about the length of an answer before anyone looks at its prompt."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from ssjf.core.job import LengthPrediction

# Answers that the configured prior counts for until that many real ones have come.
_PRIOR_COUNT = 16
# Upper tail of the distribution whose mean is reported.
_TAIL_SHARE = 0.1
_QUANTILES = (0.1, 0.5, 0.9, 0.99)


class LengthPrior:
    """Output lengths of the last `window` answers: the fallback prediction, and the mean that scales the aging rate.

    Conditioned on a request's limits by clamping each remembered length, which is what the limit will do to the answer.
    Starts from `initial` tokens.
    """

    def __init__(self, initial: float, window: int):
        self._initial = initial
        self._lengths: deque[float] = deque(maxlen=window)
        self.seen = 0

    def observe(self, output_tokens: float) -> None:
        """Take one finished answer, tokens of one sequence."""
        self._lengths.append(output_tokens)
        self.seen += 1

    def mean(self) -> float:
        """Mean output length in tokens of the remembered answers, at least 1."""
        return max(1.0, float(self._known().mean()))

    def prediction(self, min_tokens: int = 1, max_tokens: int | None = None) -> LengthPrediction:
        """The clamped distribution of recent answers as a prediction. O(window log window), some 40 µs for 512."""
        lengths = np.sort(np.clip(self._known(), min_tokens, max_tokens))
        tail = max(1, round(len(lengths) * _TAIL_SHARE))
        return LengthPrediction(
            mean=float(lengths.mean()),
            tail_mean=float(lengths[-tail:].mean()),
            source="prior",
            quantiles=tuple((share, float(lengths[int(share * (len(lengths) - 1))])) for share in _QUANTILES),
        )

    def _known(self) -> NDArray[np.float64]:
        """The remembered lengths, with the configured prior in place of those that are missing."""
        missing = max(0, _PRIOR_COUNT - self.seen)
        return np.array([*self._lengths, *[self._initial] * missing])
