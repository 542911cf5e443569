"""From an engine's tokens or text to the pieces of text that a client gets: one row's decoders and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from tokenizers import Tokenizer

from ssjf.service.messages import EngineChunk, Generation, TextChunk
from ssjf.service.text_stream import TextStream
from tokenizer.detokenizer import StreamDecoder


@dataclass(slots=True)
class _Sequence:
    """One returned sequence: a decoder and the text not yet handed out, for each of its beams.

    `handed_out`: tokens that earlier pieces have counted. `counted`: the engine said how many tokens there are, so that
    no estimate may overwrite it.
    """

    decoders: list[StreamDecoder | TextStream]
    texts: list[list[str]]
    output_tokens: int = 0
    handed_out: int = 0
    counted: bool = False
    cum_log_probs: tuple[float, ...] = ()
    log_probs: list[list[float]] = field(default_factory=list)
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)


class Answer:
    """Collects one row's answer. Streaming rows hand out what is new, others everything at the end.

    Both go through the same decoders, so streamed pieces joined are exactly the unstreamed text.
    """

    def __init__(self, generation: Generation, tokenizer: Tokenizer, input_tokens: int):
        self._generation = generation
        self._tokenizer = tokenizer
        self._input_tokens = input_tokens
        self._sequences: dict[int, _Sequence] = {}
        self._finish = ""
        self.predicted_tokens = 0
        self.queue_time_us = 0

    @property
    def output_tokens(self) -> int:
        """Tokens received so far, over all sequences and beams."""
        return sum(sequence.output_tokens * len(sequence.decoders) for sequence in self._sequences.values())

    @property
    def stopped(self) -> bool:
        """True when every sequence that can come has met a stop word: the engine need not go on."""
        if not self._generation.stop_words:
            return False
        decoders = [decoder for sequence in self._sequences.values() for decoder in sequence.decoders]
        return len(decoders) >= self._generation.sequences and all(decoder.stopped for decoder in decoders)

    @property
    def finish_reason(self) -> str:
        """Why a complete answer ended: `length` when it was cut at max_tokens, else `stop`."""
        cut = any(sequence.output_tokens >= self._generation.max_tokens for sequence in self._sequences.values())
        return "length" if not self.stopped and (self._finish == "length" or (cut and not self._finish)) else "stop"

    def take(self, chunk: EngineChunk) -> TextChunk | None:
        """Add an engine's tokens or text; returns the piece to send now, if there is one."""
        is_text = chunk.text is not None
        sequence = self._sequences.get(chunk.sequence_index)
        if sequence is None:
            sequence = self._new_text() if is_text else self._new_sequence(len(chunk.token_ids))
            self._sequences[chunk.sequence_index] = sequence
        (self._take_text if is_text else self._take_tokens)(sequence, chunk)
        self._finish = chunk.finish or self._finish
        self._note_log_probs(sequence, chunk)
        sequence.extras.update(chunk.extras)
        if self._generation.stream and any(sequence.texts):
            return self._hand_out(chunk.sequence_index, sequence)
        return None

    def finish(self) -> list[TextChunk]:
        """What is left to send: for every sequence its last piece, at least one piece in all."""
        if not self._sequences:
            self._sequences[0] = self._new_sequence(self._generation.beams)
        pieces = []
        for index, sequence in sorted(self._sequences.items()):
            for decoder, texts in zip(sequence.decoders, sequence.texts, strict=True):
                texts.append(decoder.finish())
                if isinstance(decoder, TextStream) and not sequence.counted:
                    # Pieces count what is new in them; an estimate that was too high cannot be taken back.
                    sequence.output_tokens = max(decoder.tokens, sequence.handed_out)
            pieces.append(self._hand_out(index, sequence))
        return pieces

    def _take_text(self, sequence: _Sequence, chunk: EngineChunk) -> None:
        for stream, texts in zip(sequence.decoders, sequence.texts, strict=True):
            assert isinstance(stream, TextStream)
            piece = stream.push(chunk.text or "")
            if piece:
                texts.append(piece)
            sequence.counted = chunk.output_tokens is not None
            sequence.output_tokens = chunk.output_tokens if chunk.output_tokens is not None else stream.tokens

    def _take_tokens(self, sequence: _Sequence, chunk: EngineChunk) -> None:
        for decoder, texts, ids in zip(sequence.decoders, sequence.texts, chunk.token_ids, strict=True):
            assert isinstance(decoder, StreamDecoder)
            piece = decoder.push(ids)
            if piece:
                texts.append(piece)
        sequence.output_tokens += max(map(len, chunk.token_ids), default=0)

    def _new_sequence(self, beams: int) -> _Sequence:
        words = self._generation.stop_words
        return _Sequence(
            [StreamDecoder(self._tokenizer, words) for _ in range(beams)], [self._echo() for _ in range(beams)]
        )

    def _new_text(self) -> _Sequence:
        return _Sequence([TextStream(self._tokenizer, self._generation.stop_words)], [self._echo()])

    def _echo(self) -> list[str]:
        return [self._generation.text.decode("utf-8", "replace")] if self._generation.echo else []

    def _note_log_probs(self, sequence: _Sequence, chunk: EngineChunk) -> None:
        if chunk.cum_log_probs:
            sequence.cum_log_probs = chunk.cum_log_probs
        if chunk.log_probs:
            sequence.log_probs = sequence.log_probs or [[] for _ in chunk.log_probs]
            for known, new in zip(sequence.log_probs, chunk.log_probs, strict=True):
                known.extend(new)

    def _hand_out(self, index: int, sequence: _Sequence) -> TextChunk:
        texts = tuple("".join(pieces) for pieces in sequence.texts)
        log_probs = tuple(tuple(values) for values in sequence.log_probs)
        extras: Mapping[str, NDArray[Any]] = dict(sequence.extras)
        sequence.texts = [[] for _ in sequence.texts]
        sequence.log_probs = [[] for _ in sequence.log_probs]
        sequence.extras.clear()
        new_tokens, sequence.handed_out = sequence.output_tokens - sequence.handed_out, sequence.output_tokens
        return TextChunk(
            batch_index=self._generation.row,
            sequence_index=index,
            texts=texts,
            input_tokens=self._input_tokens,
            output_tokens=new_tokens,
            predicted_tokens=self.predicted_tokens,
            queue_time_us=self.queue_time_us,
            cum_log_probs=sequence.cum_log_probs,
            log_probs=log_probs,
            extras=extras,
        )
