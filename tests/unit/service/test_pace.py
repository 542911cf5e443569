from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssjf.service.pace import LONGEST_PAUSE_S, Later, Pace


def test_a_sender_with_time_to_spare_never_holds_a_piece_back() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.note(idle_s=0.004, busy_s=0.001)
    assert pace.pause_s == 0.0


def test_a_busy_sender_spaces_the_pieces_of_a_stream_and_recovers() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.note(idle_s=0.0, busy_s=0.001)
    assert pace.pause_s == LONGEST_PAUSE_S
    pace.note(idle_s=2.0, busy_s=0.001)
    assert pace.pause_s == 0.0


def test_the_pause_settles_where_the_sender_is_busy_a_quarter_of_its_time() -> None:
    pace, streams, cost_s = Pace(), 32, 0.001
    for _ in range(20_000):
        period = max(pace.pause_s, streams * cost_s)  # every stream is served once in it
        pace.note(idle_s=(period - streams * cost_s) / streams, busy_s=cost_s)
    assert 0.12 < pace.pause_s < 0.135  # 32 pieces of 1 ms in 128 ms


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10))))
def test_no_pause_is_negative_or_beyond_the_longest(spans: list[tuple[float, float]]) -> None:
    pace = Pace()
    for idle_s, busy_s in spans:
        pace.note(idle_s, busy_s)
        assert 0.0 <= pace.pause_s <= LONGEST_PAUSE_S


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10))), st.floats(0, 10))
def test_what_is_due_comes_in_order_and_nothing_is_lost(times: list[tuple[float, float]], now: float) -> None:
    later: Later[int] = Later()
    for number, (when, _) in enumerate(times):
        later.add(when, number)
    taken = []
    while (item := later.due(now)) is not None:
        taken.append(item)
    assert [times[item][0] for item in taken] == sorted(when for when, _ in times if when <= now)
    assert sorted(taken + later.all()) == list(range(len(times)))
    wait = later.wait_s(now)
    assert (wait is None) == (not later.all())
    assert wait is None or wait > 0
