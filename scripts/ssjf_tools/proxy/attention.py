"""Attention as one op of ONNX Runtime, for the CPU's graph. The graph for TensorRT keeps it spelled out."""

from __future__ import annotations

import re

import onnx
from onnx import helper

DOMAIN = "com.microsoft"

# Nodes of graph.py between the product that makes queries, keys and values and the one that takes the mixed values.
_INNER = re.compile(r"layer\d+/attention/((query|key|value)/.*|scores|biased|softmax|mixed|together)")
_LAST = re.compile(r"(layer\d+/attention)/joined")


def fuse_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of build_graph's model, quantised or not, with one MultiHeadAttention node in each layer.

    For rows without padding: the node has no mask, and without one ONNX Runtime never writes the table of scores down.
    The rest of the graph still knows the mask.
    """
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    heads = _heads(fused)
    nodes: list[onnx.NodeProto] = []
    for node in fused.graph.node:
        last = _LAST.fullmatch(node.name)
        if last is not None:
            nodes.append(_attention(last[1], heads))
        elif _INNER.fullmatch(node.name) is None:
            nodes.append(node)
    del fused.graph.node[:]
    fused.graph.node.extend(nodes)
    fused.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return fused


def _attention(layer: str, heads: int) -> onnx.NodeProto:
    """1/sqrt(size) is in the queries' weights already."""
    pieces, output = [f"{layer}/{each}/piece" for each in ("query", "key", "value")], f"{layer}/joined"
    return helper.make_node(
        "MultiHeadAttention", pieces, [output], name=output, domain=DOMAIN, num_heads=heads, scale=1.0
    )


def _heads(model: onnx.ModelProto) -> int:
    (shape,) = (entry for entry in model.graph.initializer if entry.name == "split_heads")
    return int(onnx.numpy_helper.to_array(shape)[2])
