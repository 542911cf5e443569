"""What an engine may send for one job: token ids of the vocabulary, and no more of them than were asked for."""

from __future__ import annotations

import logging
from dataclasses import replace

from ssjf.service.engine.base import EngineError
from ssjf.service.messages import EngineChunk

log = logging.getLogger("ssjf.bounds")


def checked(chunk: EngineChunk, room: int, vocabulary: int) -> EngineChunk:
    """The chunk with at most `room` tokens a beam; the same object where nothing had to be cut.

    Raises EngineError for an id outside of the vocabulary: the engine's model is not the one whose tokenizer we have,
    or the engine is broken. Chunks of text pass: their tokens are only estimated.
    """
    too_long = False
    for ids in chunk.token_ids:
        if not ids:
            continue
        if min(ids) < 0 or max(ids) >= vocabulary:
            wrong = next(token for token in ids if not 0 <= token < vocabulary)
            raise EngineError(f"the engine sent token id {wrong}, allowed: 0 to {vocabulary - 1}, the vocabulary")
        too_long = too_long or len(ids) > room
    if not too_long:
        return chunk
    log.warning("the engine sent more tokens than it was asked for; they are cut off")
    return replace(
        chunk,
        token_ids=tuple(ids[:room] for ids in chunk.token_ids),
        log_probs=tuple(values[:room] for values in chunk.log_probs),
    )
