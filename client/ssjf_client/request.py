"""What a caller asks for: one frozen, validated object per request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from .errors import InvalidRequest

__all__ = ["GenerateRequest", "as_request"]

_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1
_UINT64_MAX: Final = 2**64 - 1
_FLOAT32_MAX: Final = 3.4028234e38
_NAME_MAX_BYTES: Final = 256
_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt and how to answer it. A field left None is the server's choice.

    Raises InvalidRequest, naming field, value and limit, when a value cannot be right on any server; what depends on
    the model (context length, the largest `max_tokens`) the server checks.
    """

    text: str
    max_tokens: int = 256
    stop_words: Sequence[str] = ()
    bad_words: Sequence[str] = ()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    request_id: str = ""
    """Free text. Empty: the client makes a unique one (`stop` ends every live request with the same id)."""
    priority_class: int | None = None
    """0 is the most urgent."""
    tenant: str | None = None
    deadline_ms: int | None = None
    """Milliseconds from arrival at the server; a request that cannot start in time is refused or dropped."""
    expected_tokens: int | None = None
    """Output length as the caller knows it; only the policy `sjf-oracle` uses it."""
    timeout_s: float | None = None
    """Limit in seconds for the whole request, kept by client and server. None: the client's default."""

    def __post_init__(self) -> None:
        _check_text("text", self.text)
        _check_int("max_tokens", self.max_tokens, 1, _INT32_MAX)
        for name in ("stop_words", "bad_words"):
            object.__setattr__(self, name, _checked_words(name, getattr(self, name)))
        _check_float("temperature", self.temperature, least=0.0)
        _check_float("top_p", self.top_p, above=0.0, most=1.0)
        _check_optional_int("top_k", self.top_k, 0, _INT32_MAX)
        _check_optional_int("seed", self.seed, 0, _UINT64_MAX)
        _check_optional_int("min_tokens", self.min_tokens, 0, self.max_tokens)
        _check_float("repetition_penalty", self.repetition_penalty, above=0.0)
        _check_float("presence_penalty", self.presence_penalty)
        _check_float("frequency_penalty", self.frequency_penalty)
        _check_name("request_id", self.request_id)
        _check_optional_int("priority_class", self.priority_class, 0, _INT32_MAX)
        if self.tenant is not None:
            _check_text("tenant", self.tenant)
            _check_name("tenant", self.tenant)
        _check_optional_int("deadline_ms", self.deadline_ms, 1, _INT64_MAX)
        _check_optional_int("expected_tokens", self.expected_tokens, 1, _INT32_MAX)
        # A day is far above any answer and keeps the microseconds that Triton counts in within its integer.
        _check_float("timeout_s", self.timeout_s, above=0.0, most=86_400.0)


def as_request(request: GenerateRequest | str, options: dict[str, Any]) -> GenerateRequest:
    """A prompt and field values, or a request and values that replace its own, as one request.

    Raises InvalidRequest for a field that does not exist.
    """
    unknown = sorted(set(options) - set(GenerateRequest.__slots__))
    if unknown:
        known = ", ".join(GenerateRequest.__slots__)
        raise InvalidRequest(f"{unknown[0]}: no such field; the fields are {known}", unknown[0])
    if isinstance(request, GenerateRequest):
        return replace(request, **options) if options else request
    return GenerateRequest(request, **options)


def _refuse(name: str, value: object, limit: str) -> InvalidRequest:
    shown = repr(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "…"
    return InvalidRequest(f"{name}={shown}: must be {limit}", name)


def _check_text(name: str, value: object) -> None:
    _check_utf8(name, value)
    if not value:
        raise _refuse(name, value, "a non-empty string")


def _check_name(name: str, value: str) -> None:
    if _check_utf8(name, value) > _NAME_MAX_BYTES:
        raise _refuse(name, value, f"at most {_NAME_MAX_BYTES} bytes in UTF-8")


def _check_utf8(name: str, value: object) -> int:
    """The value's length in UTF-8 bytes."""
    if not isinstance(value, str):
        raise _refuse(name, value, "a string")
    try:
        return len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        limit = f"text that UTF-8 can carry (lone surrogate at position {error.start})"
        raise _refuse(name, value, limit) from None


def _checked_words(name: str, value: Sequence[str]) -> tuple[str, ...]:
    # A lone string is a sequence of one-letter strings to Python, never what the caller meant.
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _refuse(name, value, "a list of strings")
    for word in value:
        _check_text(name, word)
    return tuple(value)


def _check_int(name: str, value: object, least: int, most: int) -> None:
    # bool is a subclass of int in Python.
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _refuse(name, value, f"an integer from {least} to {most}")


def _check_optional_int(name: str, value: object, least: int, most: int) -> None:
    if value is not None:
        _check_int(name, value, least, most)


def _check_float(
    name: str, value: object, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    if value is None:
        return
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= _FLOAT32_MAX  # false for NaN and infinities too
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
    ):
        return
    limit = "a finite number" + (f" of at least {least:g}" if least is not None else "")
    limit += f" above {above:g}" if above is not None else ""
    limit += f" and at most {most:g}" if most is not None else ""
    raise _refuse(name, value, limit)
