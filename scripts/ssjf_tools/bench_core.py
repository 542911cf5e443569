"""Speed of the scheduling core, printed as a table and written as JSON."""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ssjf.core.job import Job, LengthPrediction
from ssjf.core.policies.base import KeyedPolicy
from ssjf.core.policies.registry import POLICY_NAMES, make_policy
from ssjf.core.queue import WaitingQueue
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import CoreSettings

_EPILOG = """\
what is measured
  push, pop   one WaitingQueue.push and one take while --waiting jobs wait, the median of --samples of each; the queue
              keeps its length. Target: at most 10 µs each with 1,000,000 waiting, for every heap policy.
              hrrn is not a heap: its order changes with time, a decision looks at about 100 groups of jobs.
  switch      Scheduler.set_policy with --switch-waiting jobs waiting. Target: under 1 s with 100,000.
  growth      one request's whole way through Scheduler (submit, finish of another, schedule) at queue lengths from
              1,000 up. A heap's comparisons grow as the logarithm of the length, which doubles from 1,000 to 1,000,000;
              a long queue also leaves the processor's caches.

examples
  scripts/bench-core
  scripts/bench-core --waiting 100000 --policies ssjf,ssjf-aging --json core.json
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: medians in µs of a push and of a pop with `waiting` jobs in the queue."""

    policy: str
    waiting: int
    push_us: float
    pop_us: float
    pop_p99_us: float


def make_jobs(count: int, first: int, source: random.Random) -> list[Job]:
    """Jobs with log-normal predicted lengths, a hundred a second."""
    jobs = []
    for job_id in range(first, first + count):
        mean = source.lognormvariate(5.0, 1.0)
        prediction = LengthPrediction(mean, 2 * mean)
        prompt = source.randint(10, 1000)
        jobs.append(Job(job_id, job_id * 0.01, prompt, 4096, 1, prediction, expected_tokens=mean))
    return jobs


def measure(policy: str, waiting: int, samples: int, seed: int) -> Row:
    """Times single calls on a queue that holds `waiting` jobs throughout."""
    source = random.Random(seed)
    queue = WaitingQueue(make_policy(policy, CoreSettings()), {}, max_wait_s=math.inf, budgeted=False)
    for job in make_jobs(waiting, 0, source):
        queue.push(job)
    pushes, pops = [], []
    clock = time.perf_counter_ns
    for job in make_jobs(samples, waiting, source):
        before = clock()
        queue.push(job)
        between = clock()
        queue.take(job.arrival, math.inf)
        after = clock()
        pushes.append((between - before) / 1000)
        pops.append((after - between) / 1000)
    return Row(policy, waiting, statistics.median(pushes), statistics.median(pops), sorted(pops)[int(0.99 * samples)])


def measure_cycle(waiting: int, samples: int, seed: int) -> float:
    """Median µs of a request's way through a Scheduler under ssjf in which `waiting` jobs wait throughout."""
    source = random.Random(seed)
    scheduler = Scheduler(
        CoreSettings(policy="ssjf", max_inflight=1, max_wait_s=math.inf, max_queue=2**31 - 1, max_queue_bytes=2**50)
    )
    for job in make_jobs(waiting + 1, 0, source):
        scheduler.submit(job, job.arrival)
    (running,) = scheduler.schedule(0.0).dispatch
    costs = []
    for job in make_jobs(samples, waiting + 1, source):
        before = time.perf_counter_ns()
        scheduler.submit(job, job.arrival)
        scheduler.finish(running.job_id, 100, job.arrival)
        (running,) = scheduler.schedule(job.arrival).dispatch
        costs.append((time.perf_counter_ns() - before) / 1000)
    return statistics.median(costs)


