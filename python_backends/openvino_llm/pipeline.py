"""OpenVINO GenAI's `ContinuousBatchingPipeline` as the `Pipeline` of `batch.py`. Runs in the inference process only.

Measured (openvino-genai 2026.4.1): a fresh GenerationConfig never stops, so both `eos_token_id` and `stop_token_ids`
are set; the answer ends with the end id; log probabilities are those of the raw logits and cost nothing noticeable;
there is one random generator for the whole batch, seeded by every request that joins, so a seed repeats an answer only
when the request runs by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from openvino_llm.batch import NewTokens
from openvino_llm.messages import Generation
from openvino_llm.settings import PRECISIONS, EngineSettings, ModelFacts


class OpenVinoHandle:
    """A generation in the pipeline; letting go of the underlying handle would cancel it."""

    def __init__(self, handle: Any):
        self._handle = handle

    def read(self) -> NewTokens:
        token_ids: list[int] = []
        log_probs: list[float] = []
        while self._handle.can_read():
            for output in self._handle.read().values():
                token_ids.extend(output.generated_ids)
                log_probs.extend(output.generated_log_probs)
        finished = self._handle.get_status() != genai.GenerationStatus.RUNNING
        return NewTokens(tuple(token_ids), tuple(log_probs), finished)

    def drop(self) -> None:
        self._handle.cancel()


class OpenVinoPipeline:
    """The model on the CPU. `step` holds the GIL for the whole forward pass (20 to 200 ms)."""

    def __init__(self, settings: EngineSettings, facts: ModelFacts):
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = settings.max_num_seqs
        scheduler.num_kv_blocks = settings.num_kv_blocks
        scheduler.max_num_batched_tokens = settings.max_batched_tokens
        scheduler.dynamic_split_fuse = True  # prompts are prefilled in pieces beside the running streams
        scheduler.enable_prefix_caching = False
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[settings.precision],
            "KV_CACHE_PRECISION": "f16",
        }
        if settings.inference_threads:
            properties["INFERENCE_NUM_THREADS"] = settings.inference_threads
        self._pipeline = genai.ContinuousBatchingPipeline(str(facts.weights), scheduler, "CPU", properties)

    def add(self, key: int, generation: Generation) -> OpenVinoHandle:
        prompt = np.asarray(generation.prompt, dtype=np.int64).reshape(1, -1)
        return OpenVinoHandle(self._pipeline.add_request(key, ov.Tensor(prompt), generation_config(generation)))

    def step(self) -> None:
        self._pipeline.step()


def generation_config(generation: Generation) -> Any:
    """The GenerationConfig of one generation."""
    config = genai.GenerationConfig()
    config.max_new_tokens = generation.max_tokens
    config.min_new_tokens = generation.min_tokens
    config.logprobs = int(generation.log_probs)
    if generation.end_ids:
        config.eos_token_id = generation.end_ids[0]
        config.stop_token_ids = set(generation.end_ids)
    else:
        config.ignore_eos = True
    sampling = generation.sampling
    config.repetition_penalty = sampling.repetition_penalty
    config.presence_penalty = sampling.presence_penalty
    config.frequency_penalty = sampling.frequency_penalty
    config.do_sample = not sampling.greedy
    if not sampling.greedy:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        config.rng_seed = sampling.seed
        if sampling.top_k:
            config.top_k = sampling.top_k
    return config
