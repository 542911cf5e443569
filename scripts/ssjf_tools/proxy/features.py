"""Pooled features of many prompts from the frozen encoder, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from proxy_onnx.encode import ProxyEncoder

from .encoder import EncoderSpec, Weights
from .graph import build_feature_graph

Progress = Callable[[int, int], None]  # done, total
_BATCH = 8


def pooled_features(
    texts: Sequence[str],
    encoder: ProxyEncoder,
    spec: EncoderSpec,
    weights: Weights,
    threads: int,
    progress: Progress,
    *,
    first_token: bool = False,
) -> NDArray[np.float32]:
    """Features [len(texts), D] as build_feature_graph gives them. Texts are run in batches of similar length."""
    session = _session(spec, weights, threads, first_token)
    encoded = [encoder.encode([text]) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: int(encoded[index][1].sum()))
    rows: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        ids, mask = encoder.encode([texts[index] for index in batch])
        (output,) = session.run(["features"], {"input_ids": ids, "attention_mask": mask})
        for index, row in zip(batch, output, strict=True):
            rows[index] = row
        progress(start + len(batch), len(texts))
    return np.stack(rows)


def _session(spec: EncoderSpec, weights: Weights, threads: int, first_token: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    model = build_feature_graph(spec, weights, first_token=first_token).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
