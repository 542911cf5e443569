from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssjf_tools.proxy.encoder import EncoderError, EncoderSpec
from ssjf_tools.proxy.encoder_kin import as_bert_config, as_bert_weights
from tests.unit.proxy import small_proxy

BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "vocab_size": 32,
    "layer_norm_eps": 1e-12,
}
DISTILBERT: dict[str, Any] = {
    "model_type": "distilbert",
    "activation": "gelu",
    "n_layers": 2,
    "dim": 8,
    "n_heads": 2,
    "hidden_dim": 16,
    "max_position_embeddings": 16,
    "vocab_size": 32,
}


@pytest.mark.parametrize(
    "config",
    [BERT, {**BERT, "model_type": "electra", "embedding_size": 8}, DISTILBERT]
    + [{**BERT, "model_type": kind, "max_position_embeddings": 18} for kind in ("roberta", "xlm-roberta")],
)
def test_kin_have_the_same_shape_under_other_names(config: dict[str, Any]) -> None:
    assert EncoderSpec.from_config(config) == EncoderSpec.from_config(BERT)


def test_an_electra_with_narrow_embeddings_is_refused() -> None:
    with pytest.raises(EncoderError, match="model_type 'electra'"):
        EncoderSpec.from_config({**BERT, "model_type": "electra", "embedding_size": 4})
    assert as_bert_config({"model_type": "t5"}) == {"model_type": "t5"}


def test_distilberts_tensors_get_berts_names_and_roberta_loses_its_unused_positions() -> None:
    weights = small_proxy.weights()
    own = {
        "distilbert."
        + name.replace("encoder.layer.", "transformer.layer.")
        .replace("attention.output.LayerNorm", "sa_layer_norm")
        .replace("output.LayerNorm", "output_layer_norm")
        .replace("attention.self.query", "attention.q_lin")
        .replace("attention.self.key", "attention.k_lin")
        .replace("attention.self.value", "attention.v_lin")
        .replace("attention.output.dense", "attention.out_lin")
        .replace("intermediate.dense", "ffn.lin1")
        .replace("output.dense", "ffn.lin2"): value
        for name, value in weights.items()
        if "token_type" not in name
    }
    assert "distilbert.transformer.layer.1.ffn.lin2.weight" in own
    named = as_bert_weights(DISTILBERT, own)
    assert set(named) == set(weights)
    for name, value in weights.items():
        assert "token_type" in name or np.array_equal(named[name], value)
    table = "roberta.embeddings.position_embeddings.weight"
    assert as_bert_weights({"model_type": "roberta"}, {table: np.ones((18, 8), np.float32)})[
        "embeddings.position_embeddings.weight"
    ].shape == (16, 8)
