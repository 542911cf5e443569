from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from ssjf_tools.plan.precision import PrecisionError, to_typed
from ssjf_tools.proxy.graph import build_graph
from tests.unit.proxy import small_proxy
from tests.unit.proxy.small_proxy import SPEC

FULL = build_graph(SPEC, small_proxy.weights(), small_proxy.head())
TYPED = to_typed(FULL)
IDS = np.array([[2, 9, 7, 22, 3, 0], [2, 30, 3, 0, 0, 0], [2, 5, 6, 7, 8, 3]], np.int32)
MASK = (IDS != 0).astype(np.int32)
LAYERS = SPEC.layers


def kinds() -> dict[str, int]:
    """Element type of every tensor, as a strongly typed network would have it."""
    inferred = shape_inference.infer_shapes(TYPED, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in TYPED.graph.initializer
    }


def test_the_answers_stay_the_same() -> None:
    full, typed = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input_ids": IDS, "attention_mask": MASK}
        )[0]
        for model in (FULL, TYPED)
    )
    assert 0 < np.abs(full - typed).max() < 0.01


def test_norms_softmax_sums_pooling_and_head_are_fp32() -> None:
    types = kinds()
    for node in TYPED.graph.node:
        parts = node.name.split("/")
        full = node.op_type in {"LayerNormalization", "Softmax", "ReduceMax", "ReduceSum"}
        if full or parts[0] in {"pool", "head", "embed"} or "residual" in node.name:
            assert node.op_type == "Cast" or types[node.output[0]] != TensorProto.FLOAT16, node.name


def test_the_layers_matrix_products_and_gelu_are_fp16() -> None:
    types = kinds()
    products = [node for node in TYPED.graph.node if node.op_type == "MatMul" and node.name.startswith("layer")]
    assert len(products) == 6 * LAYERS
    for node in [*products, *(node for node in TYPED.graph.node if node.op_type == "Erf")]:
        assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}


def test_inputs_and_outputs_keep_their_types_and_nothing_is_cast_twice() -> None:
    graph = TYPED.graph
    assert [value.type.tensor_type.elem_type for value in graph.input] == [TensorProto.INT32] * 2
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    casts = [node for node in graph.node if node.op_type == "Cast" and node.name != "embed/mask"]
    assert len({(node.input[0], node.attribute[0].i) for node in casts}) == len(casts)
    # A layer enters FP16 at its input, after softmax and after its first norm; it leaves it at scores and two sums.
    assert len(casts) == 6 * LAYERS


def test_weights_of_the_layers_are_stored_in_half() -> None:
    assert TYPED.ByteSize() < FULL.ByteSize()
    names = {tensor.name for tensor in TYPED.graph.initializer}
    assert "layer0/up/weight" not in names
    assert "head/reduce/weight" in names


def test_a_weight_beyond_fp16_is_named() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(FULL)
    for tensor in model.graph.initializer:
        if tensor.name == "layer1/up/bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(SPEC.intermediate, 1e5, np.float32), tensor.name))
    with pytest.raises(PrecisionError, match=r"layer1/up/bias has a value of 100000; FP16 holds at most 65504"):
        to_typed(model)


def test_a_graph_of_other_names_is_refused_instead_of_left_in_fp32() -> None:
    node = helper.make_node("Identity", ["x"], ["y"], name="something")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    with pytest.raises(PrecisionError, match="nothing to make FP16"):
        to_typed(helper.make_model(helper.make_graph([node], "other", value[:1], value[1:])))
