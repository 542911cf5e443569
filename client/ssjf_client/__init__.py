"""Client of the shortest-job-first scheduler for LLM serving on Triton.

from ssjf_client import Client

with Client("127.0.0.1:8001") as client:
    print(client.generate("What is a queue?", max_tokens=64).text)
    for chunk in client.stream("Tell me a story.", max_tokens=200):
        print(chunk.text, end="", flush=True)  # leaving the loop cancels the request on the server
"""

from __future__ import annotations

from .aio import AsyncClient, AsyncStream
from .client import Client, Stream
from .connection import TlsOptions
from .errors import (
    Cancelled,
    ClientError,
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    ServerError,
    ServerUnavailable,
)
from .exchange import Chunk, FinishReason, Generation
from .request import GenerateRequest
from .status import Status
from .wire import Door, SettingValue, infer_inputs

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Chunk",
    "Client",
    "ClientError",
    "ConnectionLost",
    "DeadlineExceeded",
    "Door",
    "FinishReason",
    "GenerateRequest",
    "Generation",
    "InvalidRequest",
    "ServerError",
    "ServerUnavailable",
    "SettingValue",
    "Status",
    "Stream",
    "TlsOptions",
    "infer_inputs",
]
