"""Before a row can wait in the queue: its prompt as token ids, and a guess of how long its answer will be."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ssjf.core.errors import InvalidRequest
from ssjf.core.job import LengthPrediction
from ssjf.service.messages import EngineRequest, Generation
from ssjf.service.predictor import PredictionFailed, PredictionLate, Predictor
from tokenizer.text import TextTokenizer, decode_prompt


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """Prompt token ids INT32[n], and the proxy's prediction; None when there is none and the prior has to do.

    `coming`: a prediction that may yet come (see PredictionLate); whoever has no use for it cancels it.
    """

    prompt_ids: NDArray[np.int32]
    prediction: LengthPrediction | None
    coming: asyncio.Task[LengthPrediction] | None = None


class Preparation:
    """Tokenizes and predicts. Requests from the ensemble come with both done; only their distribution is read.

    Tokenization runs on a small pool: `tokenizers` releases the GIL, and a long prompt must not hold the loop up.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        predictor: Predictor,
        max_context_tokens: int,
        max_prompt_bytes: int,
        send_text: bool = False,
    ):
        self._send_text = send_text
        self._tokenizer = tokenizer
        self._predictor = predictor
        self._max_context_tokens = max_context_tokens
        self._max_prompt_bytes = max_prompt_bytes
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="ssjf-tokenizer")

    @property
    def tokenizer(self) -> Tokenizer:
        """The served model's tokenizer, for turning answers back into text."""
        return self._tokenizer.tokenizer

    def is_ready(self, generation: Generation) -> bool:
        """True when `read` will do: no text has to be tokenized and nobody asked."""
        return generation.prompt_ids is not None and generation.distribution is not None

    def read(self, generation: Generation) -> PreparedRow:
        """A row that the ensemble's steps have prepared."""
        assert generation.prompt_ids is not None
        assert generation.distribution is not None
        self._check_length(generation, generation.prompt_ids)
        try:
            return PreparedRow(
                generation.prompt_ids, self._predictor.read(generation.distribution, generation.max_tokens)
            )
        except PredictionFailed:
            return PreparedRow(generation.prompt_ids, None)

    async def make(self, generation: Generation) -> PreparedRow:
        """Tokenize and ask the proxy. Raises InvalidRequest for a text the tokenizer refuses; never for the proxy."""
        loop = asyncio.get_running_loop()
        prompt_ids = generation.prompt_ids
        if prompt_ids is None:
            ids = await loop.run_in_executor(self._pool, self._tokenizer.encode, generation.text)
            prompt_ids = np.array(ids, dtype=np.int32)
        self._check_length(generation, prompt_ids)
        if not generation.text:
            return PreparedRow(prompt_ids, None)
        text = decode_prompt(generation.text, self._max_prompt_bytes)
        proxy_ids, mask = await loop.run_in_executor(self._pool, self._predictor.encode, text)
        try:
            return PreparedRow(prompt_ids, await self._predictor.predict(proxy_ids, mask, generation.max_tokens))
        except PredictionLate as late:
            return PreparedRow(prompt_ids, None, late.coming)
        except PredictionFailed:
            return PreparedRow(prompt_ids, None)

    def engine_request(
        self, engine_id: str, generation: Generation, prompt_ids: NDArray[np.int32], streaming: bool
    ) -> EngineRequest:
        """What the engine gets: inputs as they came, words as token ids, the site's end and padding token where the
        client left them open; stop words stay here.

        The prompt's text goes along where the engine takes text (`send_text`).
        """
        defaults = self._tokenizer.engine_defaults
        inputs: dict[str, NDArray[Any]] = {name: np.array([[value]], np.int32) for name, value in defaults.items()}
        inputs |= generation.engine_inputs
        if generation.bad_words:
            inputs["bad_words_list"] = word_list([self._tokenizer.encode_plain(word) for word in generation.bad_words])
        if generation.biased_words:
            inputs["embedding_bias"] = self._bias(generation)
        if generation.prompt_table_extra_id is not None:
            inputs["prompt_table_extra_ids"] = self._extra_ids(generation.prompt_table_extra_id, prompt_ids)
        return EngineRequest(
            engine_id=engine_id,
            prompt_ids=prompt_ids,
            max_tokens=generation.max_tokens,
            streaming=streaming,
            flagged_outputs=generation.flagged_outputs,
            sequences=generation.sequences,
            inputs=inputs,
            text=self._rendered(generation) if self._send_text else "",
            context=generation.context,
        )

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _rendered(self, generation: Generation) -> str:
        return self._tokenizer.render(decode_prompt(generation.text, self._max_prompt_bytes))

    def _bias(self, generation: Generation) -> NDArray[np.float32]:
        bias = np.zeros((1, self._tokenizer.tokenizer.get_vocab_size()), dtype=np.float32)
        for word, weight in generation.biased_words:
            bias[0, self._tokenizer.encode_plain(word)] += weight
        return bias

    def _extra_ids(self, extra_id: int, prompt_ids: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Upstream's layout, UINT64[1, n]: the id at the places of virtual tokens, those beyond the vocabulary."""
        virtual = prompt_ids >= self._tokenizer.tokenizer.get_vocab_size()
        return np.where(virtual, np.uint64(extra_id), np.uint64(0)).reshape(1, -1)

    def _check_length(self, generation: Generation, prompt_ids: NDArray[np.int32]) -> None:
        total = len(prompt_ids) + generation.max_tokens
        if total > self._max_context_tokens:
            raise InvalidRequest(
                "max_tokens",
                f"{generation.max_tokens} after a prompt of {len(prompt_ids)} tokens",
                f"at most {self._max_context_tokens} tokens together (the engine's context length)",
            )


def word_list(words: list[list[int]]) -> NDArray[np.int32]:
    """TensorRT-LLM's layout of a word list, INT32[1, 2, n]: all ids in a row, and where each word ends; -1 pads."""
    flat = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    return np.array([[flat, ends + [-1] * (len(flat) - len(ends))]], dtype=np.int32)
