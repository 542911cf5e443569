"""The journal's files: appended line by line, rotated by size, never left with half a line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_MODE = 0o640  # prompts may be in there
_TAIL_BYTES = 65_536


class RotatingFile:
    """`path` and its older ones `path.1` (newest) to `path.<files - 1>`, each of at most `max_bytes`.

    A line longer than that gets a file of its own. Not thread-safe: the journal's thread owns it. Any error closes the
    file; the next write opens it anew, as a restart would.
    """

    def __init__(self, path: Path, max_bytes: int, files: int):
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor: int | None = None
        self._size = 0

    def write(self, lines: list[bytes]) -> int:
        """Append whole lines, all or none of those that go into one file; see Sink."""
        written = 0
        try:
            for part in self._parts(lines):
                self._append(part)
                written += len(part)
        except OSError:
            self.close()
            if not written:
                raise
        return written

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _parts(self, lines: list[bytes]) -> list[list[bytes]]:
        """The lines, divided where a new file has to begin."""
        self._open()
        parts: list[list[bytes]] = [[]]
        size = self._size
        for line in lines:
            if size and size + len(line) > self._max_bytes:
                parts.append([])
                size = 0
            parts[-1].append(line)
            size += len(line)
        return parts

    def _append(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        if not data:
            return
        descriptor = self._open()
        written = os.write(descriptor, data)
        if written < len(data):  # the disk is full: no half line may stay
            os.ftruncate(descriptor, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += written

    def _open(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
            self._size = _cut_torn_line(self._descriptor)
        return self._descriptor

    def _rotate(self) -> None:
        self.close()
        for number in range(self._files - 1, 0, -1):
            newer = self._numbered(number - 1)
            if newer.exists():
                newer.replace(self._numbered(number))
        if self._files == 1:
            self._path.unlink()
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


def _cut_torn_line(descriptor: int) -> int:
    """Cut what follows the last newline, where a process died in the middle of a line; returns the file's size."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
    return end
