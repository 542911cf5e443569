"""What can go wrong in the engine.

EngineError
├── InvalidInput        one request is at fault; names the tensor, its value and the limit
├── EngineUnavailable   the inference process is starting again; the same request may succeed a few seconds later
└── EngineStartError    the inference process cannot start: assets missing, bad settings, no interpreter
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors of the CPU engine."""


class InvalidInput(EngineError):
    """A tensor of one request cannot be honoured: names the tensor, the value and what is allowed."""

    def __init__(self, field: str, value: object, limit: str):
        super().__init__(f"{field} is {value}, expected {limit}")
        self.field = field


class EngineUnavailable(EngineError):
    """The inference process died or is being restarted."""


class EngineStartError(EngineError):
    """The inference process cannot be started."""
