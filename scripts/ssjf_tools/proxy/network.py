"""Encoder, pooling and head as one torch module that is trained together. Needs torch and transformers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from .encoder import EncoderSpec, Weights
from .head import Head

ALL_LAYERS, FIRST_TOKEN = "layers", "first"
_MASKED = 1e4
_PAPER_WIDTH = 128  # of its two hidden layers


@dataclass(frozen=True, slots=True)
class Start:
    """Where training starts: maps from standardised features to outputs, and the scale of features [D] each."""

    head: Head
    centre: NDArray[np.floating[Any]]
    spread: NDArray[np.floating[Any]]


class ProxyNetwork(torch.nn.Module):  # type: ignore[misc]
    """Token ids and mask to the outputs of an objective.

    pooling `layers`: mean and maximum of the embeddings and of every layer, standardised, two linear maps that start
    from a fitted head. `first`: the first token of the last layer and the paper's three linear maps with ReLU, random.
    The lowest `frozen` layers and the word embeddings stay as they are; their states may be given instead of ids.
    """

    def __init__(self, spec: EncoderSpec, weights: Weights, dropout: float, frozen: int) -> None:
        super().__init__()
        self.encoder = _encoder(spec, weights, dropout)
        self.layers = spec.layers
        self.frozen = frozen
        self.dropout = torch.nn.Dropout(dropout)
        for name, parameter in self.encoder.named_parameters():
            if name.startswith("embeddings.word_embeddings") or (frozen and _depth(name) < frozen):
                parameter.requires_grad = False

    def with_fitted_head(self, start: Start) -> ProxyNetwork:
        """Pooling of all layers and the two maps of `start`."""
        self.pooling = ALL_LAYERS
        self.register_buffer("centre", torch.as_tensor(start.centre, dtype=torch.float32))
        self.register_buffer("spread", torch.as_tensor(start.spread, dtype=torch.float32))
        head = start.head
        bias = head.reduce_bias + start.centre @ head.reduce_weight
        self.reduce = _linear(head.reduce_weight * start.spread[:, None], bias)
        self.expand = _linear(head.expand_weight, head.expand_bias)
        return self

    def with_paper_head(self, outputs: int) -> ProxyNetwork:
        """The paper's head on the first token: two hidden layers of 128 with ReLU, no dropout of its own."""
        self.pooling = FIRST_TOKEN
        width = self.encoder.config.hidden_size
        sizes = [width, _PAPER_WIDTH, _PAPER_WIDTH]
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(*pair) for pair in pairwise(sizes))
        self.reduce = torch.nn.Linear(_PAPER_WIDTH, outputs)
        return self

    def forward(self, input_ids: Any, attention_mask: Any, lower: Any = None, states: Any = None) -> Any:
        """Outputs [rows, n]. With `lower` (pooled features of the frozen layers) and `states` (what they give, [rows,
        length, width]) the frozen layers are not run.
        """
        mask = attention_mask
        if states is None:
            run = self.encoder(input_ids, attention_mask=mask, output_hidden_states=True)
            hidden = list(run.hidden_states)
        else:
            hidden = self._upper(states, mask)
        if self.pooling == FIRST_TOKEN:
            last = (hidden[-1] if hidden else states)[:, 0].float()
            for layer in self.hidden:
                last = torch.relu(layer(last))
            return self.reduce(last)
        pooled = [*([lower] if lower is not None else []), *_pooled(hidden, mask)]
        features = (torch.cat(pooled, dim=1) - self.centre) / self.spread
        return self.expand(self.dropout(self.reduce(self.dropout(features))))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def lower(self, input_ids: Any, attention_mask: Any) -> tuple[Any, Any]:
        """What the frozen layers give: pooled features of the embeddings and of each, and the last one's states."""
        run = self.encoder(input_ids, attention_mask=attention_mask, output_hidden_states=True)
        *below, last = run.hidden_states[: self.frozen + 1]
        return torch.cat(_pooled([*below, last], attention_mask), dim=1), last.float()

    def _upper(self, states: Any, mask: Any) -> list[Any]:
        bias = (mask[:, None, None].float() - 1.0) * _MASKED
        hidden = []
        for layer in self.encoder.encoder.layer[self.frozen :]:
            given = layer(states, attention_mask=bias)
            states = given[0] if isinstance(given, tuple) else given
            hidden.append(states)
        return hidden

    def head(self) -> Head:
        """The linear maps on features as they come, FP32; what the paper's head gives goes through an identity."""
        reduce = _matrix(self.reduce)
        if self.pooling == FIRST_TOKEN:
            outputs = reduce[0].shape[1]
            hidden = tuple(_matrix(layer) for layer in self.hidden)
            return Head(*reduce, np.eye(outputs, dtype=np.float32), np.zeros(outputs, np.float32), hidden=hidden)
        spread = self.spread.double().cpu().numpy()
        weight = reduce[0].astype(np.float64) / spread[:, None]
        bias = reduce[1] - self.centre.double().cpu().numpy() @ weight
        return Head(weight.astype(np.float32), bias.astype(np.float32), *_matrix(self.expand))

    def encoder_weights(self) -> Weights:
        """The encoder's weights, FP32, by the names of its checkpoint."""
        return {name: value.detach().float().cpu().numpy().copy() for name, value in self.encoder.state_dict().items()}


def _pooled(hidden: Any, mask: Any) -> list[Any]:
    real = mask[..., None].float()
    pooled = []
    for state in hidden:
        wide = state.float()
        pooled += [(wide * real).sum(1) / real.sum(1), (wide + (real - 1) * _MASKED).amax(1)]
    return pooled


def _depth(name: str) -> int:
    """Number of the layer that a parameter belongs to, -1 for the embeddings."""
    parts = name.split(".")
    return int(parts[parts.index("layer") + 1]) if "layer" in parts else -1


def _encoder(spec: EncoderSpec, weights: Weights, dropout: float) -> Any:
    config = BertConfig(
        vocab_size=spec.vocabulary,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.intermediate,
        max_position_embeddings=spec.positions,
        layer_norm_eps=spec.epsilon,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    encoder = BertModel(config, add_pooling_layer=False)
    wanted = encoder.state_dict()
    encoder.load_state_dict({name: torch.as_tensor(weights[name]) for name in wanted if name in weights}, strict=False)
    return encoder


def _linear(weight: NDArray[Any], bias: NDArray[Any]) -> Any:
    layer = torch.nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(np.asarray(weight.T, dtype=np.float32)))
        layer.bias.copy_(torch.as_tensor(np.asarray(bias, dtype=np.float32)))
    return layer


def _matrix(layer: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return layer.weight.detach().float().cpu().numpy().T.copy(), layer.bias.detach().float().cpu().numpy().copy()
