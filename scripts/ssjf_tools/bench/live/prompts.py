"""Prompts to ask: the bundled set, or a file of one's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssjf_tools.simulate.tables import InputError, open_text

BUNDLED = Path(__file__).with_name("prompts.jsonl")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. `max_tokens` is its own cap on the answer; None: the run's."""

    id: str
    text: str
    max_tokens: int | None = None


def load_prompts(path: Path) -> list[Prompt]:
    """JSON lines, plain or gzip: `prompt`; `id` (default: the line's number) and `max_tokens` may be there.

    Raises InputError, naming file, line and field, for what is no JSON object, a missing, empty or wrong field, an id
    given twice, and a file without prompts.
    """
    prompts: dict[str, Prompt] = {}
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            if text.strip():
                prompt = _read(path, line, text)
                if prompt.id in prompts:
                    raise InputError(
                        path, f"is {prompt.id!r}, as in a line above; ids must differ", line=line, column="id"
                    )
                prompts[prompt.id] = prompt
    if not prompts:
        raise InputError(path, "has no prompts", line=1)
    return list(prompts.values())


def _read(path: Path, line: int, text: str) -> Prompt:
    try:
        entry: Any = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise InputError(path, "is not a JSON object", line=line)
    if "prompt" not in entry:
        raise InputError(path, f"is missing; the line has: {', '.join(entry) or 'nothing'}", line=line, column="prompt")
    prompt, name, limit = entry["prompt"], entry.get("id", str(line)), entry.get("max_tokens")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(path, f"is {prompt!r}, expected a text that is not empty", line=line, column="prompt")
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise InputError(path, f"is {name!r}, expected a text", line=line, column="id")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(path, f"is {limit!r}, expected a whole number from 1 up", line=line, column="max_tokens")
    return Prompt(str(name), prompt, limit)
