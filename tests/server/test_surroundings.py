"""A full disk under the journal and a wall clock that jumps: nobody who asks notices."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ssjf_client import Client
from ssjf_tools.bench.overhead import INSTANT_ENGINE
from ssjf_tools.bench.streams import StreamClient, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import wait_for
from tests.server.crowd import End, count_kinds, end_of
from tests.server.test_faults import stub

pytestmark = [pytest.mark.server, pytest.mark.slow]

SLOTS, STEP_S, TOKENS = 2, 0.01, 10
REQUESTS = 60  # 3 s of work
DEADLINE_S = 30.0
DAY_S = 86_400
FULL_DISK = Path("/dev/full")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A server, the link that is its journal, and the number of seconds that its wall clock is wrong by."""

    server: Throwaway
    journal: Path
    wrong_by: Path | None

    def jump(self, seconds: int) -> None:
        assert self.wrong_by is not None
        with self.wrong_by.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """Two slots at 10 ms a token; the journal is on a full disk from the start."""
    folder = tmp_path_factory.mktemp("surroundings")
    journal = folder / "requests.jsonl"
    journal.symlink_to(FULL_DISK)
    settings = {"SSJF_MAX_INFLIGHT": str(SLOTS), "SSJF_STEP_S": str(STEP_S), "SSJF_JOURNAL_PATH": str(journal)}
    wrong_by, preloaded = wall_clock(folder)
    with throwaway_server(settings | preloaded, INSTANT_ENGINE) as server:
        yield Surroundings(server, journal, wrong_by)


def wall_clock(folder: Path) -> tuple[Path | None, dict[str, str]]:
    """The file that says how wrong the clock is, and the environment that makes a process believe it."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None, {}
    library, wrong_by = folder / "wall_clock.so", folder / "wrong_by"
    source = Path(__file__).parent / "wall_clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    wrong_by.write_bytes(bytes(8))
    return wrong_by, {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(wrong_by)}


async def crowd(server: Throwaway, requests: int = REQUESTS) -> list[End]:
    client = StreamClient(server.grpc_url)
    deadline_ms = round(DEADLINE_S * 1e3)
    ends = await asyncio.gather(
        *(
            end_of(client, "scheduler", text_request(f"Number {at}", TOKENS), 60, deadline_ms=deadline_ms)
            for at in range(requests)
        )
    )
    await client.close()
    return list(ends)


def test_a_full_disk_under_the_journal_costs_its_records_alone(surroundings: Surroundings) -> None:
    server = surroundings.server
    ends = asyncio.run(crowd(server))
    assert [(end.kind, end.tokens) for end in ends] == [("answered", TOKENS)] * REQUESTS
    with Client(server.grpc_url) as client:
        lost = wait_for(
            client, server.token, lambda status: status.extra["journal"]["dropped_write"] == REQUESTS
        ).extra["journal"]
        assert lost == {"failing": True, "written": 0, "dropped_queue": 0, "dropped_write": REQUESTS}
        assert "the journal cannot be written" in server.log.read_text(errors="replace")
        surroundings.journal.unlink()  # there is room again
        time.sleep(1.1)  # a journal that failed is left alone for a second
        asyncio.run(crowd(server, 5))
        state = wait_for(client, server.token, lambda status: status.extra["journal"]["written"] == 5)
        assert state.extra["journal"]["failing"] is False
    lines = [json.loads(line) for line in surroundings.journal.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["finished"] * 5


def test_a_jump_of_the_wall_clock_changes_nothing(surroundings: Surroundings) -> None:
    """By a day to and fro while requests run and wait: none is late, none waits longer, all are answered."""
    if surroundings.wrong_by is None:
        pytest.skip("no C compiler to build the wrong clock with")
    server = surroundings.server

    async def scenario() -> tuple[list[End], float]:
        begun = time.monotonic()
        under_way = asyncio.ensure_future(crowd(server))
        for seconds in (DAY_S, -DAY_S, DAY_S, 0):
            await asyncio.sleep(0.6)
            surroundings.jump(seconds)
        return await under_way, time.monotonic() - begun

    assert str(surroundings.wrong_by.parent) in Path(f"/proc/{stub(server, 'scheduler')}/maps").read_text()
    surroundings.jump(DAY_S)
    assert abs(wrong_time(surroundings) - time.time() - DAY_S) < 60
    surroundings.jump(0)
    ends, seconds = asyncio.run(scenario())
    print(f"{dict(count_kinds(ends))} in {seconds:.1f} s, longest queue time {max(end.queue_s for end in ends):.1f} s")
    assert [(end.kind, end.tokens) for end in ends] == [("answered", TOKENS)] * REQUESTS
    assert all(0 <= end.queue_s <= seconds for end in ends)
    with Client(server.grpc_url) as client:
        wait_for(client, server.token, lambda status: status.live_requests == status.in_flight == 0)


def wrong_time(surroundings: Surroundings) -> float:
    """What the wall clock says to a process that was started as the server was."""
    library = surroundings.journal.parent / "wall_clock.so"
    environment = os.environ | {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(surroundings.wrong_by)}
    return float(subprocess.run(["date", "+%s"], env=environment, capture_output=True, text=True, check=True).stdout)
