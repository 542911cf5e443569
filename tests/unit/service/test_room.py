from __future__ import annotations

import numpy as np
import pytest

from ssjf.core.errors import QueueFull
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import CoreSettings
from ssjf.service.intake import read_rows
from ssjf.service.messages import Call, Generation
from ssjf.service.room import Room
from ssjf.service.settings import ServiceSettings


def rows(count: int, text: bytes = b"hi") -> list[Generation]:
    tensors = {
        "text_input": np.array([[text]] * count, dtype=np.object_),
        "max_tokens": np.ones((count, 1), np.int32),
    }
    return list(read_rows(Call("", tensors, {}, 0, 0.0), ServiceSettings(), 10))


def room(max_queue: int = 100, max_queue_bytes: int = 2**20) -> Room:
    return Room(Scheduler(CoreSettings(max_inflight=2, max_queue=max_queue, max_queue_bytes=max_queue_bytes)))


def test_rows_in_preparation_fill_queue_and_slots() -> None:
    door = room(max_queue=3)
    stays = [door.enter(rows(1), 0) for _ in range(5)]
    with pytest.raises(QueueFull, match=r"5 requests wait, the limit is 3 requests .* retry in 1\.00 s"):
        door.enter(rows(1), 0)
    for _ in range(2):
        stays[0].leave()  # once is enough
    door.enter(rows(1), 0)
    with pytest.raises(QueueFull):
        door.enter(rows(1), 0)


def test_rows_that_the_core_has_count_as_well() -> None:
    door = room(max_queue=3)
    door.enter(rows(1), 4)
    with pytest.raises(QueueFull):
        door.enter(rows(1), 4)


def test_a_refused_request_takes_no_room() -> None:
    door = room(max_queue=3)
    door.enter(rows(4), 0)
    with pytest.raises(QueueFull):
        door.enter(rows(2), 0)
    door.enter(rows(1), 0)


def test_texts_in_preparation_are_bounded_in_bytes() -> None:
    door = room(max_queue_bytes=100)
    first = door.enter(rows(1, b"x" * 60), 0)
    with pytest.raises(QueueFull, match="100 bytes"):
        door.enter(rows(1, b"x" * 41), 0)
    first.leave()
    door.enter(rows(1, b"x" * 41), 0)


def test_one_request_alone_is_left_to_the_core_to_refuse() -> None:
    room(max_queue=3, max_queue_bytes=10).enter(rows(9, b"x" * 60), 0)
