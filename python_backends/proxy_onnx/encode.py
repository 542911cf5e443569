"""Text to the proxy's token ids. No Triton, no ONNX Runtime: the tokenizer backend and the scheduler use it too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .errors import EncodeError, MetadataError
from .metadata import ProxyMetadata

# Of a long text only this many characters per kept token are tokenised at either end. English has about 4.5 characters
# per token; without the cut a 1 MB prompt would cost about a second.
CHARACTERS_PER_TOKEN = 16


# What BERT's family and RoBERTa's call the start, the end and the padding of a row.
_MARKS = (("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[PAD]", "<pad>"))


class ProxyEncoder:
    """Turns prompts into padded rows of token ids. Safe to call from several threads: nothing changes after creation.

    A row is [CLS] text [SEP]. A text that does not fit becomes [CLS] start [SEP] end [SEP]: its first
    `head_tokens` tokens and as many of its last as fit, because instructions stand at the start of a prompt and
    questions at its end.
    """

    def __init__(self, tokenizer: Tokenizer, metadata: ProxyMetadata) -> None:
        """Take over `tokenizer`: its own truncation and padding are switched off. Raises MetadataError."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._metadata = metadata
        self._cls, self._sep, self._pad = (_special_id(tokenizer, *names) for names in _MARKS)

    @classmethod
    def from_dir(cls, path: Path) -> ProxyEncoder:
        """Load tokenizer.json and proxy.json from an asset folder. Raises MetadataError."""
        metadata = ProxyMetadata.load(path)
        file = path / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise MetadataError(f"{file}: cannot be read as a tokenizer: {error}") from error
        return cls(tokenizer, metadata)

    @property
    def metadata(self) -> ProxyMetadata:
        """The proxy.json that this encoder follows."""
        return self._metadata

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Token ids and attention mask, both INT32 [len(texts), L]; L is the bucket of the longest row.

        Raises EncodeError, which names the row, for no texts at all or a text that is not valid Unicode.
        """
        if not texts:
            raise EncodeError("texts is empty; expected at least 1")
        rows = [self._row(text, index) for index, text in enumerate(texts)]
        width = self._metadata.bucket(max(len(row) for row in rows))
        ids = np.full((len(rows), width), self._pad, dtype=np.int32)
        mask = np.zeros((len(rows), width), dtype=np.int32)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return ids, mask

    def _row(self, text: str, index: int) -> list[int]:
        try:
            return self._fit(text)
        except (TypeError, UnicodeError) as error:
            raise EncodeError(f"texts[{index}] is not valid Unicode text: {error}") from error

    def _fit(self, text: str) -> list[int]:
        limit = self._metadata.max_length
        reach = limit * CHARACTERS_PER_TOKEN
        if len(text) <= 2 * reach:
            tokens = self._tokens(text)
        else:
            tokens = self._tokens(text[:reach]) + self._tokens(text[-reach:])
        if len(tokens) <= limit - 2:
            return [self._cls, *tokens, self._sep]
        head = self._metadata.head_tokens
        tail = limit - 3 - head
        return [self._cls, *tokens[:head], self._sep, *tokens[len(tokens) - tail :], self._sep]

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _special_id(tokenizer: Tokenizer, *names: str) -> int:
    """The id of the first of these tokens that there is."""
    for name in names:
        number: int | None = tokenizer.token_to_id(name)
        if number is not None:
            return number
    raise MetadataError(f"tokenizer.json has no token {' or '.join(names)}")
