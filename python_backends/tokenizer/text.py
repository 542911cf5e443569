"""The served model's tokenizer: prompt text to token ids, with or without its chat template.

Reads the Hugging Face layout (`tokenizer.json`, `tokenizer_config.json`) with the `tokenizers` and `jinja2` libraries;
transformers would cost the serving process 200 MB and several seconds for the same two calls.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ssjf.core.errors import InvalidRequest

PROMPT_FORMATS = ("raw", "chat")


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How prompts become token ids.

    `prompt_format` is `chat` (the text is a user's turn, put into the model's chat template) or `raw`;
    `add_special_tokens` is for `raw` prompts only (a chat template writes its own). `max_context_tokens` counts prompt
    and answer; `max_prompt_bytes` is checked before any tokenization, so that a huge text costs nothing.

    `end_id` and `pad_id` are sent to engines that take token ids when a request leaves them open: TensorRT-LLM knows no
    end of an answer by itself (its own ensemble's preprocessing model fills them in, too).
    """

    prompt_format: str = "raw"
    system_prompt: str | None = None
    add_special_tokens: bool = True
    max_context_tokens: int = 2048
    max_prompt_bytes: int = 262_144
    end_id: int | None = None
    pad_id: int | None = None

    def __post_init__(self) -> None:
        if self.prompt_format not in PROMPT_FORMATS:
            raise ValueError(f"prompt_format is {self.prompt_format!r}, expected {' or '.join(PROMPT_FORMATS)}")
        if self.system_prompt is not None and self.prompt_format != "chat":
            raise ValueError(f"system_prompt is set, but prompt_format is {self.prompt_format!r}, expected 'chat'")
        for name, least in (("max_context_tokens", 2), ("max_prompt_bytes", 1), ("end_id", -1), ("pad_id", -1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")


class TextTokenizer:
    """Prompt text to LLM token ids. Thread-safe: `tokenizers` is, and nothing else is mutable."""

    def __init__(
        self, tokenizer: Tokenizer, template: Template | None, special: dict[str, str], settings: TextSettings
    ):
        self.tokenizer = tokenizer
        self._template = template
        self._special = special
        self._settings = settings

    @classmethod
    def from_dir(cls, path: Path, settings: TextSettings) -> TextTokenizer:
        """Load `tokenizer.json` and `tokenizer_config.json` from `path`.

        Raises FileNotFoundError naming the missing file, ValueError when the chat template is wanted and missing.
        """
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (path / name).is_file():
                raise FileNotFoundError(f"tokenizer_dir: {path / name} does not exist")
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = _chat_template(config, path) if settings.prompt_format == "chat" else None
        special = {name: token_text(config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        return cls(Tokenizer.from_file(str(path / "tokenizer.json")), template, special, settings)

    def encode(self, text: bytes, field: str = "text_input") -> list[int]:
        """Token ids of one prompt. Raises InvalidRequest for text that is empty, not UTF-8 or too long."""
        prompt = self.render(decode_prompt(text, self._settings.max_prompt_bytes, field))
        raw = self._template is None
        ids: list[int] = self.tokenizer.encode(prompt, add_special_tokens=raw and self._settings.add_special_tokens).ids
        limit = self._settings.max_context_tokens - 1
        if not 0 < len(ids) <= limit:
            raise InvalidRequest(
                field, f"{len(ids)} tokens", f"1 to {limit} tokens (context length less one for the answer)"
            )
        return ids

    def render(self, text: str) -> str:
        """The prompt as the model sees it: through the chat template, or as it is."""
        if self._template is None:
            return text
        messages = [{"role": "user", "content": text}]
        if self._settings.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self._settings.system_prompt})
        return self._template.render(messages=messages, add_generation_prompt=True, **self._special)

    @property
    def engine_defaults(self) -> dict[str, int]:
        """Token ids that an engine wants with each request and clients may leave open: `end_id`, `pad_id`, if set."""
        chosen = {"end_id": self._settings.end_id, "pad_id": self._settings.pad_id}
        return {name: value for name, value in chosen.items() if value is not None}

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a fragment (a bad word, say): no template, no special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def decode_prompt(text: bytes, max_bytes: int, field: str = "text_input") -> str:
    """UTF-8 text of a prompt. Raises InvalidRequest naming `field` when it is too long, not UTF-8 or blank."""
    if len(text) > max_bytes:
        raise InvalidRequest(field, f"{len(text)} bytes", f"at most {max_bytes} bytes")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(field, f"byte 0x{text[error.start]:02x} at {error.start}", "UTF-8 text") from None
    if not decoded.strip():
        raise InvalidRequest(field, "empty text", "at least one character that is not white space")
    return decoded


def _chat_template(config: dict[str, Any], path: Path) -> Template:
    source = config.get("chat_template")
    if isinstance(source, list):  # several named templates: the one called "default"
        source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
    beside = path / "chat_template.jinja"  # where transformers 4.52 and later write it
    if not isinstance(source, str) and beside.is_file():
        source = beside.read_text(encoding="utf-8")
    if not isinstance(source, str):
        raise ValueError(
            f"prompt_format is 'chat' but {path / 'tokenizer_config.json'} has no chat_template "
            f"and {beside} does not exist"
        )
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise_template_error
    return environment.from_string(source)


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


def token_text(entry: Any) -> str:
    """`tokenizer_config.json` writes a special token as text or as an object with `content`."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else ""
