"""How long a prediction takes: one prompt at a time, one CPU thread, full length."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[np.int32], NDArray[np.int32]], object]
WARM_UP = 10
REPEATS = 200


def latency_ms(
    run: Run, tokens: int, vocabulary: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """`latency_p50_ms` and `latency_p99_ms` of `run` on rows of `tokens` random ids."""
    rng = np.random.default_rng(0)
    mask = np.ones((1, tokens), np.int32)
    taken = []
    for _ in range(WARM_UP + REPEATS):
        ids = rng.integers(0, vocabulary, (1, tokens), dtype=np.int32)
        start = clock()
        run(ids, mask)
        taken.append(clock() - start)
    p50, p99 = np.percentile(np.array(taken[WARM_UP:]) * 1e3, (50, 99))
    return {"latency_p50_ms": round(float(p50), 2), "latency_p99_ms": round(float(p99), 2)}
