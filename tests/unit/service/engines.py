"""A service in front of engine servers on loopback, which a test starts, breaks and stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ssjf.core.settings import CoreSettings
from ssjf.service.engine.base import EngineAdapter
from ssjf.service.engine.endpoint import EngineEndpoint
from ssjf.service.settings import ServiceSettings
from tests.unit.service.fake_triton import FakeTriton, free_port
from tests.unit.service.harness import Bench, run

FOUR = CoreSettings(max_inflight=4, policy="fcfs")
QUICK = ServiceSettings(cancel_poll_s=0.005)

Scenario = Callable[[Bench, list[FakeTriton]], Awaitable[None]]


def run_with(engines: int, scenario: Scenario, core: CoreSettings = FOUR, settings: ServiceSettings = QUICK) -> Bench:
    """Run a scenario with that many engine servers; it starts those that it wants to run."""
    ports = [free_port() for _ in range(engines)]

    async def with_engines(bench: Bench) -> None:
        fakes = [FakeTriton(port, text=settings.engine_flavour == "llmapi") for port in ports]
        try:
            await scenario(bench, fakes)
        finally:
            for fake in fakes:
                await fake.stop()

    def endpoints(adapter: EngineAdapter) -> list[EngineEndpoint]:
        return [EngineEndpoint(f"127.0.0.1:{port}", adapter) for port in ports]

    return run(with_engines, core, settings, endpoints)
