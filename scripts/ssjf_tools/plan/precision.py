"""The precision of every tensor, written into the ONNX graph by Cast nodes: what a strongly typed network needs.

TensorRT 11 has no FP16 flag, and in a strongly typed network a tensor has the type that the graph says. FP16 inside the
encoder's layers: matrix products, their biases, GELU. FP32 everywhere else: embeddings, residual sums, norms, softmax
with the mask, pooling, the head, and whatever stands beside the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_INSIDE = re.compile(r"^layer\d+/")
_FULL = re.compile(r"/(norm|residual|softmax|biased)")  # of these, sums over many terms need FP32
# Operators that may be FP16, and how many of their inputs are data (the others are shapes and sizes).
_DATA_INPUTS = {"MatMul": 2, "Add": 2, "Div": 2, "Mul": 2, "Erf": 1, "Reshape": 1, "Split": 1, "Transpose": 1}
LARGEST_HALF = float(np.finfo(np.float16).max)


class PrecisionError(ValueError):
    """A weight does not fit FP16, or the graph has nothing to make FP16."""


def is_half(node: onnx.NodeProto) -> bool:
    """Whether this node of the FP32 graph computes in FP16."""
    return node.op_type in _DATA_INPUTS and bool(_INSIDE.match(node.name)) and not _FULL.search(node.name)


def to_typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph of build_graph in FP32 and FP16; its inputs and outputs keep their types. Raises PrecisionError."""
    casting = _Casting(model.graph)
    for node in model.graph.node:
        casting.add(node)
    if not casting.halves:
        raise PrecisionError("no node of the graph is an encoder layer's (layer<i>/...): nothing to make FP16")
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.node[:], typed.graph.initializer[:]
    typed.graph.node.extend(casting.nodes)
    typed.graph.initializer.extend(casting.used_constants())
    onnx.checker.check_model(typed, full_check=True)
    return typed


class _Casting:
    """Copies nodes in order; puts a Cast, once for each tensor, where FP32 and FP16 meet."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.halves: set[str] = set()  # tensors that are FP16
        self._made: dict[str, str] = {}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._half_constants: dict[str, onnx.TensorProto] = {}

    def add(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        half = is_half(node)
        data = _DATA_INPUTS[node.op_type] if half else len(node.input)
        for index, name in enumerate(node.input[:data]):
            copy.input[index] = self._as_half(name) if half else self._as_full(name)
        self.nodes.append(copy)
        if half:
            self.halves.update(node.output)

    def used_constants(self) -> Iterable[onnx.TensorProto]:
        used = {name for node in self.nodes for name in node.input}
        known = {**self._constants, **self._half_constants}
        return [tensor for name, tensor in known.items() if name in used]

    def _as_half(self, name: str) -> str:
        if name in self.halves:
            return name
        if name in self._constants:
            return self._half_constant(name)
        return self._cast(name, f"{name}/fp16", TensorProto.FLOAT16)

    def _as_full(self, name: str) -> str:
        return self._cast(name, f"{name}/fp32", TensorProto.FLOAT) if name in self.halves else name

    def _cast(self, name: str, made: str, kind: int) -> str:
        if made not in self._made:
            self._made[made] = name
            self.nodes.append(helper.make_node("Cast", [name], [made], name=made, to=kind))
        return made

    def _half_constant(self, name: str) -> str:
        made = f"{name}/fp16"
        if made not in self._half_constants:
            value = numpy_helper.to_array(self._constants[name])
            largest = float(np.abs(value).max(initial=0.0))
            if not largest <= LARGEST_HALF:
                raise PrecisionError(f"{name} has a value of {largest:g}; FP16 holds at most {LARGEST_HALF:g}")
            self._half_constants[made] = numpy_helper.from_array(value.astype(np.float16), made)
        return made
