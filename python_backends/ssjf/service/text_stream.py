"""Text of an engine that detokenizes itself, piece by piece: what is new, without stop words, and how many tokens."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from tokenizer.detokenizer import StopWordFilter

_UNFINISHED = "�"  # what decoders write for the bytes of a character that is not complete


class TextStream:
    """One sequence's growing text. Not thread-safe: one owner, the event loop.

    `tokens` is an estimate by the served model's tokenizer: each new piece is encoded by itself while the answer grows,
    the whole once at its end, so that a long answer costs time in proportion to its length.
    """

    def __init__(self, tokenizer: Tokenizer, stop_words: Sequence[str] = ()):
        self._tokenizer = tokenizer
        self._filter = StopWordFilter(stop_words)
        self._text = ""
        self.tokens = 0

    @property
    def stopped(self) -> bool:
        """True once a stop word was met: the rest of the answer is not wanted."""
        return self._filter.stopped

    def push(self, whole: str) -> str:
        """Take the answer so far and return what may be shown of its new end; unfinished characters wait."""
        text = whole.rstrip(_UNFINISHED)
        new = text[len(self._text) :]
        if not new:
            return ""
        self._text += new
        self.tokens += max(1, self._count(new))
        return self._filter.push(new)

    def finish(self) -> str:
        """The held-back rest of the text; `tokens` is now that of the whole answer."""
        self.tokens = self._count(self._text)
        return self._filter.finish()

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
