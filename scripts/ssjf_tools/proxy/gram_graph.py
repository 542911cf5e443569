"""The n-gram part of the served graph: sparse in time, whole-number arithmetic and gathers, nothing TensorRT lacks.

Repeats grams.py inside the model: places of tokens and pairs by INT32 products, sums and a remainder spelled as
x - (x / n) * n; how often each place occurs in its row by comparing all with all, so that a repeated gram counts with
log(1 + count) as a whole; rows of the table, summed.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from .encoder import EncoderSpec
from .grams import FIRST_FACTOR, PAIR_PLACES, SECOND_FACTOR
from .head import Array
from .nodes import Nodes


def add_grams(graph: Nodes, spec: EncoderSpec, table: Array) -> str:
    """What the n-grams add to the head's numbers [batch, R]. Needs `embed/mask` in the graph."""
    rows = graph.constant("head/grams/table", table)
    single = _Counted(graph, "head/grams/single", "input_ids", "embed/mask")
    pair = _Counted(graph, "head/grams/pair", *_pairs(graph, spec.vocabulary))
    square = graph.op("Add", "head/grams/square", single.square, pair.square)
    # [CLS] is in every row, so this is never 0 but for a row without tokens, which no server sends.
    norm = graph.op(
        "Sqrt", "head/grams/norm", graph.op("Max", "head/grams/above_0", square, graph.scalar("tiny", 1e-6))
    )
    total = graph.op("Add", "head/grams/total", single.gathered(rows), pair.gathered(rows))
    return graph.op("Div", "head/grams/sums", total, norm)


def _pairs(graph: Nodes, vocabulary: int) -> tuple[str, str]:
    """Places of the pairs [batch, length - 1], and which of them are of two real tokens."""
    start, one = graph.integers("start_0", [0]), graph.integers("start_1", [1])
    last, far, axis = (
        graph.integers("end_last", [-1]),
        graph.integers("end_far", [2**31 - 1]),
        graph.integers("axis_1", [1]),
    )
    left = graph.op("Slice", "head/grams/left", "input_ids", start, last, axis)
    right = graph.op("Slice", "head/grams/right", "input_ids", one, far, axis)

    def whole(name: str, value: int) -> str:
        return graph.constant(name, np.asarray(value, dtype=np.int32))

    first = graph.op("Mul", "head/grams/first", left, whole("first_factor", FIRST_FACTOR))
    second = graph.op("Mul", "head/grams/second", right, whole("second_factor", SECOND_FACTOR))
    mixed = graph.op("Add", "head/grams/mixed", first, second)
    places = whole("pair_places", PAIR_PLACES)
    times = graph.op("Mul", "head/grams/times", graph.op("Div", "head/grams/quotient", mixed, places), places)
    place = graph.op(
        "Add", "head/grams/place", graph.op("Sub", "head/grams/rest", mixed, times), whole("vocabulary", vocabulary)
    )
    # A pair is real where its second token is: padding stands at the end only.
    return place, graph.op("Slice", "head/grams/real", "embed/mask", one, far, axis)


class _Counted:
    """Places [batch, n] with a mask [batch, n]; each entry weighs log(1 + count) / count, count being its row's."""

    def __init__(self, graph: Nodes, name: str, places: str, mask: str) -> None:
        self._graph, self._name, self._places = graph, name, places
        across = graph.op("Unsqueeze", f"{name}/across", places, graph.integers("axis_1", [1]))
        down = graph.op("Unsqueeze", f"{name}/down", places, graph.integers("axis_2", [2]))
        same = graph.op("Cast", f"{name}/same", graph.op("Equal", f"{name}/equal", down, across), to=TensorProto.FLOAT)
        column = graph.op("Unsqueeze", f"{name}/column", mask, graph.integers("axis_2", [2]))
        flat = graph.op("MatMul", f"{name}/counted", same, column)
        count = graph.op(
            "Max",
            f"{name}/count",
            graph.op("Squeeze", f"{name}/counts", flat, graph.integers("axis_2", [2])),
            graph.scalar("one", 1.0),
        )
        logs = graph.op("Log", f"{name}/log", graph.op("Add", f"{name}/more", count, graph.scalar("one", 1.0)))
        share = graph.op("Div", f"{name}/share", mask, count)
        self._weights = graph.op("Mul", f"{name}/weights", logs, share)
        squares = graph.op("Mul", f"{name}/squares", logs, self._weights)
        self.square = graph.op("ReduceSum", f"{name}/square", squares, graph.integers("axis_1", [1]), keepdims=1)

    def gathered(self, table: str) -> str:
        """Weighted sum of the table's rows at the places [batch, R]."""
        graph, name = self._graph, self._name
        rows = graph.op("Gather", f"{name}/rows", table, self._places, axis=0)
        weights = graph.op("Unsqueeze", f"{name}/row", self._weights, graph.integers("axis_1", [1]))
        product = graph.op("MatMul", f"{name}/product", weights, rows)
        return graph.op("Squeeze", f"{name}/sum", product, graph.integers("axis_1", [1]))
