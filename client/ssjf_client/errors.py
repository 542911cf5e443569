"""Everything this library raises on purpose.

    ClientError
    ├── InvalidRequest       a field is wrong; nothing was queued
    ├── ServerUnavailable    refused for now: queue full, not ready, stopping (`retry_after_s` where the server says)
    │   └── ConnectionLost   no connection could be made, or it broke before the answer was complete
    ├── DeadlineExceeded     the client's or the server's time limit passed first
    ├── Cancelled            the request was cancelled, by this client or by a `stop` with the same id
    └── ServerError          anything else the server reports

The server's own words are always kept in the message.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = [
    "Cancelled",
    "ClientError",
    "ConnectionLost",
    "DeadlineExceeded",
    "InvalidRequest",
    "ServerError",
    "ServerUnavailable",
    "error_from_message",
    "error_from_rpc",
]


class ClientError(Exception):
    """Base of all errors of this library; `request_id` names the request where there is one."""

    request_id: str = ""


class InvalidRequest(ClientError):
    """A field of the request is wrong. `field` is empty when only the server could tell and did not name it."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ServerUnavailable(ClientError):
    """The server refuses for now. `retry_after_s`: the server's estimate in seconds, or None."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ConnectionLost(ServerUnavailable):
    """The connection could not be made, or broke before the answer was complete."""


class DeadlineExceeded(ClientError):
    """A time limit passed before the answer was complete."""


class Cancelled(ClientError):
    """The request was cancelled before its answer was complete."""


class ServerError(ClientError):
    """The server failed, or answered something that this library does not understand."""


# Triton's gRPC streams report a request's error as bare text. Its `triton_grpc_error` mode would give status codes, but
# in the releases we serve (2.51) it frees the stream's state while the backend may still send, which can take the
# server down. So the class is read from the words: those of our scheduler's errors, then Triton's own.
_INVALID_PHRASES: Final = re.compile(
    r"\bis .*, allowed: |needs the control_token"
    r"|unexpected (shape|datatype|data-type|inference (input|output)|additional)|inference input|input byte size"
    r"|batch.size must be|must specify|expected \d+ inputs? but got|unknown model|is not found\b|not supported",
    re.IGNORECASE | re.DOTALL,
)
_INVALID_CODES: Final = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED"}
)
_DEADLINE_PHRASES: Final = re.compile(r"\bdeadline\b|\btimed? ?out\b", re.IGNORECASE)
_CANCELLED_PHRASES: Final = re.compile(r"\bcancell?ed\b|client has gone|stopped before it", re.IGNORECASE)
_UNAVAILABLE_PHRASES: Final = re.compile(
    r"queue is full|maximum queue size|\bunavailable\b|shutting down|\bstopping\b|not ready|is draining"
    r"|retry (in|after)",
    re.IGNORECASE,
)
_RETRY: Final = re.compile(
    r"retry (?:in|after)(?: about)? (\d+(?:\.\d+)?) ?(ms|milliseconds?|s|seconds?)\b", re.IGNORECASE
)

# A status that gRPC made up on this side looks like one that the server sent, but for its words.
_LOCAL_UNAVAILABLE: Final = re.compile(
    r"connect|socket closed|goaway|cancelling all calls|keepalive|ping timeout|resolution|resolver|handshake"
    r"|stream removed|endpoint clos|broken pipe|transport|recvmsg|sendmsg|\b(tls|ssl)\b",
    re.IGNORECASE,
)
_LOCAL_DEADLINE: Final = re.compile(r"^(stream removed.*)?\(?deadline exceeded\)?$", re.IGNORECASE)


def retry_hint(message: str) -> float | None:
    """Seconds to wait before the next try, read from the server's message ("retry in 2.5 s"), or None."""
    found = _RETRY.search(message)
    if found is None:
        return None
    amount = float(found.group(1))
    return amount / 1000.0 if found.group(2).lower().startswith("m") else amount


def _code_from_phrases(message: str) -> str:
    """Best guess of the status code of a message that carries none."""
    if _INVALID_PHRASES.search(message):
        return "INVALID_ARGUMENT"
    if _DEADLINE_PHRASES.search(message):
        return "DEADLINE_EXCEEDED"
    if _UNAVAILABLE_PHRASES.search(message):
        return "UNAVAILABLE"
    if _CANCELLED_PHRASES.search(message):
        return "CANCELLED"
    return "UNKNOWN"


def _error_from_code(code: str, message: str) -> ClientError:
    if code in _INVALID_CODES:
        return InvalidRequest(message)
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(message)
    if code == "CANCELLED":
        return Cancelled(message)
    if code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        # Triton has no deadline code: what ran out of time in its queue is reported as unavailable.
        if _DEADLINE_PHRASES.search(message):
            return DeadlineExceeded(message)
        return ServerUnavailable(message, retry_hint(message))
    return ServerError(message)


def error_from_message(message: str) -> ClientError:
    """The error for `error_message` of a stream's response, which carries no status code."""
    return _error_from_code(_code_from_phrases(message), message)


def error_from_rpc(error: Any) -> ClientError:
    """The error for a failed call: `grpc.RpcError` of a sync call or `grpc.aio.AioRpcError`."""
    code = str(error.code().name) if error.code() is not None else "UNKNOWN"
    message = error.details() or code
    if code == "UNAVAILABLE" and _LOCAL_UNAVAILABLE.search(message):
        return ConnectionLost(message)
    if code == "DEADLINE_EXCEEDED" and _LOCAL_DEADLINE.search(message):
        return DeadlineExceeded("no complete answer within the request's timeout")
    return error_from_message(message) if code == "UNKNOWN" else _error_from_code(code, message)
