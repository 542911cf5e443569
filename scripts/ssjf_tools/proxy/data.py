"""Prompts and measured output lengths from JSONL files; every error names file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINISHED = "stop"
CUT = "length"


class DataError(ValueError):
    """A line of a data file is wrong; the text starts with file:line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured answer: its length in tokens, and whether it was cut at the cap (censored)."""

    tokens: int
    censored: bool


@dataclass(frozen=True, slots=True)
class LabelledPrompt:
    """A prompt with every answer that was measured for it, at least one."""

    id: str
    text: str
    source: str
    samples: tuple[Sample, ...]
    group: str = ""  # name of the file that the prompt came from, without its ending


@dataclass(frozen=True, slots=True)
class FlatLabels:
    """Samples of many prompts in one row each: prompt[i] is the index of the prompt that sample i belongs to."""

    prompt: NDArray[np.int64]
    tokens: NDArray[np.int64]
    censored: NDArray[np.bool_]


def flatten(prompts: Sequence[LabelledPrompt]) -> FlatLabels:
    """All samples of all prompts, in order."""
    rows = [(index, sample) for index, prompt in enumerate(prompts) for sample in prompt.samples]
    return FlatLabels(
        prompt=np.array([index for index, _ in rows], dtype=np.int64),
        tokens=np.array([sample.tokens for _, sample in rows], dtype=np.int64),
        censored=np.array([sample.censored for _, sample in rows], dtype=np.bool_),
    )


def load_labelled(prompt_files: Sequence[Path], length_files: Sequence[Path]) -> list[LabelledPrompt]:
    """Join prompts and lengths by id; prompts nobody measured are left out. Order: as in the prompt files.

    A prompt line needs `id` and either `prompt` (text) or `messages` (list of {role, content}); `source` is optional.
    The scheduler's journal may stand for both: of its lines (they have an `outcome`) those count that finished, have
    their prompt and one sequence. Prompts of the same text become one with all their samples.

    A length line needs `id`, `output_tokens`, `finish` ('stop', or 'length' when cut at the cap); `sample` and `model`
    are optional. Raises DataError for a line that is not a JSON object, a missing or wrong field, an empty prompt, an
    id given twice, a length for an unknown id, a second length for the same sample, lengths of more than one model.
    """
    prompts = read_prompts(prompt_files)
    samples = _read_lengths(length_files, prompts)
    by_text: dict[str, LabelledPrompt] = {}
    for key, prompt in prompts.items():
        if key in samples:
            earlier = by_text.get(prompt.text, prompt)
            # One prompt, however often it was asked: otherwise a split by prompt would have it on both sides.
            by_text[prompt.text] = replace(earlier, samples=earlier.samples + tuple(samples[key]))
    return list(by_text.values())


def load_prompts(files: Sequence[Path]) -> dict[str, str]:
    """Texts by id, in order. Raises DataError as load_labelled does."""
    return {key: prompt.text for key, prompt in read_prompts(files).items()}


def read_prompts(files: Sequence[Path]) -> dict[str, LabelledPrompt]:
    """Prompts by id, in order, still without samples. Raises DataError as load_labelled does."""
    prompts: dict[str, LabelledPrompt] = {}
    for where, record in _records(files):
        if _is_left_out(record):
            continue
        key = _text(record, "id", where)
        if key in prompts:
            raise DataError(f"{where}: id {key!r} was given before")
        group = Path(where.rpartition(":")[0]).stem
        prompts[key] = LabelledPrompt(key, _prompt_text(record, where), str(record.get("source", "")), (), group)
    return prompts


def _read_lengths(files: Sequence[Path], prompts: Mapping[str, object]) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {}
    seen: set[tuple[str, int]] = set()
    first: tuple[str, Any] | None = None  # where a model was named first, and its name
    for where, record in _records(files):
        if _is_left_out(record):
            continue
        key = _text(record, "id", where)
        if key not in prompts:
            raise DataError(f"{where}: no prompt has id {key!r}")
        number = _whole(record, "sample", where, default=0)
        if (key, number) in seen:
            raise DataError(f"{where}: sample {number} of id {key!r} was given before")
        seen.add((key, number))
        first = first or (where, record.get("model"))
        if record.get("model") != first[1]:
            raise DataError(f"{where}: model is {record.get('model')!r}; {first[0]} has {first[1]!r}")
        samples.setdefault(key, []).append(_sample(record, where))
    return samples


def _is_left_out(record: Mapping[str, Any]) -> bool:
    """Whether this is a journal's line that teaches nothing: not finished, without prompt, or a mean of sequences."""
    if "outcome" not in record:
        return False
    taught = record["outcome"] == "finished" and "prompt" in record and record.get("sequences", 1) == 1
    # An answer that ended at once, or that a stop word cut to nothing, has no length to learn.
    return not taught or record.get("output_tokens") == 0


def _sample(record: Mapping[str, Any], where: str) -> Sample:
    tokens = _whole(record, "output_tokens", where)
    if tokens < 1:
        raise DataError(f"{where}: output_tokens is {tokens}; expected at least 1")
    finish = record.get("finish")
    if finish not in (FINISHED, CUT):
        raise DataError(f"{where}: finish is {finish!r}; expected {FINISHED!r} or {CUT!r}")
    return Sample(tokens=tokens, censored=finish == CUT)


def _prompt_text(record: Mapping[str, Any], where: str) -> str:
    if "messages" in record:
        return _conversation(record["messages"], where)
    return _text(record, "prompt", where)


def _conversation(messages: Any, where: str) -> str:
    """Earlier turns and the last one as one text; the encoder keeps the end when it is too long."""
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: messages must be a list with at least one entry")
    turns = []
    for index, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or not content.strip():
            raise DataError(f"{where}: messages[{index}] has no content")
        turns.append(content)
    return "\n".join(turns)


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {name} is {value!r}; expected text that is not empty")
    return value


def _whole(record: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    value = record.get(name, default)
    if type(value) is not int:
        raise DataError(f"{where}: {name} is {value!r}; expected a whole number")
    return value


def _records(files: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every line as ('file:line', JSON object); blank lines are skipped."""
    for file in files:
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise DataError(f"{file}: cannot be read: {error}") from error
        # Not splitlines(): JSON may hold U+2028 and the like unescaped, which are no line ends in JSONL.
        for number, line in enumerate(content.split("\n"), start=1):
            if line.strip():
                yield f"{file}:{number}", _json_object(line, f"{file}:{number}")


def _json_object(line: str, where: str) -> Mapping[str, Any]:
    loads: Callable[[str], Any] = json.loads
    try:
        record = loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON {type(record).__name__}; expected an object")
    return record
