"""The graph for the CPU: attention fused, weights in INT8. The graph for TensorRT stays in FP32."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from .attention import fuse_attention

_FULL_PRECISION = ["head/reduce/matmul", "head/expand/matmul"]  # thousands of unscaled features into a few numbers


def for_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """What `proxy_onnx` runs, a row at a time and without padding: see to_int8 and fuse_attention."""
    return fuse_attention(to_int8(model))


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the encoder's matrix products in INT8, activations quantised as they come.

    Three times as fast on a CPU with VNNI; held-out tau_b is the same to three digits (docs/proxy-model-card.md). The
    scale of activations is that of a whole run, so in a batch a row's answer would depend a little on its neighbours.
    Weights are unsigned around 128: with signed ones ONNX Runtime adds pairs of products in 16 bits on a CPU that has
    AVX2 but no VNNI, and they overflow (its guide to quantisation, "U8S8 can run into saturation").
    """
    with tempfile.TemporaryDirectory(prefix="ssjf-proxy-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        logging.getLogger().addFilter(_no_advice)
        try:
            quantize_dynamic(
                source,
                target,
                weight_type=QuantType.QUInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=_FULL_PRECISION,
                extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},  # attention scores stay FP32
            )
        finally:
            logging.getLogger().removeFilter(_no_advice)
        return onnx.load(target)


def _no_advice(record: logging.LogRecord) -> bool:
    """Drop ONNX Runtime's advice to pre-process: the graph has known shapes already."""
    return "pre-processing" not in record.getMessage()
