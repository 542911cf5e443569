"""Filling in a config.pbtxt as text: comments, which say why a value is what it is, stay where they are."""

from __future__ import annotations

import json
import re

from ssjf_tools.configure.facts import ConfigureError


def with_parameters(text: str, values: dict[str, str]) -> str:
    """`text` with these parameters; what it has is replaced in place, what it has not is added at its end."""
    for key, value in values.items():
        line = f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value, ensure_ascii=False)} }} }}'
        pattern = re.compile(rf'^parameters \{{ key: "{re.escape(key)}" .*$', re.MULTILINE)
        text, count = pattern.subn(lambda _match, line=line: line, text)  # type: ignore[misc]
        if not count:
            text = f"{text.rstrip()}\n{line}\n"
    return text


def with_batch_size(text: str, size: int) -> str:
    """`text` with `size` as the model's batch size, and as size and queue of its dynamic batcher if it has one."""
    text = _replaced(text, r"^(max_batch_size: )\d+", size, required=True)
    text = _replaced(text, r"(preferred_batch_size: \[ )\d+", size)
    return _replaced(text, r"(max_queue_size: )\d+", size)


def _replaced(text: str, pattern: str, number: int, required: bool = False) -> str:
    text, count = re.subn(pattern, rf"\g<1>{number}", text, count=1, flags=re.MULTILINE)
    if required and not count:
        raise ConfigureError(f"the template has nothing like {pattern!r}: is --templates this project's?")
    return text
