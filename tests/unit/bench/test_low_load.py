from __future__ import annotations

import pytest

from ssjf_tools.bench.low_load import Block, Mean, summary
from ssjf_tools.bench.streams import Timeline


def test_a_block_counts_from_the_first_request_to_the_last_token() -> None:
    block = Block.of([Timeline(sent=1.0, last=3.0, tokens=30), Timeline(sent=2.0, last=5.0, tokens=10)])
    assert (block.jct_s, block.tokens_per_s) == (2.5, 10.0)


def test_the_interval_is_that_of_students_t() -> None:
    mean = Mean.of([0.01, 0.02, 0.03])
    assert mean.value == pytest.approx(0.02)
    assert mean.half == pytest.approx(4.30 * 0.01 / 3**0.5)
    assert Mean(0.01, 0.009).within(0.02)
    assert not Mean(0.01, 0.011).within(0.02)
    assert not Mean(-0.015, 0.006).within(0.02)


def test_the_proxys_time_is_taken_off_before_the_comparison() -> None:
    direct = [Block(1.0, 50.0), Block(2.0, 40.0)]
    through = [Block(1.005, 50.0), Block(2.005, 40.0)]
    figures = summary(direct, through, proxy_s=0.005)
    assert figures["jct_difference"] == pytest.approx(0.0)
    assert figures["rate_difference"] == 0.0
    assert figures["equal"]
    assert not summary(direct, through, proxy_s=0.5)["equal"]
