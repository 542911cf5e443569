"""Tunes a proxy with transformers' Trainer, so `accelerate launch` spreads it over GPUs. Needs torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from .network import ProxyNetwork
from .objectives import Objective, Targets

_STEPS_BETWEEN_SAVES = 50


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Hyperparameters; the defaults are ours, PAPER those of the paper's code."""

    head: str = "distribution"
    epochs: int = 2
    batch: int = 16
    encoder_rate: float = 5e-5
    head_rate: float = 3e-4
    dropout: float = 0.15
    warm_up: float = 0.1  # share of the steps
    frozen_layers: int = 0  # lowest layers that stay as they are
    frozen_after: int | None = None  # epochs after which the whole encoder stays as it is
    paper_head: bool = False
    seed: int = 0
    threads: int = 1


# Qiu et al. 2024: AdamW at 1e-5 for all, linear decay, six epochs, the encoder only in the first three. Their code then
# sets a rate of 1e-4, which its schedule overwrites one step later; here it is left out.
PAPER: Mapping[str, Any] = {
    "epochs": 6,
    "encoder_rate": 1e-5,
    "head_rate": 1e-5,
    "dropout": 0.1,
    "warm_up": 0.0,
    "frozen_after": 3,
    "paper_head": True,
}


Lower = tuple[Any, Any]  # pooled features of the frozen layers, states of the last of them [length, width]


@dataclass(frozen=True, slots=True)
class TuneData:
    """Tokens of each prompt, [CLS] to [SEP]; its mean length in tokens [n]; its soft labels [n, K].

    lower: what the frozen layers give for each row (run_frozen), so that they need not be run in every epoch.
    """

    rows: Sequence[NDArray[np.int32]]
    tokens: NDArray[np.float64]
    shares: NDArray[np.float64]
    lower: Sequence[Lower] | None = None


def tune_network(
    network: ProxyNetwork, objective: Objective, data: TuneData, settings: TuneSettings, state: Path
) -> None:
    """Train `network` in place.

    Trainer's checkpoints go to the folder `state`; a run that was killed goes on from the last of them. Progress bars
    come from Trainer.
    """
    torch.set_num_threads(settings.threads)
    rows = [{"input_ids": torch.as_tensor(row, dtype=torch.long), "place": n} for n, row in enumerate(data.rows)]
    trainer = _ProxyTrainer(
        network,
        _arguments(settings, state),
        train_dataset=rows,
        data_collator=_Collator(data),
        callbacks=[_FreezeEncoder(network, settings.frozen_after)],
    )
    trainer.objective, trainer.settings = objective, settings
    weights = torch.as_tensor(objective.class_weights(data.tokens), dtype=torch.float32)
    trainer.class_weights = weights.to(trainer.args.device)
    last = get_last_checkpoint(str(state)) if state.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    network.cpu().eval()


@torch.no_grad()  # type: ignore[untyped-decorator]
def network_outputs(
    network: ProxyNetwork, rows: Sequence[NDArray[np.int32]], lower: Sequence[Lower] | None = None
) -> NDArray[np.float64]:
    """The outputs for each row of tokens [n, outputs]."""
    network.eval()
    outputs: list[Any] = [None] * len(rows)
    for chosen in _batches(rows):
        ids, mask = _pad([rows[index] for index in chosen])
        given = {} if lower is None else _stacked([lower[index] for index in chosen])
        for index, row in zip(chosen, network(ids, mask, **given).double().numpy(), strict=True):
            outputs[index] = row
    return np.stack(outputs)


def _stacked(lower: Sequence[Lower]) -> dict[str, Any]:
    states = [own.float() for _, own in lower]
    return {
        "lower": torch.stack([pooled for pooled, _ in lower]),
        "states": torch.nn.utils.rnn.pad_sequence(states, batch_first=True),
    }


def _arguments(settings: TuneSettings, state: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(state),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        lr_scheduler_type="linear",
        warmup_steps=settings.warm_up,  # below 1: a share of the steps
        max_grad_norm=1.0,
        train_sampling_strategy="group_by_length",
        save_steps=_STEPS_BETWEEN_SAVES,
        save_total_limit=1,
        logging_steps=_STEPS_BETWEEN_SAVES,
        report_to=[],
        seed=settings.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=bool(os.environ.get("SSJF_QUIET")),
    )


class _ProxyTrainer(Trainer):  # type: ignore[misc]
    """Trainer with our losses, and two learning rates: the encoder's and the head's."""

    objective: Objective
    settings: TuneSettings
    class_weights: Any

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        targets = Targets(inputs.pop("tokens"), inputs.pop("shares"), self.class_weights)
        outputs = model(**inputs).float()
        loss = self.objective.loss(outputs, targets)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> Any:
        network = model if model is not None else self.model
        groups: dict[bool, list[Any]] = {True: [], False: []}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                groups[".encoder." in f".{name}" and "expand" not in name].append(parameter)
        settings = self.settings
        paper = settings.paper_head
        self.optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "lr": settings.encoder_rate, "weight_decay": 0.01},
                {"params": groups[False], "lr": settings.head_rate, "weight_decay": 0.01 if paper else 0.1},
            ]
        )
        return self.optimizer


class _FreezeEncoder(TrainerCallback):  # type: ignore[misc]
    """Stops training the encoder after some epochs, as the paper's code does after three."""

    def __init__(self, network: ProxyNetwork, after: int | None) -> None:
        self._network, self._after = network, after

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if self._after is not None and state.epoch is not None and state.epoch >= self._after - 1e-6:
            for parameter in self._network.encoder.parameters():
                parameter.requires_grad = False
                parameter.grad = None


class _Collator:
    """Pads rows to the longest of their batch and adds what is known about them."""

    def __init__(self, data: TuneData) -> None:
        self._lower = data.lower
        self._tokens = torch.as_tensor(data.tokens, dtype=torch.float32)
        self._shares = torch.as_tensor(data.shares, dtype=torch.float32)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        places = [row["place"] for row in rows]
        ids, mask = _pad([row["input_ids"] for row in rows])
        given = {} if self._lower is None else _stacked([self._lower[place] for place in places])
        known = {"tokens": self._tokens[places], "shares": self._shares[places]}
        return {"input_ids": ids, "attention_mask": mask, **given, **known}


def run_frozen(network: ProxyNetwork, rows: Sequence[NDArray[np.int32]], threads: int) -> list[Lower]:
    """What the frozen layers give for each row; states in BF16, to keep thousands in memory."""
    torch.set_num_threads(threads)
    network.eval()
    found: list[Any] = [None] * len(rows)
    for chosen in _batches(rows):
        ids, mask = _pad([rows[index] for index in chosen])
        pooled, states = network.lower(ids, mask)
        for place, index in enumerate(chosen):
            found[index] = (pooled[place].clone(), states[place, : len(rows[index])].to(torch.bfloat16).clone())
    return found


def _batches(rows: Sequence[NDArray[np.int32]], size: int = 16) -> list[list[int]]:
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _pad(rows: Sequence[Any]) -> tuple[Any, Any]:
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return ids, mask
