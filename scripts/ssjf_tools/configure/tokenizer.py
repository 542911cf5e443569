"""The served model's tokenizer: does it load and belong to the engine, how do prompts look, where do answers end?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssjf_tools.configure.engine import EngineFacts
from ssjf_tools.configure.facts import ConfigureError, Facts
from ssjf_tools.configure.options import ConfigureOptions
from tokenizer.text import TextSettings, TextTokenizer, token_text

# Engines pad the vocabulary to a round number; a tokenizer that fills less than this share of it is another model's.
_LEAST_SHARE = 0.9
_EXAMPLE = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """`size` counts ids up to the highest; `example` is a prompt as the model will see it.

    `other_ends` are end tokens of generation_config.json besides `end_id`: TensorRT-LLM takes only one.
    `doubled_start`: the chat template writes the start token that an engine with its own tokenizer adds again.
    """

    size: int
    end_id: int
    pad_id: int
    example: str
    other_ends: tuple[int, ...] = ()
    doubled_start: bool = False


def read_tokenizer(options: ConfigureOptions, engine: EngineFacts) -> TokenizerFacts:
    """Loads it as the server will. Raises ConfigureError naming the file and the key, or the option."""
    folder = options.tokenizer_dir
    config = Facts.read(folder / "tokenizer_config.json", "the tokenizer's folder, --tokenizer-dir")
    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        raise ConfigureError(
            f"{folder / 'tokenizer.json'}: no such file, only tokenizer.model: save it once with transformers' "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        )
    loaded = _load(options)
    size = max(loaded.tokenizer.get_vocab().values()) + 1
    _check_vocabulary(folder / "tokenizer.json", size, engine)
    end_id = _token_id("end_id", options.end_id, config, "eos_token", loaded, size)
    pad_id = _token_id("pad_id", options.pad_id, config, "pad_token", loaded, size, fallback=end_id)
    try:
        example = loaded.render(_EXAMPLE)
        doubled = loaded.tokenizer.encode(example, add_special_tokens=True).ids
    except Exception as error:  # a template is a program of its own and may fail in any way
        raise ConfigureError(f"{config.path}: key chat_template cannot be rendered: {error}") from None
    starts = options.prompt_format == "chat" and len(doubled) > 1 and doubled[0] == doubled[1]
    return TokenizerFacts(size, end_id, pad_id, example, _other_ends(folder, end_id), starts)


def _load(options: ConfigureOptions) -> TextTokenizer:
    settings = TextSettings(options.prompt_format, options.system_prompt, options.add_special_tokens)
    try:
        return TextTokenizer.from_dir(options.tokenizer_dir, settings)
    except FileNotFoundError as error:
        raise ConfigureError(str(error)) from None
    except Exception as error:  # `tokenizers` raises bare Exceptions for files that it cannot read
        file = options.tokenizer_dir / ("tokenizer_config.json" if isinstance(error, ValueError) else "tokenizer.json")
        raise ConfigureError(f"{file}: {error}") from None


def _check_vocabulary(file: Path, size: int, engine: EngineFacts) -> None:
    """The highest id must fit into the engine's vocabulary, and nearly fill it."""
    if size > engine.vocab_size or size < _LEAST_SHARE * engine.vocab_size:
        fits = "more than the engine knows" if size > engine.vocab_size else "too few to be this model's"
        raise ConfigureError(
            f"{file}: key model.vocab and added_tokens have ids up to {size - 1}, {fits}: key vocab_size of "
            f"{engine.config} is {engine.vocab_size}; is --tokenizer-dir the served model's?"
        )


def _token_id(
    key: str,
    chosen: int | None,
    config: Facts,
    source: str,
    loaded: TextTokenizer,
    size: int,
    fallback: int | None = None,
) -> int:
    """A special token's id: the option, else the token that tokenizer_config.json names, else `fallback`."""
    if chosen is not None:
        if not -1 <= chosen < size:
            raise ConfigureError(f"--{key.replace('_', '-')} is {chosen}, expected -1 to {size - 1}")
        return chosen
    text = token_text(config.find(source))
    found: int | None = loaded.tokenizer.token_to_id(text) if text else None
    if found is None and fallback is None:
        said = f"is {text!r}, which tokenizer.json does not know" if text else "is missing"
        raise ConfigureError(f"{config.path}: key {source} {said}; give --{key.replace('_', '-')}")
    return found if found is not None else int(fallback or 0)


def _other_ends(folder: Path, end_id: int) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return ()
    ends = Facts.read(path, "the tokenizer's folder").find("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    return tuple(end for end in listed if isinstance(end, int) and end != end_id)
