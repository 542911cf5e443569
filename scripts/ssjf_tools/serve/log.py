"""tritonserver's log file, read while it grows."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

_LOADED = re.compile(r"successfully loaded '([^']+)'")
# Triton's tables and stack traces say little; its own error lines say why it ended.
_ERROR = re.compile(r"^E\d{4} |^error:|Error:|Exception:|UNAVAILABLE:|terminate called|Signal \(")
# Said at every start without a GPU.
_NOISE = re.compile(r"CudaDriverHelper has not been initialized|^\|")
_KEPT_LINES = 400
_LINE_CHARACTERS = 400


class ServerLog:
    """Follows one log file from its present end. Owned by the supervisor's main thread."""

    def __init__(self, path: Path):
        self.path = path
        self._position = path.stat().st_size if path.exists() else 0
        self._part = ""
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def new_lines(self) -> list[str]:
        """The complete lines that were added since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        self._position += len(data)
        *lines, self._part = (self._part + data.decode("utf-8", "replace")).split("\n")
        self._lines.extend(lines)
        return lines

    def explanation(self, at_most: int = 12) -> list[str]:
        """The lines that best say what went wrong: the last errors, or the last lines when there are none."""
        self.new_lines()
        errors = [line for line in self._lines if _ERROR.search(line) and not _NOISE.search(line)]
        return [line[:_LINE_CHARACTERS] for line in (errors or list(self._lines))[-at_most:]]


def loaded_models(lines: list[str]) -> list[str]:
    """Names of the models that these lines of the log say were loaded, in their order."""
    return [match.group(1) for line in lines if (match := _LOADED.search(line))]
