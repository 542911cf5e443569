"""The simulated machine against hand-made schedules, queueing theory and an independent simulation."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest

from ssjf_tools.simulate.engine import FixedEngine, LockstepEngine
from ssjf_tools.simulate.events import Setup, Timeline, simulate
from ssjf_tools.simulate.policies import parse_arm
from ssjf_tools.simulate.service import PAPER, ServiceModel
from ssjf_tools.simulate.sources import Population
from ssjf_tools.simulate.tables import Column
from ssjf_tools.simulate.workload import ArrivalProcess, RequestSet, draw

SECONDS = ServiceModel(base_s=0.0, steps=((1, 1.0),))  # a token a second


def requests(arrivals: list[float], outputs: list[float], predicted: list[float] | None = None) -> RequestSet:
    columns = np.array(outputs, float)
    predictions = columns if predicted is None else np.array(predicted, float)
    return RequestSet(np.array(arrivals, float), columns, np.zeros(len(outputs)), {"p": predictions})


def ends(given: RequestSet, policy: str, setup: Setup) -> list[float]:
    return [float(end) for end in simulate(given, parse_arm(policy, None), "p", setup).end_s]


def test_one_at_a_time_shortest_first() -> None:
    given = requests([0, 1, 2], [10, 5, 3])
    assert ends(given, "fcfs", Setup("none", 1, SECONDS)) == [10, 15, 18]
    assert ends(given, "ssjf", Setup("none", 1, SECONDS)) == [10, 18, 13]


def test_predictions_order_and_true_lengths_run() -> None:
    given = requests([0, 1, 2], [10, 5, 3], predicted=[10, 2, 7])
    assert ends(given, "ssjf", Setup("none", 1, SECONDS)) == [10, 15, 18]
    assert ends(given, "sjf-oracle", Setup("none", 1, SECONDS)) == [10, 18, 13]


def test_continuous_refills_slots_and_dynamic_waits_for_the_group() -> None:
    given = requests([0, 0, 0, 0], [10, 2, 3, 4])
    assert ends(given, "fcfs", Setup("continuous", 2, SECONDS)) == [10, 2, 5, 9]
    assert ends(given, "fcfs", Setup("dynamic", 2, SECONDS)) == [10, 2, 13, 14]
    assert ends(given, "fcfs", Setup("dynamic", 2, SECONDS, together=True)) == [10, 10, 14, 14]


def test_requests_that_come_together_are_decided_on_together() -> None:
    assert ends(requests([0, 0, 0], [5, 1, 3]), "ssjf", Setup("continuous", 1, SECONDS)) == [9, 1, 4]


def test_the_bound_on_waiting_promotes() -> None:
    given = requests([0, 0, *range(1, 20)], [2, 50, *([1.5] * 19)])
    assert ends(given, "ssjf", Setup("none", 1, SECONDS))[1] > 80
    assert ends(given, "ssjf@10", Setup("none", 1, SECONDS))[1] == 11 + 50
    assert simulate(given, parse_arm("ssjf@10", None), "p", Setup("none", 1, SECONDS)).promotions >= 1


def test_prefill_counts() -> None:
    given = RequestSet(np.zeros(1), np.array([10.0]), np.array([100.0]), {})
    setup = Setup("continuous", 1, ServiceModel(0.5, 0.01, ((1, 0.1),)))
    assert simulate(given, parse_arm("fcfs", None), None, setup).end_s.tolist() == pytest.approx([0.5 + 1 + 1])


def test_a_token_budget_holds_back_and_is_corrected_when_answers_outgrow_their_predictions() -> None:
    given = requests([0, 0, 30], [100, 40, 40], predicted=[10, 40, 40])
    wide = Setup("continuous", 3, SECONDS)
    for model in (SECONDS, ServiceModel(0.0, 0.0, ((1, 1.0), (2, 1.0)))):
        narrow = Setup("continuous", 3, model, tokens=95)
        assert ends(given, "fcfs", wide) == [100, 40, 70]
        # At 30 the first has produced 30 of its predicted 10 and holds 38, a quarter more: 38 + 40 + 40 is too much.
        assert ends(given, "fcfs", narrow) == pytest.approx([100, 40, 80])
        with_room = Setup("continuous", 3, model, tokens=120)
        assert ends(given, "fcfs", with_room) == pytest.approx([100, 40, 70])


def test_lockstep_slows_down_with_the_batch_and_speeds_up_again() -> None:
    # Alone a step takes 1 s, with two requests 2 s.
    model = ServiceModel(0.0, 0.0, ((1, 1.0), (2, 2.0)))
    given = requests([0, 4], [10, 3])
    # 4 tokens alone, then 3 steps of 2 s together until the second ends at 10, then 3 tokens alone.
    assert ends(given, "fcfs", Setup("continuous", 2, model)) == pytest.approx([13, 10])


def test_lockstep_with_one_step_time_is_the_fixed_engine() -> None:
    source = np.random.default_rng(0)
    prompts, outputs = source.integers(0, 50, 40).tolist(), source.integers(1, 30, 40).tolist()
    model = ServiceModel(0.3, 0.02, ((1, 0.5),))
    fixed, lockstep = FixedEngine(model, prompts, outputs), LockstepEngine(model, prompts, outputs)
    found = []
    for engine in (fixed, lockstep):
        seen = []
        for place in range(40):
            engine.start([place], float(place))
            while engine.next_event() <= place + 1:
                when = engine.next_event()
                seen.append((engine.advance(), when))
        while engine.next_event() < math.inf:
            when = engine.next_event()
            seen.append((engine.advance(), when))
        found.append({place: when for place, when in seen if place is not None})
    assert found[0].keys() == found[1].keys() == set(range(40))
    assert all(found[0][place] == pytest.approx(found[1][place]) for place in range(40))


def test_one_slot_at_load_half_agrees_with_pollaczek_khinchine() -> None:
    source = np.random.default_rng(1)
    lengths = source.exponential(100, 5000)
    population = Population(lengths, np.zeros(5000), {})
    service = PAPER.base_s + 0.02 * lengths
    rate = 0.5 / service.mean()
    given = draw(population, ArrivalProcess("poisson", rate), 100_000, 2)
    timeline = simulate(given, parse_arm("fcfs", None), None, Setup("continuous", 1, PAPER))
    expected = rate * (service**2).mean() / (2 * (1 - 0.5))
    assert timeline.wait_s.mean() == pytest.approx(expected, rel=0.05)


def independent_sjf(given: RequestSet, slots: int, keys: list[float]) -> Column:
    """A bare heap: the reference for shortest job first through c slots."""
    arrivals, service = given.arrival_s, 0.1 + 0.02 * given.output_tokens
    waiting: list[tuple[float, int]] = []
    running: list[tuple[float, int]] = []
    finished = np.zeros(len(given))
    submitted = 0
    while submitted < len(given) or running:
        if submitted < len(given) and (not running or arrivals[submitted] <= running[0][0]):
            now = arrivals[submitted]
            heapq.heappush(waiting, (keys[submitted], submitted))
            submitted += 1
        else:
            now, done = heapq.heappop(running)
            finished[done] = now
        while waiting and len(running) < slots:
            _, place = heapq.heappop(waiting)
            heapq.heappush(running, (now + service[place], place))
    return finished


@pytest.mark.parametrize("slots", [1, 3])
def test_every_request_ends_when_an_independent_simulation_says(slots: int) -> None:
    source = np.random.default_rng(5)
    lengths = source.lognormal(4.5, 1.0, 2000)
    classes = np.digitize(lengths, [50, 150, 400]) * 100.0 + 1
    population = Population(lengths, np.zeros(2000), {"p": classes})
    given = draw(population, ArrivalProcess("poisson", 0.9 * slots / (0.1 + 0.02 * lengths.mean())), 5000, 0)
    setup = Setup("continuous", slots, PAPER)
    predicted = simulate(given, parse_arm("ssjf", None), "p", setup).end_s
    assert predicted == pytest.approx(independent_sjf(given, slots, given.predicted["p"].tolist()))
    oracle = simulate(given, parse_arm("sjf-oracle", None), None, setup).end_s
    assert oracle == pytest.approx(independent_sjf(given, slots, given.output_tokens.tolist()))


def test_arms() -> None:
    assert parse_arm("ssjf", None).max_wait_s == math.inf
    assert parse_arm("ssjf-aging", None).max_wait_s == 60
    assert parse_arm("ssjf-aging", 5.0).max_wait_s == 5
    assert parse_arm("hrrn@30", 5.0).max_wait_s == 30
    for wrong, problem in (("lifo", "none of fcfs"), ("ssjf@soon", "seconds above 0"), ("ssjf@-1", "seconds above 0")):
        with pytest.raises(ValueError, match=problem):
            parse_arm(wrong, None)


def chunked(arrivals: list[float], prompts: list[float], outputs: list[float], slots: int = 4) -> Timeline:
    model = ServiceModel(0.5, 0.01, ((1, 0.1), (2, 0.2)), chunk_tokens=50)
    requests = RequestSet(np.array(arrivals), np.array(outputs), np.array(prompts), {})
    return simulate(requests, parse_arm("fcfs", None), None, Setup("continuous", slots, model))


def test_a_prompt_alone_costs_its_tokens() -> None:
    assert chunked([0.0], [120.0], [3.0]).completion_s == pytest.approx([0.5 + 1.2 + 0.3])


def test_a_prompt_in_chunks_holds_up_who_decodes() -> None:
    # The first decodes from 1.0 on, a token every 0.1 s. From 2.0 on the second's prompt of two chunks takes two steps
    # of 0.1 s (one decodes) + 0.5 s; in these 1.2 s the first gains two tokens instead of twelve.
    found = chunked([0.0, 1.5], [50.0, 100.0], [15.0, 4.0])
    # At 3.2 the first has 12 tokens: three more steps of 0.2 s to its end, one more of 0.1 s to the second's.
    assert found.end_s == pytest.approx([3.8, 3.9])


def test_prompts_go_one_after_the_other() -> None:
    found = chunked([0.0, 0.0], [50.0, 50.0], [1.0, 1.0])
    # First prompt until 1.0, then the second's beside the first's only token: 0.5 + 0.1 s; then the second's token.
    assert found.end_s == pytest.approx([1.6, 1.7])
