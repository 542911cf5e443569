"""Hashed 1- and 2-grams of WordPiece tokens: what words say about length that a frozen encoder does not pass on.

A gram's place is its token's id, or (31 a + 7919 b) mod 65,536 behind all ids for two tokens in a row: whole-number
arithmetic below 2^31 that the served graph repeats (gram_graph.py). A row is the unit vector of log(1 + count).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIR_PLACES = 2**16
FIRST_FACTOR, SECOND_FACTOR = 31, 7919
_CHUNK = 4096  # columns of a dense piece of the kernel

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GramRows:
    """Sparse rows: entry e says that row[e] has value[e] at place[e]. count rows, width places."""

    row: NDArray[np.int64]
    place: NDArray[np.int64]
    value: NDArray[np.float32]
    count: int
    width: int

    def kernel(self) -> NDArray[np.float32]:
        """Inner products of all rows [count, count]."""
        total = np.zeros((self.count, self.count), np.float32)
        np.fill_diagonal(total, np.bincount(self.row, weights=self.value.astype(np.float64) ** 2, minlength=self.count))
        places, place, often = np.unique(self.place, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(often > 1)  # what occurs in one row only says nothing about others
        column = np.full(len(places), -1)
        column[shared] = np.arange(len(shared))
        own = column[place]
        diagonal = total.diagonal().copy()
        for start in range(0, len(shared), _CHUNK):
            inside = (own >= start) & (own < start + _CHUNK)
            dense = np.zeros((self.count, min(_CHUNK, len(shared) - start)), np.float32)
            dense[self.row[inside], own[inside] - start] = self.value[inside]
            total += dense @ dense.T
        np.fill_diagonal(total, diagonal)
        return total

    def table(self, chosen: NDArray[np.int64], weights: Matrix) -> NDArray[np.float32]:
        """Sum over chosen rows of weights [chosen, R] times the row, by place [width, R]."""
        place_of = np.full(self.count, -1)
        place_of[chosen] = np.arange(len(chosen))
        number = place_of[self.row]
        keep = number >= 0
        table = np.zeros((self.width, weights.shape[1]))
        np.add.at(table, self.place[keep], self.value[keep, None] * weights[number[keep]])
        return table.astype(np.float32)

    def sums(self, table: NDArray[np.floating[Any]]) -> Matrix:
        """Each row times a table [width, R]: what the n-grams add to a head's numbers [count, R]."""
        totals = np.zeros((self.count, table.shape[1]))
        np.add.at(totals, self.row, self.value[:, None] * table[self.place])
        return totals


def gram_rows(rows: Sequence[NDArray[np.int32]], vocabulary: int) -> GramRows:
    """Grams of rows of token ids, [CLS] and [SEP] included."""
    row, place, value = [], [], []
    for number, ids in enumerate(rows):
        places, counts = np.unique(gram_places(ids, vocabulary), return_counts=True)
        logs = np.log1p(counts.astype(np.float64))
        row.append(np.full(len(places), number))
        place.append(places)
        value.append(logs / np.linalg.norm(logs))
    parts = (np.concatenate(row), np.concatenate(place), np.concatenate(value).astype(np.float32))
    return GramRows(*parts, count=len(rows), width=vocabulary + PAIR_PLACES)


def gram_places(ids: NDArray[np.int32], vocabulary: int) -> NDArray[np.int64]:
    """Places of a row's single tokens, then of its pairs."""
    wide = ids.astype(np.int64)
    pairs = vocabulary + (FIRST_FACTOR * wide[:-1] + SECOND_FACTOR * wide[1:]) % PAIR_PLACES
    return np.concatenate([wide, pairs])
