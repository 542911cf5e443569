"""What a blocking and an asynchronous answer have in common: how they are left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exchange import Exchange, Generation

__all__ = ["OpenAnswer"]


class OpenAnswer:
    """One request under way. Dropping the last reference leaves it, as `close()` does."""

    def __init__(self, call: Any, exchange: Exchange, stop: Callable[[str], None]) -> None:
        """`call`: the gRPC call that carries `exchange`; `stop` ends a request that the server cannot see leave."""
        self._call = call
        self._exchange = exchange
        self._stop = stop
        self._over = False
        self._left = False

    @property
    def request_id(self) -> str:
        """The id the server knows the request by."""
        return self._exchange.request_id

    @property
    def result(self) -> Generation:
        """What has come so far; the whole answer once the iteration has ended by itself."""
        return self._exchange.result()

    def close(self) -> None:
        """Cancels the request unless its answer is complete. Does nothing the second time."""
        if self._left:
            return
        self._left = True
        if self._exchange.live:
            self._call.cancel()
            if self._exchange.door == "ensemble":
                self._stop(self._exchange.request_id)

    def __del__(self) -> None:
        self.close()
