"""What the service needs of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ssjf.service.messages import EngineChunk, EngineRequest, Generation


class EngineError(Exception):
    """The engine refused or failed a request; `message` is its own.

    `connection`: the fault is the engine's, not the request's: it could not be reached, broke off, or serves nobody.
    `sent`: False when the request surely never left this machine.
    """

    def __init__(self, message: str, connection: bool = False, sent: bool = True):
        super().__init__(message)
        self.connection = connection
        self.sent = sent


class EngineAdapter(ABC):
    """One flavour of engine model: typed requests to its tensors, its responses to typed chunks. Stateless.

    `takes_text`: the engine tokenizes itself, so that requests must carry the prompt's text.
    """

    takes_text: ClassVar[bool] = False

    def __init__(self, model: str):
        self.model = model

    def check(self, generation: Generation) -> None:  # noqa: B027 - most flavours leave the judgement to the engine
        """Raise InvalidRequest for an input that was set and that this flavour has no tensor for."""

    @abstractmethod
    def request_message(self, request: EngineRequest) -> Any:
        """A `ModelInferRequest` for one job, with a batch dimension of 1."""

    @abstractmethod
    def read_chunk(self, response: Any) -> EngineChunk | None:
        """The new tokens in a `ModelInferResponse`; None when it carries none (an empty final)."""
