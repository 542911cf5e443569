"""What the service needs of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ssjf.service.messages import EngineChunk, EngineRequest


class EngineError(Exception):
    """The engine refused or failed a request; `message` is its own. `connection` when it could not be reached."""

    def __init__(self, message: str, connection: bool = False):
        super().__init__(message)
        self.connection = connection


class EngineAdapter(ABC):
    """One flavour of engine model: typed requests to its tensors, its responses to typed chunks. Stateless."""

    @abstractmethod
    def request_message(self, request: EngineRequest) -> Any:
        """A `ModelInferRequest` for one job, with a batch dimension of 1."""

    @abstractmethod
    def read_chunk(self, response: Any) -> EngineChunk | None:
        """The new tokens in a `ModelInferResponse`; None when it carries none (an empty final)."""
