"""One real tritonserver for the tests that only ask it questions; a fresh one for those that break something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssjf_client import Client
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server


@pytest.fixture(scope="session")
def server() -> Iterator[Throwaway]:
    """The CPU profile with four engine slots. Tests leave it as they found it: policy, limits, nothing in flight."""
    with throwaway_server({"SSJF_MAX_INFLIGHT": "4"}) as running:
        yield running


@pytest.fixture
def client(server: Throwaway) -> Iterator[Client]:
    """Our own client library on the shared server."""
    with Client(server.grpc_url) as connected:
        yield connected
