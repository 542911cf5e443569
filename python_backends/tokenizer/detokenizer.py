"""Token ids to text, piece by piece: never half a character, never a piece of a stop word.

The unstreamed answer is the concatenation of the same pieces, so both are equal by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class StopWordFilter:
    """Cuts text before the first stop word, wherever token borders fall.

    Text that may be the beginning of a stop word is held back until it is decided. `stopped` turns true at a match and
    nothing is released after it.
    """

    def __init__(self, stop_words: Sequence[str]):
        self._words = tuple(word for word in stop_words if word)
        self._longest = max((len(word) for word in self._words), default=0)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take `text`, return what is now certain not to belong to a stop word."""
        if self.stopped:
            return ""
        if not self._words:
            return text
        self._held += text
        starts = [at for at in (self._held.find(word) for word in self._words) if at >= 0]
        if starts:
            released, self._held, self.stopped = self._held[: min(starts)], "", True
            return released
        keep = self._undecided()
        released, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return released

    def finish(self) -> str:
        """The held-back rest of an answer that ended without a stop word."""
        rest, self._held = self._held, ""
        return rest

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins some stop word."""
        for size in range(min(self._longest - 1, len(self._held)), 0, -1):
            end = self._held[-size:]
            if any(word.startswith(end) for word in self._words):
                return size
        return 0


class StreamDecoder:
    """One sequence's token ids to text. Not thread-safe: one owner, the event loop."""

    def __init__(self, tokenizer: Tokenizer, stop_words: Sequence[str] = ()):
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._filter = StopWordFilter(stop_words)

    @property
    def stopped(self) -> bool:
        """True once a stop word was met: the rest of the answer is not wanted."""
        return self._filter.stopped

    def push(self, token_ids: Iterable[int]) -> str:
        """Text that these tokens complete; an unfinished character waits for its remaining bytes."""
        pieces = []
        for token_id in token_ids:
            piece = self._stream.step(self._tokenizer, token_id)
            if piece:
                pieces.append(piece)
        return self._filter.push("".join(pieces)) if pieces else ""

    def finish(self) -> str:
        """The rest of the text. Bytes of a character that never became complete are dropped."""
        return self._filter.finish()
