from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openvino_llm.batch import Batch, blocks_of
from openvino_llm.messages import Delta
from tests.unit.openvino_llm.fakes import FakePipeline, generation


def run(batch: Batch, steps: int = 1000) -> list[Delta]:
    deltas: list[Delta] = []
    while batch.busy and steps:
        steps -= 1
        deltas += batch.step()
    return deltas


def tokens(deltas: list[Delta], key: int) -> list[int]:
    return [token for delta in deltas if delta.key == key for token in delta.token_ids]


def test_the_end_id_is_not_part_of_the_answer() -> None:
    batch = Batch(FakePipeline([5, 6, 2, 8]), slots=1, kv_blocks=10)
    batch.start(1, generation())
    deltas = run(batch)
    assert tokens(deltas, 1) == [5, 6]
    assert [delta.finished for delta in deltas] == [False, False, True]


def test_a_stop_word_across_tokens_ends_the_answer_and_stays_in_it() -> None:
    pipeline = FakePipeline([5, 6, 7, 8, 9])
    batch = Batch(pipeline, slots=1, kv_blocks=10)
    batch.start(1, generation(stop_words=((9, 9), (6, 7))))
    assert tokens(run(batch), 1) == [5, 6, 7]
    assert not pipeline.running


def test_the_length_ends_an_answer() -> None:
    batch = Batch(FakePipeline([5] * 9), slots=1, kv_blocks=10)
    batch.start(1, generation(max_tokens=4))
    deltas = run(batch)
    assert tokens(deltas, 1) == [5] * 4
    assert [delta.finished for delta in deltas] == [False, False, False, True]


def test_what_does_not_fit_waits_in_order() -> None:
    pipeline = FakePipeline([5] * 100)
    batch = Batch(pipeline, slots=4, kv_blocks=3)
    batch.start(1, generation(max_tokens=50))  # two blocks
    batch.start(2, generation(max_tokens=60))  # two blocks: waits
    batch.start(3, generation(max_tokens=5))  # one block would fit, but 2 is older
    batch.step()
    assert set(pipeline.running) == {1}
    deltas = run(batch)
    assert [delta.key for delta in deltas if delta.finished] == [1, 3, 2]


def test_a_refused_generation_fails_alone() -> None:
    batch = Batch(FakePipeline([5, 2]), slots=2, kv_blocks=10)
    bad = generation()
    batch.start(1, type(bad)((99,), 5, bad.sampling))
    batch.start(2, generation())
    deltas = run(batch)
    assert [(delta.key, delta.error is not None) for delta in deltas if delta.finished] == [(1, True), (2, False)]
    assert tokens(deltas, 2) == [5]


def test_cancelling_frees_the_slot_for_the_next() -> None:
    pipeline = FakePipeline([5] * 10)
    batch = Batch(pipeline, slots=1, kv_blocks=10)
    batch.start(1, generation())
    batch.start(2, generation())
    batch.start(3, generation())
    batch.step()
    batch.cancel(1)
    batch.cancel(2)  # waiting
    batch.cancel(77)  # unknown
    deltas = run(batch)
    assert {delta.key for delta in deltas} == {3}
    assert len(tokens(deltas, 3)) == 5


@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(5, 9),
    st.data(),
)
def test_every_generation_ends_once_and_limits_hold(
    sizes: list[tuple[int, int]], slots: int, kv_blocks: int, data: st.DataObject
) -> None:
    pipeline = FakePipeline([5] * 7 + [2] + [5] * 40)
    batch = Batch(pipeline, slots, kv_blocks)
    generations = {key: generation(prompt, answer) for key, (prompt, answer) in enumerate(sizes)}
    for key, wanted in generations.items():
        batch.start(key, wanted)
    cancelled = data.draw(st.sets(st.sampled_from(sorted(generations))))
    deltas: list[Delta] = []
    for step in range(1000):
        if not batch.busy:
            break
        deltas += batch.step()
        assert len(pipeline.running) <= slots
        assert sum(blocks_of(generations[key]) for key in pipeline.running) <= kv_blocks
        if step == 3:
            for key in cancelled:
                batch.cancel(key)
    assert not batch.busy
    ends = [delta.key for delta in deltas if delta.finished]
    assert len(ends) == len(set(ends))
    assert set(ends) | cancelled == set(generations)
