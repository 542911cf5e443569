"""Nodes and constants of an ONNX graph under construction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .encoder import Weights


class Nodes:
    """Collects nodes and constants; every method returns the name of the tensor it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: set[str] = set()

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self._known:
            self._known.add(name)
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def scalar(self, name: str, value: float) -> str:
        return self.constant(name, np.asarray(value, dtype=np.float32))

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.asarray(values, dtype=np.int64))

    def op(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, name: str, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """x @ weight + bias, weight as [in, out]."""
        product = self.op("MatMul", f"{name}/matmul", x, self.constant(f"{name}/weight", weight))
        return self.op("Add", f"{name}/add", product, self.constant(f"{name}/bias", bias))

    def norm(self, name: str, x: str, weights: Weights, source: str, epsilon: float) -> str:
        scale = self.constant(f"{name}/scale", weights[f"{source}.weight"])
        bias = self.constant(f"{name}/bias", weights[f"{source}.bias"])
        return self.op("LayerNormalization", name, x, scale, bias, axis=-1, epsilon=epsilon)
