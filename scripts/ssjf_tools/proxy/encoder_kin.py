"""Encoders that compute what BERT computes under other names: their configs and weights as BERT's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Named = dict[str, NDArray[np.float32]]
KIN = ("bert", "electra", "roberta", "xlm-roberta", "camembert", "distilbert")

_ROBERTA = ("roberta", "xlm-roberta", "camembert")
# RoBERTa counts positions from its padding id on: the first two rows of its table are never used.
_ROBERTA_OFFSET = 2

_DISTILBERT_CONFIG = {
    "num_hidden_layers": "n_layers",
    "hidden_size": "dim",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
_DISTILBERT_NAMES = (
    ("transformer.layer.", "encoder.layer."),
    ("attention.q_lin", "attention.self.query"),
    ("attention.k_lin", "attention.self.key"),
    ("attention.v_lin", "attention.self.value"),
    ("attention.out_lin", "attention.output.dense"),
    ("sa_layer_norm", "attention.output.LayerNorm"),
    ("ffn.lin1", "intermediate.dense"),
    ("ffn.lin2", "output.dense"),
    ("output_layer_norm", "output.LayerNorm"),
)


def as_bert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of BERT's kin in BERT's terms; any other is given back as it is."""
    kind, same = config.get("model_type"), dict(config)
    if kind in _ROBERTA:
        same["max_position_embeddings"] = config["max_position_embeddings"] - _ROBERTA_OFFSET
    if kind == "distilbert":
        same |= {name: config[own] for name, own in _DISTILBERT_CONFIG.items()} | {"layer_norm_eps": 1e-12}
    # ELECTRA's small model has narrower embeddings with a projection, which no other of the kin has.
    if kind == "electra" and config.get("embedding_size", config["hidden_size"]) != config["hidden_size"]:
        return same
    return same | {"model_type": "bert"} if kind in KIN else same


def as_bert_weights(config: Mapping[str, Any], weights: Named) -> Named:
    """Tensors under BERT's names. A checkpoint of a task model puts its model's name in front; that goes."""
    kind = str(config["model_type"])
    front = "roberta." if kind in _ROBERTA else f"{kind}."
    named = {name.removeprefix(front): value for name, value in weights.items()}
    if kind in _ROBERTA:
        table = "embeddings.position_embeddings.weight"
        named[table] = named[table][_ROBERTA_OFFSET:]
    if kind == "distilbert":
        named = {_renamed(name): value for name, value in named.items()}
        width = named["embeddings.word_embeddings.weight"].shape[1]
        named["embeddings.token_type_embeddings.weight"] = np.zeros((1, width), np.float32)
    return named


def _renamed(name: str) -> str:

    for own, bert in _DISTILBERT_NAMES:
        name = name.replace(own, bert)
    return name
