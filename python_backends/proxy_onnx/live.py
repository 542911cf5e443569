"""The proxy in use, and its replacement while the server runs."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .contract import METADATA_FILE, check_successor, signature
from .errors import ProxyError, SwapError
from .metadata import ProxyMetadata
from .predict import Predictor

log = logging.getLogger("proxy.live")

TOKENIZER_FILE = "tokenizer.json"
_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class LoadedProxy:
    """A predictor, the metadata that it follows, and how to free what it holds."""

    metadata: ProxyMetadata
    predictor: Predictor
    close: Callable[[], None]


class LiveProxy:
    """Holds one proxy; `look` replaces it when its files have changed. `use` and `look` may be called on any threads.

    A new proxy is loaded and tried beside the old one, which answers meanwhile; only then they change places, between
    two calls. Files that changed since the last look are left alone until they are the same twice: somebody may still
    be copying. A new proxy that is broken, answers nonsense or may not follow the old one (contract.py) is logged once
    and the old one stays.
    """

    def __init__(self, folder: Path, files: Sequence[str], load: Callable[[], LoadedProxy]) -> None:
        """Load the first proxy from `folder`, whose `files` are watched. Raises ProxyError."""
        self._files = [folder / name for name in (METADATA_FILE, *files)]
        self._tokenizer = folder / TOKENIZER_FILE
        self._load = load
        self._using = threading.Lock()  # held while the proxy computes, and while it changes
        self._settled = self._seen = signature(self._files)
        self._tokenizer_digest = _digest(self._tokenizer)
        self._proxy = _tried(load())
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def use(self) -> Iterator[Predictor]:
        """The predictor, which is not replaced or freed while the block runs."""
        with self._using:
            yield self._proxy.predictor

    def start(self, period_s: float) -> None:
        """Look every `period_s` seconds on a thread of its own; 0 means never."""
        if period_s > 0:
            self._thread = threading.Thread(target=self._watch, args=(period_s,), name="proxy-watch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread and free the proxy."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S)
        with self._using:
            _free(self._proxy)

    def look(self) -> bool:
        """Replace the proxy if its files are others than those in use and have come to rest; says whether it did."""
        found, before = signature(self._files), self._seen
        self._seen = found
        if found is None or found == self._settled or found != before:
            return False
        try:
            new = self._successor()
        except Exception as error:  # whatever a file's content does to a runtime, the server keeps its proxy
            if signature(self._files) == found:
                self._settled = found
                log.error("a new proxy was found and refused, the old one stays in use: %s", error)
            return False
        if signature(self._files) != found:  # changed under our hands: what was loaded may be a mixture
            _free(new)
            return False
        with self._using:
            old, self._proxy = self._proxy, new
        self._settled = found
        log.info("the proxy was replaced by the one now in %s", self._files[0].parent)
        _free(old)
        return True

    def _successor(self) -> LoadedProxy:
        """The proxy in the folder, tried. Raises ProxyError, or what the runtime raises."""
        if _digest(self._tokenizer) != self._tokenizer_digest:
            raise SwapError(f"{self._tokenizer} is another one: restart the server to change the proxy's tokenizer")
        check_successor(self._proxy.metadata, ProxyMetadata.load(self._files[0]))
        return _tried(self._load())

    def _watch(self, period_s: float) -> None:
        while not self._ending.wait(period_s):
            self.look()


def _tried(proxy: LoadedProxy) -> LoadedProxy:
    """Run one row of every bucket's length, which also spares the first requests a runtime's first-time work."""
    try:
        for length in proxy.metadata.length_buckets:
            row = np.zeros((1, length), np.int32)
            (answer,) = proxy.predictor.predict([(row, np.ones_like(row))])
            if isinstance(answer, ProxyError):
                raise answer
    except BaseException:
        _free(proxy)
        raise
    return proxy


def _free(proxy: LoadedProxy) -> None:
    """What cannot be freed is lost, which must not end the thread that looks."""
    try:
        proxy.close()
    except ProxyError as error:
        log.error("a proxy that is no longer used could not be freed: %s", error)


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
