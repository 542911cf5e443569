"""JSON files of other people's making, read key by key: every complaint names the file and the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ConfigureError(Exception):
    """The repository cannot be filled; the text names the file and the key, or the option, and says what is wanted."""


class Facts:
    """One JSON file, asked by dotted keys such as `build_config.max_batch_size`."""

    def __init__(self, path: Path, values: Mapping[str, Any]):
        self.path = path
        self._values = values

    @classmethod
    def read(cls, path: Path, whose: str) -> Facts:
        """The file's content. Raises ConfigureError: no such file (`whose` says what it belongs to), or bad JSON."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigureError(f"{path}: {reason} ({whose})") from None
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigureError(f"{path}: line {error.lineno} is not JSON: {error.msg}") from None
        if not isinstance(values, dict):
            raise ConfigureError(f"{path}: is a JSON {type(values).__name__}, expected an object")
        return cls(path, values)

    def find(self, key: str) -> Any:
        """The value of a dotted key; None where it, or one on the way to it, is missing."""
        value: Any = self._values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def whole_number(self, key: str, low: int = 1, hint: str = "") -> int:
        """A whole number of at least `low`. Raises ConfigureError with file, key and `hint`."""
        value = self.find(key)
        if value is None:
            raise ConfigureError(f"{self.path}: key {key} is missing{hint and '; ' + hint}")
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ConfigureError(f"{self.path}: key {key} is {value!r}, expected a whole number of at least {low}")
        return value

    def flag(self, key: str) -> bool:
        """True or false; a missing key is false. Raises ConfigureError for anything else."""
        value = self.find(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise ConfigureError(f"{self.path}: key {key} is {value!r}, expected true or false")
