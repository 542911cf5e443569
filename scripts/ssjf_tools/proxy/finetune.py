"""Fine-tunes encoder and head together. The only module that needs torch and transformers.

Training starts from the head that was fitted on the frozen encoder: from a random head the encoder is spoilt before the
head is any good (docs/proxy-model-card.md has the figures). Word embeddings stay as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from .encoder import EncoderSpec, Weights
from .head import Head

Progress = Callable[[str], None]
_CHUNK = 8  # batches whose rows are sorted by length together: little padding, still random


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Hyperparameters; the defaults are those of the shipped proxy."""

    epochs: int = 2
    batch: int = 16
    encoder_rate: float = 5e-5
    head_rate: float = 3e-4
    dropout: float = 0.15
    warm_up: float = 0.1  # share of the steps
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class TuneData:
    """Tokens of each prompt, [CLS] to [SEP], and its soft labels [prompts, K]."""

    rows: Sequence[NDArray[np.int32]]
    targets: NDArray[np.float64]


class _Proxy(torch.nn.Module):  # type: ignore[misc]
    """Encoder, pooling of every layer, standardised features, two linear maps."""

    def __init__(self, spec: EncoderSpec, weights: Weights, head: Head, scale: tuple[Any, Any], dropout: float) -> None:
        super().__init__()
        self.encoder = _encoder(spec, weights, dropout)
        self.encoder.embeddings.word_embeddings.weight.requires_grad = False
        self.dropout = torch.nn.Dropout(dropout)
        self.register_buffer("centre", torch.as_tensor(scale[0], dtype=torch.float32))
        self.register_buffer("spread", torch.as_tensor(scale[1], dtype=torch.float32))
        self.reduce = _linear(head.reduce_weight * scale[1][:, None], head.reduce_bias + scale[0] @ head.reduce_weight)
        self.expand = _linear(head.expand_weight, head.expand_bias)

    def forward(self, ids: Any, mask: Any) -> Any:
        """Logits [rows, K]."""
        with torch.autocast("cpu", torch.bfloat16):
            states = self.encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        real = mask[..., None].float()
        pooled = []
        for state in states:
            hidden = state.float()
            pooled += [(hidden * real).sum(1) / real.sum(1), (hidden + (real - 1) * 1e4).amax(1)]
        features = (torch.cat(pooled, dim=1) - self.centre) / self.spread
        return self.expand(self.dropout(self.reduce(self.dropout(features))))

    def head(self) -> Head:
        """The two linear maps on features as they come, FP32."""
        reduce, expand = self.reduce.weight.detach().double().T, self.expand.weight.detach().T
        weight = reduce / self.spread.double()[:, None]
        bias = self.reduce.bias.detach().double() - self.centre.double() @ weight
        parts = (weight, bias, expand, self.expand.bias.detach())
        return Head(*(part.float().numpy().copy() for part in parts))

    def encoder_weights(self) -> Weights:
        return {name: value.detach().float().numpy().copy() for name, value in self.encoder.state_dict().items()}


def fine_tune(
    data: TuneData,
    features: NDArray[np.float32],
    spec: EncoderSpec,
    weights: Weights,
    head: Head,
    settings: TuneSettings,
    checkpoint: Path,
    progress: Progress,
) -> tuple[Weights, Head]:
    """Tuned encoder weights and head.

    features: of the frozen encoder [prompts, D], for their scale only. After every epoch the state is written to
    `checkpoint`; a run that was killed goes on from there, and the file is removed at the end.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    spread = (features.std(axis=0) + 0.03) * math.sqrt(features.shape[1]) / 4
    model = _Proxy(spec, weights, head, (features.mean(axis=0), spread), settings.dropout)
    steps = settings.epochs * math.ceil(len(data.rows) / settings.batch)
    optimizer, schedule = _optimizer(model, settings, steps)
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    first = _resume(checkpoint, state)
    model.train()
    for epoch in range(first, settings.epochs):
        start = time.monotonic()
        loss = _epoch(model, optimizer, schedule, data, settings, epoch)
        _save(checkpoint, state, epoch + 1)
        left = (time.monotonic() - start) * (settings.epochs - epoch - 1)
        progress(f"epoch {epoch + 1}/{settings.epochs}: loss {loss:.4f}, {left:.0f} s left")
    checkpoint.unlink(missing_ok=True)
    model.eval()
    return model.encoder_weights(), model.head()


def _epoch(model: _Proxy, optimizer: Any, schedule: Any, data: TuneData, settings: TuneSettings, epoch: int) -> float:
    losses = []
    for chosen in _batches([len(row) for row in data.rows], settings, epoch):
        ids, mask = _pad([data.rows[index] for index in chosen])
        target = torch.as_tensor(data.targets[chosen], dtype=torch.float32)
        loss = -(target * torch.log_softmax(model(ids, mask), dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _batches(lengths: Sequence[int], settings: TuneSettings, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Indices of each batch; the order depends on seed and epoch alone, so a resumed run sees what it would have."""
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(lengths))
    size = settings.batch * _CHUNK
    for start in range(0, len(order), size):
        chunk = np.array(sorted(order[start : start + size], key=lambda index: lengths[index]))
        for place in range(0, len(chunk), settings.batch):
            yield chunk[place : place + settings.batch]


def _optimizer(model: _Proxy, settings: TuneSettings, steps: int) -> tuple[Any, Any]:
    encoder = [weight for weight in model.encoder.parameters() if weight.requires_grad]
    head = [*model.reduce.parameters(), *model.expand.parameters()]
    groups = [
        {"params": encoder, "lr": settings.encoder_rate, "weight_decay": 0.01},
        {"params": head, "lr": settings.head_rate, "weight_decay": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups)
    warm = max(1, round(settings.warm_up * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 1.0) * max(0.0, (steps - step) / max(steps, 1))
    )
    return optimizer, schedule


def _resume(checkpoint: Path, state: dict[str, Any]) -> int:
    """Load a state that `_save` wrote, if there is one; returns the epochs it has behind it."""
    if not checkpoint.is_file():
        return 0
    stored = torch.load(checkpoint, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(stored[name])
    return int(stored["epochs"])


def _save(checkpoint: Path, state: dict[str, Any], epochs: int) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    draft = checkpoint.with_suffix(".draft")
    torch.save({**{name: part.state_dict() for name, part in state.items()}, "epochs": epochs}, draft)
    draft.replace(checkpoint)


def _pad(rows: Sequence[NDArray[np.int32]]) -> tuple[Any, Any]:
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return ids, mask


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
