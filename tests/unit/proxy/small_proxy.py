"""A proxy small enough for tests: two layers, eight wide, random but fixed weights; and its tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from proxy_onnx.metadata import ProxyMetadata
from ssjf_tools.proxy.encoder import EncoderSpec, Weights
from ssjf_tools.proxy.graph import feature_count
from ssjf_tools.proxy.head import Head

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(28))]
PAD, UNK, CLS, SEP = range(4)
SPEC = EncoderSpec(layers=2, hidden=8, heads=2, intermediate=16, positions=16, vocabulary=len(WORDS), epsilon=1e-12)
DOCUMENT: dict[str, Any] = {
    "format": 1,
    "bin_edges": [1, 4, 16, 64, 256],
    "bin_means": [2, 8, 32, 100],
    "max_length": 12,
    "length_buckets": [4, 8, 12],
    "truncation": {"kind": "head_tail", "head_tokens": 5},
    "vocab_size": len(WORDS),
}


def metadata(**changes: Any) -> ProxyMetadata:
    return ProxyMetadata.from_document({**DOCUMENT, **changes})


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_truncation(4)  # the packaged tokenizer brings both, and neither may have an effect
    made.enable_padding(length=4)
    return made


def weights(spec: EncoderSpec = SPEC) -> Weights:
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> Any:
        return rng.normal(0.0, 0.5, shape).astype(np.float32)

    made: Weights = {
        "embeddings.word_embeddings.weight": normal(spec.vocabulary, spec.hidden),
        "embeddings.position_embeddings.weight": normal(spec.positions, spec.hidden),
        "embeddings.token_type_embeddings.weight": normal(2, spec.hidden),
    }
    dense = {
        "attention.self.query": (spec.hidden, spec.hidden),
        "attention.self.key": (spec.hidden, spec.hidden),
        "attention.self.value": (spec.hidden, spec.hidden),
        "attention.output.dense": (spec.hidden, spec.hidden),
        "intermediate.dense": (spec.intermediate, spec.hidden),
        "output.dense": (spec.hidden, spec.intermediate),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(spec.layers):
        norms += [f"encoder.layer.{layer}.{part}.LayerNorm" for part in ("attention.output", "output")]
        for name, shape in dense.items():
            made[f"encoder.layer.{layer}.{name}.weight"] = normal(*shape)
            made[f"encoder.layer.{layer}.{name}.bias"] = normal(shape[0])
    for name in norms:
        made[f"{name}.weight"] = 1 + normal(spec.hidden)
        made[f"{name}.bias"] = normal(spec.hidden)
    return made


def head(bins: int = 4, spec: EncoderSpec = SPEC) -> Head:
    rng = np.random.default_rng(11)
    features = feature_count(spec)
    return Head(
        reduce_weight=rng.normal(0, 0.3, (features, 3)).astype(np.float32),
        reduce_bias=rng.normal(0, 0.3, 3).astype(np.float32),
        expand_weight=rng.normal(0, 0.5, (3, bins)).astype(np.float32),
        expand_bias=rng.normal(0, 0.5, bins).astype(np.float32),
    )
