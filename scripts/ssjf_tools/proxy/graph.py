"""The proxy as an ONNX graph: BERT encoder, pooling of every layer, linear head, softmax. Built without torch.

Written for TensorRT as well as ONNX Runtime: int32 inputs, opset 17 (LayerNormalization is one op that TensorRT keeps
in FP32), attention spelled out, erf GELU in the form both runtimes fuse, no op outside the standard domain. Node names
start with `embed`, `layer<i>`, `pool` or `head`, so that a builder can pin `*/norm*`, `pool/*` and `head/*` to FP32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .encoder import EncoderSpec, Weights
from .gram_graph import add_grams
from .grams import PAIR_PLACES
from .head import Head
from .nodes import Nodes

OPSET = 17
IR_VERSION = 8
MASKED = -1e4  # added to attention scores of padding; exp() of it is 0, and FP16 can hold it


def build_graph(spec: EncoderSpec, weights: Weights, head: Head, *, first_token: bool = False) -> onnx.ModelProto:
    """The served model: input_ids, attention_mask INT32 [batch, length] -> length_distribution FP32 [batch, K].

    first_token: the head takes the first token of the last layer alone, as the paper's heads do.

    Raises ValueError when the head does not fit the encoder, KeyError when an encoder weight is missing,
    onnx.checker.ValidationError for a graph that is not well formed.
    """
    given = spec.hidden if first_token else feature_count(spec)
    if head.features != given:
        raise ValueError(f"head takes {head.features} features; this encoder gives {given}")
    if head.grams.size and len(head.grams) != spec.vocabulary + PAIR_PLACES:
        raise ValueError(f"head has {len(head.grams)} n-grams; expected {spec.vocabulary + PAIR_PLACES}")
    graph = Nodes()
    inner = _features(graph, spec, weights, first_token=first_token)
    for index, (weight, bias) in enumerate(head.hidden):
        inner = graph.op("Relu", f"head/relu{index}", graph.linear(f"head/hidden{index}", inner, weight, bias))
    narrow = graph.linear("head/reduce", inner, head.reduce_weight, head.reduce_bias)
    if head.grams.size:
        narrow = graph.op("Add", "head/with_grams", narrow, add_grams(graph, spec, head.grams))
    logits = graph.linear("head/expand", narrow, head.expand_weight, head.expand_bias)
    graph.op("Softmax", "length_distribution", logits, axis=-1)
    return _model(graph, "length_distribution", head.bins)


def build_feature_graph(spec: EncoderSpec, weights: Weights, *, first_token: bool = False) -> onnx.ModelProto:
    """The same encoder with its pooled features as output, for training a head on the frozen encoder."""
    graph = Nodes()
    graph.op("Identity", "features", _features(graph, spec, weights, first_token=first_token))
    return _model(graph, "features", spec.hidden if first_token else feature_count(spec))


def feature_count(spec: EncoderSpec) -> int:
    """Width of the pooled features: mean and maximum of the embedding and of every layer."""
    return 2 * (spec.layers + 1) * spec.hidden


def _features(graph: Nodes, spec: EncoderSpec, weights: Weights, *, first_token: bool = False) -> str:
    """Pooled features [batch, feature_count]: for the embeddings and each layer in turn, mean then maximum.

    Lower layers know more about answer lengths than the last one, which was trained for sentence similarity: ridge on
    the last layer's mean gives a held-out tau_b of 0.37, on all of these 0.47 (docs/proxy-model-card.md).
    """
    bias = _attention_bias(graph)
    states = [_embeddings(graph, spec, weights)]
    for index in range(spec.layers):
        states.append(_layer(graph, spec, weights, index, states[-1], bias))
    if first_token:
        first = graph.op("Gather", "pool/first", states[-1], graph.constant("first", np.array([0], np.int32)), axis=1)
        return graph.op("Squeeze", "pool/features", first, graph.integers("axis_1", [1]))
    pooling = _Pooling(graph)
    names = ["pool/embed", *(f"pool/layer{index}" for index in range(spec.layers))]
    pooled = [name for place, state in zip(names, states, strict=True) for name in pooling.of(place, state)]
    return graph.op("Concat", "pool/features", *pooled, axis=-1)


def _model(graph: Nodes, output: str, width: int) -> onnx.ModelProto:
    rows = ["batch", "length"]
    body = helper.make_graph(
        graph.nodes,
        "length_predictor",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT32, rows),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT32, rows),
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        initializer=graph.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ssjf")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _attention_bias(graph: Nodes) -> str:
    """0 for tokens, MASKED for padding, [batch, 1, 1, length]; also leaves the mask as FP32 in `embed/mask`."""
    mask = graph.op("Cast", "embed/mask", "attention_mask", to=TensorProto.FLOAT)
    padding = graph.op("Sub", "embed/padding", graph.scalar("one", 1.0), mask)
    scaled = graph.op("Mul", "embed/bias", padding, graph.scalar("masked", MASKED))
    return graph.op("Unsqueeze", "embed/attention_bias", scaled, graph.integers("axes_1_2", [1, 2]))


def _embeddings(graph: Nodes, spec: EncoderSpec, weights: Weights) -> str:
    words = graph.constant("embed/words", weights["embeddings.word_embeddings.weight"])
    # One prompt is one segment: type 0 everywhere, so its vector is added to the position table here and now.
    table = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    tokens = graph.op("Gather", "embed/gather", words, "input_ids", axis=0)
    shape = graph.op("Shape", "embed/shape", "input_ids")
    length = graph.op("Slice", "embed/length", shape, graph.integers("start_1", [1]), graph.integers("end_2", [2]))
    start, axis = graph.integers("start_0", [0]), graph.integers("axis_0", [0])
    places = graph.op(
        "Slice", "embed/places", graph.constant("embed/table", table[: spec.positions]), start, length, axis
    )
    summed = graph.op("Add", "embed/sum", tokens, places)
    return graph.norm("embed/norm", summed, weights, "embeddings.LayerNorm", spec.epsilon)


def _layer(graph: Nodes, spec: EncoderSpec, weights: Weights, index: int, x: str, bias: str) -> str:
    source, name = f"encoder.layer.{index}", f"layer{index}"
    attended = _attention(graph, spec, weights, index, x, bias)
    first = graph.op("Add", f"{name}/residual1", attended, x)
    middle = graph.norm(f"{name}/norm1", first, weights, f"{source}.attention.output.LayerNorm", spec.epsilon)
    wide = graph.linear(f"{name}/up", middle, *_dense(weights, f"{source}.intermediate.dense"))
    narrow = graph.linear(f"{name}/down", _gelu(graph, name, wide), *_dense(weights, f"{source}.output.dense"))
    second = graph.op("Add", f"{name}/residual2", narrow, middle)
    return graph.norm(f"{name}/norm2", second, weights, f"{source}.output.LayerNorm", spec.epsilon)


def _attention(graph: Nodes, spec: EncoderSpec, weights: Weights, index: int, x: str, bias: str) -> str:
    source, name = f"encoder.layer.{index}.attention", f"layer{index}/attention"
    size = spec.hidden // spec.heads
    # One product for queries, keys and values is faster than three. 1/sqrt(size) is folded into the queries: one op
    # less, and scores stay small in FP16.
    scales = {"query": 1.0 / math.sqrt(size), "key": 1.0, "value": 1.0}
    parts = [(_dense(weights, f"{source}.self.{part}"), np.float32(scale)) for part, scale in scales.items()]
    weight = np.concatenate([matrix * scale for (matrix, _), scale in parts], axis=1)
    offset = np.concatenate([vector * scale for (_, vector), scale in parts])
    projected = graph.linear(f"{name}/qkv", x, weight, offset)
    pieces = [f"{name}/{part}/piece" for part in scales]
    widths = graph.integers("qkv_widths", [spec.hidden] * 3)
    graph.nodes.append(helper.make_node("Split", [projected, widths], pieces, name=f"{name}/split", axis=2))
    split = graph.integers("split_heads", [0, 0, spec.heads, size])

    def heads(piece: str, order: Sequence[int]) -> str:
        return graph.op(
            "Transpose", f"{piece}/transpose", graph.op("Reshape", f"{piece}/heads", piece, split), perm=list(order)
        )

    query, key, value = (heads(*pair) for pair in zip(pieces, ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True))
    scores = graph.op("Add", f"{name}/biased", graph.op("MatMul", f"{name}/scores", query, key), bias)
    shares = graph.op("Softmax", f"{name}/softmax", scores, axis=-1)
    together = graph.op(
        "Transpose", f"{name}/together", graph.op("MatMul", f"{name}/mixed", shares, value), perm=[0, 2, 1, 3]
    )
    joined = graph.op("Reshape", f"{name}/joined", together, graph.integers("join_heads", [0, 0, spec.hidden]))
    return graph.linear(f"{name}/output", joined, *_dense(weights, f"{source}.output.dense"))


def _gelu(graph: Nodes, name: str, x: str) -> str:
    """x/2 * (1 + erf(x/sqrt 2)), in the order that ONNX Runtime and TensorRT recognise and fuse."""
    inner = graph.op("Div", f"{name}/gelu/div", x, graph.scalar("sqrt_2", math.sqrt(2.0)))
    error = graph.op("Erf", f"{name}/gelu/erf", inner)
    gate = graph.op("Add", f"{name}/gelu/add", error, graph.scalar("one", 1.0))
    gated = graph.op("Mul", f"{name}/gelu/gate", x, gate)
    return graph.op("Mul", f"{name}/gelu/half", gated, graph.scalar("half", 0.5))


class _Pooling:
    """Mean and maximum over the real tokens of [batch, length, hidden]; what they share is computed once."""

    def __init__(self, graph: Nodes) -> None:
        self._graph = graph
        self._axis = graph.integers("axis_1", [1])
        count = graph.op("ReduceSum", "pool/count", "embed/mask", self._axis, keepdims=1)
        # A row without tokens gives 0 instead of NaN.
        at_least_1 = graph.op("Max", "pool/at_least_1", count, graph.scalar("one", 1.0))
        shares = graph.op("Div", "pool/shares", "embed/mask", at_least_1)
        self._shares = graph.op("Unsqueeze", "pool/row", shares, self._axis)
        self._padding = graph.op("Unsqueeze", "pool/padding", "embed/bias", graph.integers("axis_2", [2]))

    def of(self, name: str, hidden: str) -> list[str]:
        graph = self._graph
        mean = graph.op(
            "Squeeze", f"{name}/mean", graph.op("MatMul", f"{name}/product", self._shares, hidden), self._axis
        )
        lowered = graph.op("Add", f"{name}/lowered", hidden, self._padding)
        return [mean, graph.op("ReduceMax", f"{name}/max", lowered, axes=[1], keepdims=0)]


def _dense(weights: Weights, source: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight as [in, out] and bias of a torch Linear, which stores [out, in]."""
    return weights[f"{source}.weight"].T, weights[f"{source}.bias"]
