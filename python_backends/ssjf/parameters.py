"""From a model's `parameters` (all strings) and the environment to typed settings objects.

A component declares its settings as frozen dataclasses whose `__post_init__` checks ranges; this module only converts.
`SSJF_<KEY>` in the environment beats the parameter `<key>`, so that `scripts/serve` can set ports, policy and limits
without writing into the model repository.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar

SettingsT = TypeVar("SettingsT")

# `${NAME}` or `${NAME:-default}` in a value is taken from the environment, as a shell would.
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

# How alike a variable's name and a setting's are (difflib) when one is taken for a slip of the other: a missing or
# doubled letter, two swapped ones, a forgotten unit.
_SLIP = 0.9

# Keys that Triton's Python backend itself reads from a model's parameters.
TRITON_KEYS = frozenset({"EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS", "TRITON_BATCH_STRATEGY_PATH"})


class ConfigurationError(ValueError):
    """A setting is unknown, has the wrong type or is out of range: names the model, the key and the value."""


class Parameters:
    """The raw settings of one model: its config.pbtxt's `parameters`, the environment, and where paths start."""

    def __init__(self, model: str, values: Mapping[str, str], environment: Mapping[str, str], base: Path):
        self.model = model
        self._values = {key: value for key, value in values.items() if key not in TRITON_KEYS}
        self._environment = environment
        self._base = base

    @classmethod
    def of_model(cls, args: Mapping[str, str], environment: Mapping[str, str]) -> Parameters:
        """From the `args` that Triton hands to `initialize`; relative paths start beside the model repository."""
        config = json.loads(args["model_config"])
        values = {key: entry["string_value"] for key, entry in config.get("parameters", {}).items()}
        repository = Path(args["model_repository"]).resolve()  # .../model_repository/<model>
        return cls(args["model_name"], values, environment, repository.parent.parent)

    def check_known(self, *classes: type[Any]) -> None:
        """Raise ConfigurationError for a parameter that none of the settings classes has."""
        known = sorted({entry.name for cls in classes for entry in fields(cls)})
        for key in self._values:
            if key not in known:
                raise ConfigurationError(f"{self.model}: unknown parameter {key!r}; known: {', '.join(known)}")

    def slips(self, *classes: type[Any]) -> list[tuple[str, str]]:
        """Variables of the environment that set nothing here but read like one that would, each with that one.

        Variables of other models share the prefix, so an unknown name alone means nothing.
        """
        known = {f"SSJF_{entry.name.upper()}" for cls in classes for entry in fields(cls)}
        unknown = sorted(name for name in self._environment if name.startswith("SSJF_") and name not in known)
        return [(name, near[0]) for name in unknown if (near := difflib.get_close_matches(name, known, 1, _SLIP))]

    def build(self, cls: type[SettingsT]) -> SettingsT:
        """One settings object: the keys that are set, converted by the field's type; defaults for the rest."""
        hints = typing.get_type_hints(cls)
        chosen: dict[str, Any] = {}
        for entry in fields(cls):  # type: ignore[arg-type]
            text = self._environment.get(f"SSJF_{entry.name.upper()}", self._values.get(entry.name))
            if text is not None:
                chosen[entry.name] = self._convert(entry.name, self._expand(entry.name, text), hints[entry.name])
        try:
            return cls(**chosen)
        except ValueError as error:
            raise ConfigurationError(f"{self.model}: {error}") from None
        except TypeError:
            missing = [entry.name for entry in fields(cls) if entry.name not in chosen]  # type: ignore[arg-type]
            raise ConfigurationError(f"{self.model}: a required parameter is missing, one of {missing}") from None

    def _expand(self, key: str, text: str) -> str:
        def value_of(match: re.Match[str]) -> str:
            name, default = match.groups()
            value = self._environment.get(name) or default
            if value is None:
                raise ConfigurationError(
                    f"{self.model}: parameter {key!r} needs environment variable {name}, which is not set"
                )
            return value

        return _VARIABLE.sub(value_of, text)

    def _convert(self, key: str, text: str, kind: Any) -> Any:
        optional = isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind)
        if optional:
            if text.strip().lower() in ("", "none"):
                return None
            kind = next(arm for arm in typing.get_args(kind) if arm is not type(None))
        try:
            return _CONVERTERS[typing.get_origin(kind) or kind](text.strip(), self._base)
        except (ValueError, TypeError):
            raise ConfigurationError(
                f"{self.model}: parameter {key!r} is {text!r}, expected {_describe(kind)}"
            ) from None


def _to_bool(text: str, _base: Path) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def _to_mapping(text: str, _base: Path) -> Mapping[str, Any]:
    value = json.loads(text or "{}")
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


_CONVERTERS: dict[Any, Any] = {
    str: lambda text, _base: text,
    int: lambda text, _base: int(text),
    float: lambda text, _base: float(text),
    bool: _to_bool,
    Path: lambda text, base: base / Path(text).expanduser(),
    tuple: lambda text, _base: tuple(part.strip() for part in text.split(",") if part.strip()),
    dict: _to_mapping,
    Mapping: _to_mapping,
    Literal: lambda text, _base: text,
}


def _describe(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a comma-separated list"}
    return names.get(typing.get_origin(kind) or kind, getattr(kind, "__name__", str(kind)))
