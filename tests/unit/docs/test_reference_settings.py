"""The page of the settings: every key is explained, and its range is the one that its class keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from openvino_llm.settings import EngineSettings
from ssjf.core.settings import CoreSettings
from ssjf_tools.reference_settings import ALLOWED, MEANINGS, SECTIONS, Range, page

CLASSES = list(dict.fromkeys(cls for _model, classes in SECTIONS for cls in classes))
# Other keys that have to move along so that only the one in question is judged.
BESIDE: dict[type[Any], dict[str, Any]] = {EngineSettings: {"max_batched_tokens": 1 << 16}}


def names(cls: type[Any]) -> list[str]:
    return [entry.name for entry in fields(cls)]


def ranges() -> Iterator[Any]:
    for cls in CLASSES:
        for key, allowed in ALLOWED[cls].items():
            # The core's table is the one that it checks by, with ties between keys besides.
            if isinstance(allowed, Range) and cls is not CoreSettings:
                yield pytest.param(cls, key, allowed, id=f"{cls.__name__}-{key}")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_key_has_a_meaning(cls: type[Any]) -> None:
    assert list(MEANINGS[cls]) == names(cls)
    assert [key for key, meaning in MEANINGS[cls].items() if len(meaning.split()) < 2 or "|" in meaning] == []


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_number_has_a_range(cls: type[Any]) -> None:
    numbers = {entry.name for entry in fields(cls) if str(entry.type).split(" |")[0] in ("int", "float")}
    assert numbers <= ALLOWED[cls].keys() <= set(names(cls))


@pytest.mark.parametrize(("cls", "key", "allowed"), list(ranges()))
def test_a_class_takes_the_ends_of_its_ranges_and_nothing_beyond(cls: type[Any], key: str, allowed: Range) -> None:
    others = BESIDE.get(cls, {})
    whole = "int" in str(cls.__dataclass_fields__[key].type)
    step = 1 if whole else 1e-3
    low, below = (allowed.low + step, allowed.low) if allowed.above else (allowed.low, allowed.low - step)
    for taken in (low, 2**40 if allowed.high is None else allowed.high):
        assert getattr(cls(**{**others, key: taken}), key) == taken
    for refused in (below, *(() if allowed.high is None else (allowed.high + step,))):
        with pytest.raises(ValueError, match=f"{key} is "):
            cls(**{**others, key: refused})


@pytest.mark.parametrize(
    "row",
    [
        "| `batch_size` | int | `8` | 1 to 2^31 - 1 | jobs of a group, for `batching` dynamic. *live* |",
        "| `max_queue_bytes` | int | `268435456` | 1 to 2^53 | ",
        "| `max_wait_s` | float | `60.0` | 0.001 to inf | ",
        "| `random_seed` | int | `0` | 0 to 2^64 - 1 | ",
        "| `batching` | str | `continuous` | none, dynamic, continuous | ",
        "| `tenant_weights` | Mapping[str, float] | `{}` | weights 1e-06 to 1000000 | ",
        "| `cancel_poll_s` | float | `0.05` | above 0, at most 86400 | ",
        "| `control_token` | str or None | `none` |  | switches control requests on",
    ],
    ids=lambda row: row.split("`")[1],
)
def test_a_row_says_type_default_range_and_meaning(row: str) -> None:
    assert row in page()
