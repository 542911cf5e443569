from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from proxy_onnx.errors import MetadataError
from proxy_onnx.runtime import OnnxRuntime
from ssjf_tools.proxy.attention import fuse_attention
from ssjf_tools.proxy.encoder import EncoderSpec, Weights
from ssjf_tools.proxy.grams import FIRST_FACTOR, PAIR_PLACES, SECOND_FACTOR, gram_rows
from ssjf_tools.proxy.graph import build_feature_graph, build_graph
from ssjf_tools.proxy.head import Head, softmax
from ssjf_tools.proxy.quantize import for_cpu, to_int8
from tests.unit.proxy import small_proxy
from tests.unit.proxy.small_proxy import SPEC

WEIGHTS = small_proxy.weights()
HEAD = small_proxy.head()
MODEL = build_graph(SPEC, WEIGHTS, HEAD)
GRAMS = np.random.default_rng(3).normal(0, 0.5, (SPEC.vocabulary + PAIR_PLACES, 3)).astype(np.float32)
WITH_GRAMS = build_graph(SPEC, WEIGHTS, replace(HEAD, grams=GRAMS))
IDS = np.array([[2, 9, 7, 22, 3, 0], [2, 30, 3, 0, 0, 0], [2, 5, 6, 7, 8, 3]], np.int32)
MASK = (IDS != 0).astype(np.int32)

# What TensorRT 10 parses without a plugin, and nothing more than we need (onnx-tensorrt, docs/operators.md).
TENSORRT_OPS = {
    "Add", "Cast", "Concat", "Div", "Equal", "Erf", "Gather", "Identity", "LayerNormalization", "Log", "MatMul", "Max",
    "Mul", "ReduceMax", "ReduceSum", "Relu", "Reshape", "Shape", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub",
    "Transpose", "Unsqueeze",
}  # fmt: skip


def run(model: onnx.ModelProto, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


def test_the_graph_computes_bert_as_written_down() -> None:
    expected = np.stack([reference_features(SPEC, WEIGHTS, row[row != 0]) for row in IDS])
    assert np.abs(run(build_feature_graph(SPEC, WEIGHTS), IDS, MASK) - expected).max() < 1e-4
    assert np.abs(run(MODEL, IDS, MASK) - HEAD.probabilities(expected)).max() < 1e-5


def test_the_graph_adds_the_n_grams_that_training_counted() -> None:
    ids = np.array([[2, 9, 9, 9, 7, 9, 7, 3], [2, 31, 30, 3, 0, 0, 0, 0]], np.int32)  # repeats, and padding
    mask = (ids != 0).astype(np.int32)
    rows = [row[row != 0] for row in ids]
    features = np.stack([reference_features(SPEC, WEIGHTS, row) for row in rows])
    added = gram_rows(rows, SPEC.vocabulary).sums(GRAMS)
    assert np.abs(run(WITH_GRAMS, ids, mask) - HEAD.probabilities(features, added)).max() < 1e-5
    assert np.abs(HEAD.probabilities(features, added) - HEAD.probabilities(features)).max() > 0.01


def test_the_largest_token_ids_do_not_overflow_whole_numbers() -> None:
    assert (FIRST_FACTOR + SECOND_FACTOR) * 250_000 < 2**31  # vocabularies have up to 250,000 tokens


def test_the_papers_head_reads_the_first_token_through_relu() -> None:
    rng = np.random.default_rng(5)
    hidden = ((rng.normal(0, 1, (8, 6)).astype(np.float32), rng.normal(0, 1, 6).astype(np.float32)),)
    last = rng.normal(0, 1, (6, 4)).astype(np.float32)
    head = Head(last, np.zeros(4, np.float32), np.eye(4, dtype=np.float32), np.zeros(4, np.float32), hidden=hidden)
    first = run(build_feature_graph(SPEC, WEIGHTS, first_token=True), IDS, MASK)
    logits = np.maximum(first @ hidden[0][0] + hidden[0][1], 0) @ last
    model = build_graph(SPEC, WEIGHTS, head, first_token=True)
    assert np.abs(run(model, IDS, MASK) - softmax(logits.astype(np.float64))).max() < 1e-5
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPS


@pytest.mark.parametrize("model", [MODEL, WITH_GRAMS])
def test_padding_and_neighbours_change_nothing(model: onnx.ModelProto) -> None:
    together = run(model, np.pad(IDS, ((0, 0), (0, 6))), np.pad(MASK, ((0, 0), (0, 6))))
    for row in range(len(IDS)):
        real = MASK[row] == 1
        alone = run(model, IDS[row : row + 1, real], MASK[row : row + 1, real])
        assert np.abs(together[row] - alone[0]).max() < 1e-5


@pytest.mark.parametrize("model", [MODEL, WITH_GRAMS])
def test_a_row_without_tokens_gives_numbers(model: onnx.ModelProto) -> None:
    assert np.isfinite(run(model, IDS, np.zeros_like(MASK))).all()


@pytest.mark.parametrize("model", [MODEL, WITH_GRAMS])
def test_the_graph_is_clean_for_tensorrt(model: onnx.ModelProto) -> None:
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPS
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    for tensor in model.graph.input:
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.INT32
        assert [dim.dim_param for dim in tensor.type.tensor_type.shape.dim] == ["batch", "length"]
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32}
    onnx.checker.check_model(model, full_check=True)


