"""The exported proxy in torch, as one would run it without TensorRT: fused attention, weights from the ONNX file.

Only for measuring a plan against: scripts/bench-proxy-plan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional

from ssjf_tools.proxy.grams import FIRST_FACTOR, PAIR_PLACES, SECOND_FACTOR

_MASKED = 1e4


class TorchProxy:
    """Satisfies proxy_onnx's Runtime. Encoder in `kind` (torch.float16 or float32), pooling and head in FP32."""

    def __init__(self, model: Path, device: str, kind: Any) -> None:
        """Raises ValueError for a graph with other names than build_graph gives, or with hidden layers in its head."""
        graph = onnx.load(model).graph
        stored = {item.name.removesuffix("/fp16"): numpy_helper.to_array(item) for item in graph.initializer}
        try:
            self._heads = int(stored["split_heads"][2])
            self._layers = sum(name.endswith("/up/weight") for name in stored)
            self._epsilon = _epsilon(graph)
            self._device, self._kind = device, kind
            self._has_grams = "head/grams/table" in stored
            if "head/hidden0/weight" in stored:
                raise ValueError(f"{model}: its head has hidden layers, which this baseline does not compute")
            self._weights = {
                name: torch.tensor(value, device=device, dtype=kind if name.startswith("layer") else torch.float32)
                for name, value in stored.items()
                if value.dtype in (np.float16, np.float32)
            }
        except KeyError as error:
            raise ValueError(f"{model}: no initializer {error}: not a graph of this project") from error

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Distributions FP32 [rows, K], copies to the device and back included."""
        w = self._weights
        tokens = torch.from_numpy(np.ascontiguousarray(ids)).to(self._device).long()
        real = torch.from_numpy(np.ascontiguousarray(mask)).to(self._device).bool()
        hidden = self._norm("embed/norm", w["embed/words"][tokens] + w["embed/table"][: ids.shape[1]])
        states = [hidden]
        for index in range(self._layers):
            hidden = self._layer(f"layer{index}", hidden, real)
            states.append(hidden)
        features = torch.cat([part for state in states for part in _pooled(state, real)], dim=1)
        narrow = features @ w["head/reduce/weight"] + w["head/reduce/bias"]
        if self._has_grams:
            narrow = narrow + self._grams(tokens, real)
        logits = narrow @ w["head/expand/weight"] + w["head/expand/bias"]
        answer: NDArray[np.float32] = torch.softmax(logits, -1).cpu().numpy()
        return answer

    def _grams(self, tokens: Any, real: Any) -> Any:
        """What the n-grams add to the head's numbers; see grams.py."""
        table = self._weights["head/grams/table"]
        pairs = (FIRST_FACTOR * tokens[:, :-1] + SECOND_FACTOR * tokens[:, 1:]) % PAIR_PLACES
        vocabulary = len(table) - PAIR_PLACES
        sums, squares = zip(
            _counted(tokens, real, table), _counted(pairs + vocabulary, real[:, 1:], table), strict=True
        )
        return sum(sums) / sum(squares).clamp(min=1e-6).sqrt()

    def _layer(self, name: str, hidden: Any, real: Any) -> Any:
        rows, length, width = hidden.shape
        projected = self._linear(f"{name}/attention/qkv", hidden.to(self._kind))
        query, key, value = (
            part.view(rows, length, self._heads, -1).transpose(1, 2) for part in projected.split(width, dim=-1)
        )
        # 1/sqrt(size) is part of the queries' weights already.
        mixed = functional.scaled_dot_product_attention(query, key, value, real[:, None, None], scale=1.0)
        joined = mixed.transpose(1, 2).reshape(rows, length, width)
        middle = self._norm(f"{name}/norm1", self._linear(f"{name}/attention/output", joined).float() + hidden)
        wide = functional.gelu(self._linear(f"{name}/up", middle.to(self._kind)))
        return self._norm(f"{name}/norm2", self._linear(f"{name}/down", wide).float() + middle)

    def _linear(self, name: str, x: Any) -> Any:
        return torch.matmul(x, self._weights[f"{name}/weight"]) + self._weights[f"{name}/bias"]

    def _norm(self, name: str, x: Any) -> Any:
        scale, bias = self._weights[f"{name}/scale"].float(), self._weights[f"{name}/bias"].float()
        return functional.layer_norm(x, x.shape[-1:], scale, bias, self._epsilon)


def _pooled(state: Any, real: Any) -> list[Any]:
    mask = real[..., None].float()
    return [(state * mask).sum(1) / mask.sum(1), (state + (mask - 1) * _MASKED).amax(1)]


def _counted(places: Any, real: Any, table: Any) -> tuple[Any, Any]:
    """Each row's places of the table weighed by log(1 + count), summed; and the sum of the weights' squares."""
    counts = (places[:, :, None] == places[:, None, :]).float() @ real.float()[..., None]
    count = counts[..., 0].clamp(min=1.0)
    logs = torch.log1p(count)
    weights = logs * real / count  # every occurrence bears its part of the place's weight
    return (weights[:, None] @ table[places])[:, 0], (logs * weights).sum(1, keepdim=True)


def _epsilon(graph: onnx.GraphProto) -> float:
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            return next(float(item.f) for item in node.attribute if item.name == "epsilon")
    raise KeyError("epsilon")
