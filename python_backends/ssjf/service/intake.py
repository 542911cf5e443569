"""The door: a Triton request is checked once, here, and becomes typed rows. Inside, types are trusted.

Every error names the field, the value and the limit and concerns this request alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssjf.core.errors import InvalidRequest
from ssjf.service.messages import Call, Generation
from ssjf.service.settings import ServiceSettings
from ssjf.tensors import CLIENT_TO_ENGINE, FLAGGED_OUTPUTS

_INT32_MAX = 2**31 - 1
_MAX_DEADLINE_MS = 7 * 24 * 3_600_000
_MAX_TENANT_BYTES = 128
# W3C Trace Context, level 1: version, trace id, parent id, flags; an id of zeros and version ff mean nothing.
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class _Range:
    """Allowed values of a numeric input; the text is what the client reads."""

    low: float
    high: float
    text: str

    def check(self, field: str, value: float) -> None:
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise InvalidRequest(field, value, self.text)


_TOKEN_ID = _Range(-1, _INT32_MAX, "a token id, or -1 for none")
_ANY_FINITE = _Range(-3.4e38, 3.4e38, "a finite number")
_RANGES: Mapping[str, _Range] = {
    "end_id": _TOKEN_ID,
    "pad_id": _TOKEN_ID,
    "top_k": _Range(0, _INT32_MAX, "a whole number of at least 0"),
    "top_p": _Range(0.0, 1.0, "0 to 1"),
    "temperature": _Range(0.0, 1e6, "a finite number of at least 0"),
    "length_penalty": _ANY_FINITE,
    "repetition_penalty": _Range(1e-6, 1e6, "a finite number above 0"),
    "presence_penalty": _ANY_FINITE,
    "frequency_penalty": _ANY_FINITE,
    "beam_width": _Range(1, 256, "1 to 256"),
    "num_return_sequences": _Range(1, 256, "1 to 256"),
}


def read_rows(call: Call, settings: ServiceSettings, priority_classes: int) -> tuple[Generation, ...]:
    """The rows of a request, validated. Raises InvalidRequest for the first thing that is wrong."""
    if "text_input" not in call.tensors and "input_ids" not in call.tensors:
        raise InvalidRequest("text_input", "nothing", "one text a row")
    first = next(iter(call.tensors.values()))
    limits = _Requested.of(call, priority_classes)
    return tuple(_read_row(call, row, limits, settings) for row in range(first.shape[0]))


def wants_stop(call: Call) -> bool:
    """True for a request whose `stop` input is set: it ends others instead of asking for text."""
    stop = call.tensors.get("stop")
    return stop is not None and bool(stop.any())


@dataclass(frozen=True, slots=True)
class _Requested:
    """What came as request parameters (over HTTP generate: extra JSON keys); the same for every row."""

    priority_class: int
    tenant: str
    deadline: float | None
    expected_tokens: float | None
    context: Mapping[str, str]

    @classmethod
    def of(cls, call: Call, priority_classes: int) -> _Requested:
        values = call.parameters
        priority = _number(values, "priority_class", 0, priority_classes - 1, whole=True)
        deadline_ms = _number(values, "deadline_ms", 1, _MAX_DEADLINE_MS)
        timeout_us = call.timeout_us or _number(values, "timeout", 0, _MAX_DEADLINE_MS * 1e3) or 0
        deadlines = [call.arrival + deadline_ms / 1e3] if deadline_ms is not None else []
        deadlines += [call.arrival + timeout_us / 1e6] if timeout_us else []
        return cls(
            priority_class=int(priority or 0),
            tenant=_tenant(values),
            deadline=min(deadlines, default=None),
            expected_tokens=_number(values, "expected_tokens", 0, _INT32_MAX),
            context=_context(call),
        )


def _number(values: Mapping[str, Any], name: str, low: float, high: float, whole: bool = False) -> float | None:
    """A request parameter as a number; text that reads as one counts, since some clients only send text."""
    value = values.get(name)
    if value is None:
        return None
    limit = f"a {'whole ' if whole else ''}number from {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidRequest(name, value, limit)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise InvalidRequest(name, value, limit) from None
    if not low <= number <= high or (whole and number != int(number)):
        raise InvalidRequest(name, value, limit)
    return number


def _tenant(values: Mapping[str, Any]) -> str:
    tenant = values.get("tenant", "")
    if not isinstance(tenant, str) or len(tenant.encode("utf-8", "replace")) > _MAX_TENANT_BYTES:
        raise InvalidRequest("tenant", tenant, f"text of at most {_MAX_TENANT_BYTES} bytes")
    return tenant


def _context(call: Call) -> Mapping[str, str]:
    """What travels on to the engine. A malformed trace context is left out, as its standard asks: it fails nobody."""
    context = {"client_request_id": call.request_id} if call.request_id else {}
    trace = call.parameters.get("traceparent")
    if isinstance(trace, str) and _TRACE_PARENT.fullmatch(trace):
        context["traceparent"] = trace
    return context


def _read_row(call: Call, row: int, requested: _Requested, settings: ServiceSettings) -> Generation:
    tensors = {name: value[row : row + 1] for name, value in call.tensors.items()}
    max_tokens = _max_tokens(tensors, settings.max_output_tokens)
    for name, allowed in _RANGES.items():
        if name in tensors:
            allowed.check(name, float(tensors[name].reshape(-1)[0]))
    beams, returned = _scalar(tensors, "beam_width", 1), _scalar(tensors, "num_return_sequences", 1)
    stream = bool(_scalar(tensors, "stream", False))
    if beams > 1 and stream:
        raise InvalidRequest("stream", True, "false when beam_width is above 1 (beams are only known at the end)")
    return Generation(
        row=row,
        text=_text(tensors),
        max_tokens=max_tokens,
        min_tokens=_min_tokens(tensors, max_tokens),
        stream=stream,
        echo=not bool(_scalar(tensors, "exclude_input_in_output", not settings.echo_prompt)) and not stream,
        stop_words=_words(tensors, "stop_words", settings),
        bad_words=_words(tensors, "bad_words", settings),
        biased_words=_biased_words(tensors, settings),
        prompt_table_extra_id=_optional_scalar(tensors, "prompt_table_extra_id"),
        beams=beams,
        sequences=beams * returned,
        flagged_outputs=_flagged_outputs(tensors),
        engine_inputs={CLIENT_TO_ENGINE[name]: value for name, value in tensors.items() if name in CLIENT_TO_ENGINE},
        prompt_ids=_prompt_ids(tensors),
        distribution=tensors["length_distribution"][0] if "length_distribution" in tensors else None,
        priority_class=requested.priority_class,
        tenant=requested.tenant,
        deadline=requested.deadline,
        expected_tokens=requested.expected_tokens,
        context=requested.context,
    )


def _scalar(tensors: Mapping[str, NDArray[Any]], name: str, default: int) -> int:
    return int(tensors[name].reshape(-1)[0]) if name in tensors else default


def _optional_scalar(tensors: Mapping[str, NDArray[Any]], name: str) -> int | None:
    return int(tensors[name].reshape(-1)[0]) if name in tensors else None


def _flagged_outputs(tensors: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    return tuple(name for flag, names in FLAGGED_OUTPUTS.items() if _scalar(tensors, flag, False) for name in names)


def _max_tokens(tensors: Mapping[str, NDArray[Any]], limit: int) -> int:
    if "max_tokens" not in tensors:
        raise InvalidRequest("max_tokens", "nothing", f"1 to {limit}")
    value = _scalar(tensors, "max_tokens", 0)
    if not 1 <= value <= limit:
        raise InvalidRequest("max_tokens", value, f"1 to {limit}")
    return value


def _min_tokens(tensors: Mapping[str, NDArray[Any]], max_tokens: int) -> int:
    name = "min_tokens" if "min_tokens" in tensors else "min_length"
    value = _scalar(tensors, name, 0)
    if not 0 <= value <= max_tokens:
        raise InvalidRequest(name, value, f"0 to max_tokens ({max_tokens})")
    return value


def _text(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    if "text_input" not in tensors:
        return b""
    value = tensors["text_input"].reshape(-1)[0]
    return value if isinstance(value, bytes) else str(value).encode()


def _words(tensors: Mapping[str, NDArray[Any]], name: str, settings: ServiceSettings) -> tuple[str, ...]:
    """Stop or bad words of a row. Empty texts mean none: clients pad rows with them."""
    if name not in tensors:
        return ()
    raw = [word for word in tensors[name].reshape(-1) if word]
    if len(raw) > settings.max_stop_words:
        raise InvalidRequest(name, f"{len(raw)} words", f"at most {settings.max_stop_words}")
    return tuple(_word(name, word, settings.max_word_bytes) for word in raw)


def _word(name: str, word: bytes, limit: int) -> str:
    if len(word) > limit:
        raise InvalidRequest(name, f"a word of {len(word)} bytes", f"at most {limit} bytes a word")
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(name, word[:32], "UTF-8 text") from None


def _biased_words(tensors: Mapping[str, NDArray[Any]], settings: ServiceSettings) -> tuple[tuple[str, float], ...]:
    words = _words(tensors, "embedding_bias_words", settings)
    weights = [float(weight) for weight in tensors.get("embedding_bias_weights", np.zeros(0)).reshape(-1)]
    if len(words) != len(weights):
        raise InvalidRequest("embedding_bias_weights", f"{len(weights)} weights", f"one for each of {len(words)} words")
    for weight in weights:
        _ANY_FINITE.check("embedding_bias_weights", weight)
    return tuple(zip(words, weights, strict=True))


def _prompt_ids(tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.int32] | None:
    if "input_ids" not in tensors:
        return None
    ids = tensors["input_ids"][0]
    length = _scalar(tensors, "input_lengths", ids.shape[0])
    if not 1 <= length <= ids.shape[0]:
        raise InvalidRequest("input_lengths", length, f"1 to {ids.shape[0]}, the width of input_ids")
    prompt_ids: NDArray[np.int32] = ids[:length].astype(np.int32, copy=False)
    return prompt_ids
