"""What a proxy that takes over on a running server must have in common with the one before it.

Three processes read proxy.json: the predictor, the tokenizer (how texts are cut), the scheduler (what the bins mean).
They notice a new one seconds apart and the answer's tensor does not say which proxy made it. So what would make them
misread each other may not change while serving; the bins' means may, since a mean lies inside its bin's edges.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from .errors import ProxyError, SwapError
from .metadata import ProxyMetadata

log = logging.getLogger("proxy.contract")

FIXED = ("format", "bin_edges", "max_length", "truncation", "vocab_size", "text")
METADATA_FILE = "proxy.json"

Signature = tuple[tuple[int, int, int], ...]


def check_successor(old: ProxyMetadata, new: ProxyMetadata) -> None:
    """Raises SwapError, which names the first field of proxy.json that may not change on a running server."""
    for name in FIXED:
        if old.raw.get(name) != new.raw.get(name):
            raise SwapError(
                f"{name} is {new.raw.get(name)!r} in the new proxy.json and {old.raw.get(name)!r} in the one in use; "
                "tokenizer and scheduler read it at their start: restart the server to change it"
            )


def signature(files: list[Path]) -> Signature | None:
    """What tells one state of these files from another: inode, size, time of change (ns). None while one is missing."""
    try:
        found = [file.stat() for file in files]
    except OSError:
        return None
    return tuple((entry.st_ino, entry.st_size, entry.st_mtime_ns) for entry in found)


class LiveMetadata:
    """The proxy.json of a folder as it is now, for a process that only reads distributions. One thread uses it.

    At most every `period_s` it looks at the file, and reads it again when it has changed. One that is broken or may
    not follow the one in use is logged once and left alone.
    """

    def __init__(
        self, folder: Path, metadata: ProxyMetadata, period_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = folder / METADATA_FILE
        self._metadata = metadata
        self._period_s = period_s
        self._clock = clock
        self._seen = signature([self._file])
        self._next = clock() + period_s

    def current(self) -> ProxyMetadata:
        """The metadata to read distributions by."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._period_s
            self._look()
        return self._metadata

    def _look(self) -> None:
        found = signature([self._file])
        if found is None or found == self._seen:
            return
        self._seen = found
        try:
            new = ProxyMetadata.load(self._file)
            check_successor(self._metadata, new)
        except ProxyError as error:
            log.error("the proxy.json in use stays: %s", error)
            return
        self._metadata = new
        log.info("%s has changed: distributions are read by its bins from now on", self._file)