def measure_switch(waiting: int, seed: int) -> dict[str, float]:
    """Seconds of a live switch to each policy with `waiting` jobs waiting."""
    scheduler = Scheduler(CoreSettings(policy="fcfs", max_queue=waiting, max_queue_bytes=2**50))
    for job in make_jobs(waiting, 0, random.Random(seed)):
        scheduler.submit(job, job.arrival)
    seconds = {}
    for policy in POLICY_NAMES:
        before = time.perf_counter()
        scheduler.set_policy(policy, waiting * 0.01)
        seconds[policy] = time.perf_counter() - before
    return seconds


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench-core",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--waiting", type=int, default=1_000_000, help="jobs that wait (default %(default)s)")
    parser.add_argument("--samples", type=int, default=50_000, help="timed calls of each kind (default %(default)s)")
    parser.add_argument(
        "--switch-waiting", type=int, default=100_000, help="jobs that wait at the switch (%(default)s)"
    )
    parser.add_argument("--policies", default=",".join(POLICY_NAMES), help="comma-separated (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the jobs' lengths (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    chosen = parser.parse_args(arguments)
    chosen.policies = [name.strip() for name in chosen.policies.split(",")]
    for name in chosen.policies:
        if name not in POLICY_NAMES:
            parser.error(f"--policies: {name!r} is none of {', '.join(POLICY_NAMES)}")
    for key in ("waiting", "samples", "switch_waiting"):
        if getattr(chosen, key) < 1:
            parser.error(f"--{key.replace('_', '-')} is {getattr(chosen, key)}, allowed: 1 and more")
    return chosen


def run(chosen: argparse.Namespace) -> dict[str, object]:
    """All measurements, printed as they are made."""
    print(f"{'policy':<14} {'waiting':>9}  {'push µs':>8} {'pop µs':>8} {'pop p99':>8}")
    rows = [show(measure(name, chosen.waiting, chosen.samples, chosen.seed)) for name in chosen.policies]
    heaps = {name for name in chosen.policies if isinstance(make_policy(name, CoreSettings()), KeyedPolicy)}
    slowest = max((max(row.push_us, row.pop_us) for row in rows if row.policy in heaps), default=math.nan)
    print(f"slowest median of a heap policy: {slowest:.1f} µs (target at most 10 µs with 1,000,000 waiting)\n")
    switch = measure_switch(chosen.switch_waiting, chosen.seed)
    print(f"live switch with {chosen.switch_waiting:,} waiting (target under 1 s with 100,000):")
    print("  " + "  ".join(f"{name} {seconds:.3f} s" for name, seconds in switch.items()) + "\n")
    print("growth with the queue's length, a request's whole way under ssjf:")
    growth = measure_growth(chosen)
    return {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "push_pop": [asdict(row) for row in rows],
        "switch_s": switch,
        "switch_waiting": chosen.switch_waiting,
        "growth": growth,
    }


def measure_growth(chosen: argparse.Namespace) -> list[dict[str, float]]:
    """µs a request at each power of ten up to --waiting, and how often that of the shortest queue; printed."""
    growth: list[dict[str, float]] = []
    for length in (10**power for power in range(3, 7) if 10**power <= chosen.waiting):
        cost = measure_cycle(length, min(chosen.samples, 20_000), chosen.seed)
        ratio = cost / growth[0]["us_per_request"] if growth else 1.0
        log_ratio = math.log(length) / math.log(1000)
        growth.append({"waiting": length, "us_per_request": cost, "ratio": ratio, "log_ratio": log_ratio})
        print(f"  {length:>9,} waiting  {cost:>6.2f} µs  × {ratio:.2f} (the logarithm: × {log_ratio:.2f})", flush=True)
        gc.collect()
    return growth


def show(row: Row) -> Row:
    """Print one line of the table."""
    print(
        f"{row.policy:<14} {row.waiting:>9,}  {row.push_us:>8.2f} {row.pop_us:>8.2f} {row.pop_p99_us:>8.1f}", flush=True
    )
    gc.collect()  # a million jobs of the last measurement must not slow the next
    return row


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    chosen = parse_arguments(arguments)
    figures = run(chosen)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