def test_names_tell_a_builder_what_to_keep_in_fp32() -> None:
    for node in WITH_GRAMS.graph.node:
        if node.op_type == "LayerNormalization":
            assert "/norm" in node.name
        if node.op_type in {"ReduceSum", "ReduceMax"}:
            assert node.name.startswith(("pool/", "head/"))


def test_a_head_for_another_encoder_is_refused() -> None:
    one_layer = EncoderSpec(**{**{name: getattr(SPEC, name) for name in SPEC.__slots__}, "layers": 1})
    with pytest.raises(ValueError, match="head takes 48 features; this encoder gives 32"):
        build_graph(one_layer, WEIGHTS, HEAD)


def test_int8_is_close_and_leaves_the_head_alone() -> None:
    small = to_int8(MODEL)
    assert np.abs(run(small, IDS, MASK) - run(MODEL, IDS, MASK)).max() < 0.05
    kinds = [node.op_type for node in small.graph.node]
    assert kinds.count("MatMulInteger") == 4 * SPEC.layers
    weights = {one.name: one.data_type for one in small.graph.initializer}
    products = [weights[node.input[1]] for node in small.graph.node if node.op_type == "MatMulInteger"]
    assert set(products) == {onnx.TensorProto.UINT8}  # signed ones overflow on a CPU without VNNI
    # Attention scores and mixing, the mean of each layer and of the embeddings, the head's two.
    assert kinds.count("MatMul") == 2 * SPEC.layers + (SPEC.layers + 1) + 2


@pytest.mark.parametrize("length", [1, 2, 5])
def test_fused_attention_is_the_same_for_a_row_without_padding(length: int) -> None:
    fused = fuse_attention(WITH_GRAMS)
    ids, mask = IDS[:1, :length], np.ones((1, length), np.int32)
    assert np.abs(run(fused, ids, mask) - run(WITH_GRAMS, ids, mask)).max() < 1e-5
    kinds = [node.op_type for node in fused.graph.node]
    assert kinds.count("MultiHeadAttention") == SPEC.layers
    assert "MultiHeadAttention" not in [node.op_type for node in WITH_GRAMS.graph.node]


def test_the_cpus_graph_is_fused_and_in_int8() -> None:
    kinds = [node.op_type for node in for_cpu(MODEL).graph.node]
    assert kinds.count("MultiHeadAttention") == SPEC.layers
    assert kinds.count("MatMulInteger") == 4 * SPEC.layers


def test_the_runtime_runs_a_model_from_a_folder(tmp_path: Path) -> None:
    onnx.save(to_int8(MODEL), tmp_path / "model.onnx")
    output = OnnxRuntime(tmp_path, threads=1).run(IDS, MASK)
    assert output.dtype == np.float32
    assert np.abs(output - run(MODEL, IDS, MASK)).max() < 0.05


def test_the_runtime_names_a_missing_broken_or_wrong_model(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match=r"model\.onnx is missing"):
        OnnxRuntime(tmp_path, threads=1)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(MetadataError, match="cannot load it"):
        OnnxRuntime(tmp_path, threads=1)
    onnx.save(build_feature_graph(SPEC, WEIGHTS), tmp_path / "model.onnx")
    with pytest.raises(MetadataError, match="output length_distribution"):
        OnnxRuntime(tmp_path, threads=1)


def reference_features(spec: EncoderSpec, weights: Weights, ids: NDArray[np.int32]) -> NDArray[np.float64]:
    """BERT for one row without padding, straight from Devlin et al. (2018), with our pooling."""

    def dense(x: Any, name: str) -> Any:
        return x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + spec.epsilon)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attend(x: Any, name: str) -> Any:
        size = spec.hidden // spec.heads
        query, key, value = (dense(x, f"{name}.self.{part}") for part in ("query", "key", "value"))
        mixed = []
        for head in range(spec.heads):
            part = slice(head * size, (head + 1) * size)
            mixed.append(softmax(query[:, part] @ key[:, part].T / math.sqrt(size)) @ value[:, part])
        return dense(np.concatenate(mixed, axis=1), f"{name}.output.dense")

    def gelu(x: Any) -> Any:
        return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    x: Any = weights["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    pooled = [x.mean(axis=0), x.max(axis=0)]
    for layer in range(spec.layers):
        name = f"encoder.layer.{layer}"
        x = norm(attend(x, f"{name}.attention") + x, f"{name}.attention.output.LayerNorm")
        wide = gelu(dense(x, f"{name}.intermediate.dense"))
        x = norm(dense(wide, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")
        pooled += [x.mean(axis=0), x.max(axis=0)]
    return np.concatenate(pooled)
