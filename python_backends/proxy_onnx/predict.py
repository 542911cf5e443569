"""Requests in, length distributions or errors out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .batching import Batch, TokenRows, check_rows, make_batches, single_rows
from .errors import DistributionError, RequestError
from .metadata import ProxyMetadata


class Runtime(Protocol):
    """Whatever runs the model."""

    def run(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Distributions FP32 [rows, K]."""
        ...


Tensors = tuple[NDArray[Any], NDArray[Any]]  # input_ids, attention_mask
Answer = NDArray[np.float32] | RequestError | DistributionError


class Predictor:
    """Answers the requests of one call; a bad one among them gets its own error.

    `most_rows`: of one run, padded to a bucket; None: every row by itself, as long as it is.
    """

    def __init__(self, runtime: Runtime, metadata: ProxyMetadata, most_rows: int | None) -> None:
        self._runtime = runtime
        self._metadata = metadata
        self._most_rows = most_rows

    def predict(self, requests: Sequence[Tensors]) -> list[Answer]:
        """One answer per request, in order: distributions FP32 [rows, K], or why there are none.

        RequestError: its tensors break the contract. DistributionError: the model gave NaN or something else that is no
        distribution for one of its rows.
        """
        checked = [self._check(ids, mask) for ids, mask in requests]
        good = [rows for rows in checked if isinstance(rows, TokenRows)]
        results = iter(self._run(good))
        return [next(results) if isinstance(rows, TokenRows) else rows for rows in checked]

    def _check(self, ids: NDArray[Any], mask: NDArray[Any]) -> TokenRows | RequestError:
        try:
            return check_rows(ids, mask, self._metadata)
        except RequestError as error:
            return error

    def _run(self, requests: Sequence[TokenRows]) -> list[NDArray[np.float32] | DistributionError]:
        outputs = [np.empty((len(rows.lengths), self._metadata.bins), np.float32) for rows in requests]
        for batch in self._batches(requests):
            result = self._runtime.run(batch.ids, batch.mask)
            if result.shape != (len(batch.places), self._metadata.bins):
                raise DistributionError(
                    f"the model answered with shape {list(result.shape)}; "
                    f"expected [{len(batch.places)}, {self._metadata.bins}]: model.onnx and proxy.json do not fit"
                )
            for (number, row), distribution in zip(batch.places, result, strict=True):
                outputs[number][row] = distribution
        return [self._sound(output) for output in outputs]

    def _batches(self, requests: Sequence[TokenRows]) -> Iterator[Batch]:
        if self._most_rows is None:
            return single_rows(requests)
        return make_batches(requests, self._metadata, self._most_rows)

    def _sound(self, output: NDArray[np.float32]) -> NDArray[np.float32] | DistributionError:
        try:
            for row in output:
                self._metadata.summarize(row)
        except DistributionError as error:
            return error
        return output
