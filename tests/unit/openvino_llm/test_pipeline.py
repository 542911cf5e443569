"""The real model in OpenVINO: what `batch.py` and the contract rely on."""

from __future__ import annotations

import os
import queue
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from openvino_llm.batch import Batch
from openvino_llm.messages import Cancel, Configure, Delta, Generation, Progress, Sampling, Start
from openvino_llm.pipeline import OpenVinoPipeline
from openvino_llm.settings import EngineSettings, ModelFacts
from openvino_llm.supervisor import Down, Supervisor, Up
from ssjf_tools.assets.smollm2 import build_smollm2

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[3]
SETTINGS = EngineSettings(num_kv_blocks=256)
GREEDY = Sampling(greedy=True)
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QUESTIONS = [
    "What is the capital of France?",
    "Write a poem about the sea.",
    "Count to five.",
    "Explain gravity to a child. " * 25,  # longer than one step's tokens
    "Translate 'good morning' into Spanish.",
    "Name three fruits.",
    "Why is the sky blue?",
    "Give me a recipe for pancakes.",
]


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    folder = Path(os.environ.get("SSJF_ASSETS") or CHECKOUT / ".assets") / "smollm2"
    build_smollm2(folder, print)
    return ModelFacts.read(folder)


@pytest.fixture(scope="module")
def prompts(facts: ModelFacts) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.from_file(str(facts.weights.parent / "tokenizer.json"))
    return [tuple(tokenizer.encode(CHAT.format(text)).ids) for text in QUESTIONS]


@pytest.fixture(scope="module")
def pipeline(facts: ModelFacts) -> OpenVinoPipeline:
    return OpenVinoPipeline(SETTINGS, facts)


def greedy(
    prompt: tuple[int, ...], max_tokens: int = 24, end_ids: tuple[int, ...] = (2, 0), min_tokens: int = 0
) -> Generation:
    return Generation(prompt, max_tokens, GREEDY, end_ids, (), min_tokens)


def sampled(prompt: tuple[int, ...], seed: int) -> Generation:
    return Generation(prompt, 24, Sampling(greedy=False, temperature=1.0, top_p=0.95, seed=seed), ())


def run(
    pipeline: OpenVinoPipeline, generations: list[Generation], slots: int = 16, blocks: int = 256
) -> list[list[int]]:
    """Answers in order; every second generation joins a few steps late."""
    batch = Batch(pipeline, slots, blocks)
    answers: dict[int, list[int]] = {key: [] for key in range(len(generations))}
    late = [(key, one) for key, one in enumerate(generations) if key % 2]
    for key, one in enumerate(generations):
        if key % 2 == 0:
            batch.start(key, one)
    while batch.busy or late:
        for delta in batch.step():
            assert delta.error is None
            answers[delta.key] += delta.token_ids
        if late:
            batch.start(*late.pop(0))
    return list(answers.values())


def test_a_greedy_answer_is_the_same_alone_and_in_a_batch_of_16(
    pipeline: OpenVinoPipeline, prompts: list[tuple[int, ...]]
) -> None:
    alone = [run(pipeline, [greedy(prompt)])[0] for prompt in prompts]
    together = run(pipeline, [greedy(prompt) for prompt in prompts * 2])
    assert together == alone * 2
    assert len(set(map(tuple, alone))) == len(prompts)


def test_a_seed_repeats_an_answer_that_runs_by_itself(
    pipeline: OpenVinoPipeline, prompts: list[tuple[int, ...]]
) -> None:
    first, again, other = (run(pipeline, [sampled(prompts[1], seed)])[0] for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_the_end_id_is_held_back_by_min_tokens(pipeline: OpenVinoPipeline, prompts: list[tuple[int, ...]]) -> None:
    (short,) = run(pipeline, [greedy(prompts[0])])
    (longer,) = run(pipeline, [greedy(prompts[0], min_tokens=len(short) + 5)])
    assert 2 not in short
    assert len(longer) >= len(short) + 5
    assert longer[: len(short)] == short


def test_log_probs_come_with_every_token(pipeline: OpenVinoPipeline, prompts: list[tuple[int, ...]]) -> None:
    batch = Batch(pipeline, 1, 256)
    batch.start(0, Generation(prompts[0], 5, GREEDY, log_probs=True))
    deltas: list[Delta] = []
    while batch.busy:
        deltas += batch.step()
    values = [value for delta in deltas for value in delta.log_probs]
    assert len(values) == sum(len(delta.token_ids) for delta in deltas) == 5
    assert all(value <= 0 for value in values)


def test_no_answer_is_cut_when_the_kv_pool_is_too_small_for_all(
    pipeline: OpenVinoPipeline, prompts: list[tuple[int, ...]]
) -> None:
    answers = run(pipeline, [greedy(prompt, 40, end_ids=()) for prompt in prompts], blocks=14)
    assert [len(answer) for answer in answers] == [40] * len(prompts)


def test_the_inference_process_serves_cancels_and_ends(facts: ModelFacts, prompts: list[tuple[int, ...]]) -> None:
    events: queue.SimpleQueue[Up | Progress | Down] = queue.SimpleQueue()
    supervisor = Supervisor(Configure(SETTINGS, facts), events.put)
    supervisor.start()
    try:
        up = events.get(timeout=60)
        assert isinstance(up, Up)
        up.connection.send(Start(1, greedy(prompts[0], 400, end_ids=())))
        assert isinstance(events.get(timeout=60), Progress)
        up.connection.send(Cancel((1,)))
        up.connection.send(Start(2, greedy(prompts[0], 4)))
        last: list[Delta] = []
        while not any(delta.key == 2 and delta.finished for delta in last):
            message = events.get(timeout=60)
            assert isinstance(message, Progress)
            last = list(message.deltas)
        assert {delta.key for delta in last} == {2}
    finally:
        supervisor.close()
    assert isinstance(events.get(timeout=10), Down)
