"""From requests to padded batches, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RequestError
from .metadata import ProxyMetadata

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The tensors of one request, valid: ids and mask INT32 [rows, width]. `lengths`: tokens of each row."""

    ids: Ids
    mask: Ids
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one length, padded where need be; `places` says for each row which request and which row it was."""

    ids: Ids
    mask: Ids
    places: tuple[tuple[int, int], ...]


def check_rows(ids: NDArray[Any], mask: NDArray[Any], metadata: ProxyMetadata) -> TokenRows:
    """Validate one request's tensors. Raises RequestError, which names the tensor, the value and the limit."""
    for name, tensor in (("input_ids", ids), ("attention_mask", mask)):
        if tensor.dtype != np.int32:
            raise RequestError(f"{name} has dtype {tensor.dtype}; expected int32")
        if tensor.ndim != 2 or 0 in tensor.shape:
            raise RequestError(f"{name} has shape {list(tensor.shape)}; expected [rows, tokens], both at least 1")
    if ids.shape != mask.shape:
        raise RequestError(
            f"attention_mask has shape {list(mask.shape)}; expected that of input_ids, {list(ids.shape)}"
        )
    if ids.min() < 0 or ids.max() >= metadata.vocab_size:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise RequestError(f"input_ids has id {wrong}; expected from 0 to {metadata.vocab_size - 1}")
    lengths = _checked_lengths(mask)
    if max(lengths) > metadata.max_length:
        raise RequestError(f"input_ids has {max(lengths)} tokens; expected at most {metadata.max_length}")
    return TokenRows(ids, mask, lengths)


def make_batches(requests: Sequence[TokenRows], metadata: ProxyMetadata, most_rows: int) -> Iterator[Batch]:
    """All rows of all requests, grouped by the bucket that each row needs, at most `most_rows` in a batch.

    A batch is padded to its bucket, not to the longest row of the call: ten short prompts do not pay for a long one.
    """
    by_bucket: dict[int, list[tuple[int, int]]] = {}
    for number, request in enumerate(requests):
        for row, length in enumerate(request.lengths):
            by_bucket.setdefault(metadata.bucket(length), []).append((number, row))
    for bucket, places in sorted(by_bucket.items()):
        for start in range(0, len(places), most_rows):
            yield _batch(requests, bucket, tuple(places[start : start + most_rows]))


def single_rows(requests: Sequence[TokenRows]) -> Iterator[Batch]:
    """Each row of each request by itself, without padding: on a CPU a batch costs what its rows cost one by one."""
    for number, request in enumerate(requests):
        for row, length in enumerate(request.lengths):
            at = slice(row, row + 1), slice(length)
            yield Batch(request.ids[at], request.mask[at], ((number, row),))


def _batch(requests: Sequence[TokenRows], bucket: int, places: tuple[tuple[int, int], ...]) -> Batch:
    ids = np.zeros((len(places), bucket), dtype=np.int32)
    mask = np.zeros_like(ids)
    for index, (number, row) in enumerate(places):
        length = requests[number].lengths[row]
        ids[index, :length] = requests[number].ids[row, :length]
        mask[index, :length] = requests[number].mask[row, :length]
    return Batch(ids, mask, places)


def _checked_lengths(mask: Ids) -> tuple[int, ...]:
    """Tokens of each row. Raises RequestError for a mask that is not ones and then zeros."""
    if not np.isin(mask, (0, 1)).all():
        raise RequestError("attention_mask has a value other than 0 and 1")
    lengths = tuple(int(length) for length in mask.sum(axis=1))
    for row, length in enumerate(lengths):
        if length == 0:
            raise RequestError(f"attention_mask row {row} has no token; expected at least 1")
        if not mask[row, :length].all():
            raise RequestError(f"attention_mask row {row} has a 0 before a 1; expected padding at the end only")
    return lengths
