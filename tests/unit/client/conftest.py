from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssjf_client import Client
from tests.unit.client.fake_triton import FakeTriton


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    server = FakeTriton()
    yield server
    server.stop()


@pytest.fixture
def client(triton: FakeTriton) -> Iterator[Client]:
    with Client(triton.url, timeout_s=20) as opened:
        yield opened
