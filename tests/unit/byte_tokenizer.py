"""A tokenizer with one token a byte: every character border is a token border, and most token borders are not."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END = "<|end|>"


def byte_tokenizer() -> Tokenizer:
    """Ids 0-255 are the bytes in the order of the byte-level alphabet, 256 is the special end token."""
    vocabulary = {character: at for at, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def write_tokenizer_dir(path: Path, chat_template: str | None = None) -> Path:
    """A folder in the Hugging Face layout."""
    path.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save(str(path / "tokenizer.json"))
    config = {"eos_token": {"content": END}, "chat_template": chat_template}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path
