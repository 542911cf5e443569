"""Many responses of `scheduler` into the one of `unary`: rows in order, sequences side by side. No Triton here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def merge_responses(responses: Iterable[Arrays], rows: int) -> dict[str, NDArray[Any]]:
    """One response of `rows` rows. Each of `responses` has a batch dimension of 1 and says its row in `batch_index`.

    Several sequences of a row stand side by side along the first dim after the batch; where rows differ in size, short
    ones are padded with zeros or empty texts. Raises ValueError when a row has no response.
    """
    parts: dict[str, list[list[NDArray[Any]]]] = {}
    for response in sorted(responses, key=_sequence_of):
        row = int(response["batch_index"].reshape(-1)[0])
        for name, value in response.items():
            parts.setdefault(name, [[] for _ in range(rows)])[row].append(value)
    if not parts or any(not pieces for rows_of_one in parts.values() for pieces in rows_of_one):
        raise ValueError(f"the scheduler did not answer all of {rows} rows")
    return {name: _stack(name, rows_of_one) for name, rows_of_one in parts.items()}


def _sequence_of(response: Arrays) -> int:
    return int(response["sequence_index"].reshape(-1)[0]) if "sequence_index" in response else 0


# Outputs that grow with the number of sequences; the others are facts of the row, the same in each of its responses.
_PER_SEQUENCE = frozenset({"text_output", "cum_log_probs", "output_log_probs"})


def _stack(name: str, rows: list[list[NDArray[Any]]]) -> NDArray[Any]:
    joined = [_join(pieces) if name in _PER_SEQUENCE else pieces[-1] for pieces in rows]
    shape = np.max([value.shape for value in joined], axis=0)
    return np.concatenate([_pad(value, shape) for value in joined])


def _join(pieces: list[NDArray[Any]]) -> NDArray[Any]:
    shape = np.max([piece.shape for piece in pieces], axis=0)
    shape[1] = 0
    return np.concatenate([_pad(piece, np.maximum(shape, piece.shape)) for piece in pieces], axis=1)


def _pad(value: NDArray[Any], shape: NDArray[np.int64]) -> NDArray[Any]:
    widths = [(0, 0)] + [(0, int(want) - have) for want, have in zip(shape[1:], value.shape[1:], strict=True)]
    return np.pad(value, widths, constant_values=b"" if value.dtype == np.object_ else 0)
