"""The command line of scripts/bench, checked and turned into settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from ssjf_tools.bench.live.experiment import ARMS, Settings
from ssjf_tools.bench.live.figures import Objective
from ssjf_tools.bench.live.prompts import BUNDLED
from ssjf_tools.simulate.workload import ArrivalProcess, Arrivals

_DESCRIPTION = """\
Measures scheduling policies against each other on a live server: the same requests at the same times under each. Asks
every prompt once first, to learn how long its answer is and what the machine can do; arrivals are scaled to that.
"""
_EPILOG = f"""\
arms (--policies)
  {", ".join(ARMS)}
  direct asks the engine itself, with no holding queue before it; the server then needs the models preprocessing and
  tensorrt_llm in TensorRT-LLM's tensors (not llmapi). sjf-oracle is told the true lengths.

prompts (--prompts)
  JSON lines, plain or gzip: prompt, and if you like id and max_tokens. Default: the bundled set.

modes beside measuring
  --calibrate            only measures prefill and decode times, and writes what scripts/simulate --service reads; needs
                         of the server what direct does
  --against-simulator M  runs the requests of a measurement M (from --json) through the simulator with --service and
                         compares mean and p90 of the completion times
  --pool M1 M2 …         the tables of a measurement, over the repeats of all of these (of --json, plain or gzip): for
                         more repeats than there is time for at a stretch. Give each another --seed

examples
  scripts/bench --requests 200                                   a server of its own, some minutes
  scripts/bench --requests 1000 --repeats 3 --json run.json --html run.html
  scripts/bench --url localhost:8001 --token "$TOKEN" --arrivals gamma --cv 4 --load 0.8 --prompts mine.jsonl
  scripts/bench --concurrency 16 --policies fcfs,ssjf-aging,direct
  scripts/bench --calibrate --json service.json
  scripts/bench --against-simulator run.json --service service.json
  scripts/bench --pool monday.json tuesday.json
"""
_ARRIVALS = ("poisson", "gamma", "uniform", "burst", "trace")
_DEFAULT_CV = 2.0

# What the other modes read; all else on their command line would change nothing.
_CALIBRATE_READS = {"calibrate", "chunk_tokens", "url", "token", "max_inflight", "json"}
_COMPARE_READS = {"against_simulator", "service", "own_speed", "json"}
_POOL_READS = {"pool", "json"}
_MODES_ONLY = {"chunk_tokens", "service", "own_speed"}


def parser() -> argparse.ArgumentParser:
    """All options with their help."""
    made = argparse.ArgumentParser(
        prog="scripts/bench",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_target(made.add_argument_group("which server"))
    _add_workload(made.add_argument_group("what is asked, and when"))
    output = made.add_argument_group("how much, and where results go")
    output.add_argument("--policies", default="fcfs,ssjf-aging,sjf-oracle", metavar="A,B", help="(%(default)s)")
    output.add_argument("--requests", type=_whole(1), default=300, metavar="N", help="in a repeat (%(default)s)")
    output.add_argument("--repeats", type=_whole(1), default=1, metavar="K", help="other requests each (%(default)s)")
    output.add_argument("--seed", type=_whole(0), default=0, metavar="S", help="of the first repeat (%(default)s)")
    output.add_argument(
        "--objective-ttft", type=_above_zero, default=5.0, metavar="S", help="good: first token within (%(default)s s)"
    )
    output.add_argument(
        "--objective-itl", type=_above_zero, default=0.2, metavar="S", help="and a token each (%(default)s s)"
    )
    output.add_argument("--json", type=Path, metavar="FILE", help="write all figures and times here")
    output.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots here, complete by itself")
    modes = made.add_argument_group("other modes")
    modes.add_argument("--calibrate", action="store_true", help="measure prefill and decode times, nothing else")
    modes.add_argument(
        "--chunk-tokens",
        type=_whole_or_none,
        metavar="N",
        help="with it: prompt tokens that the engine takes into one step, or none (default: what the server says)",
    )
    modes.add_argument("--against-simulator", type=Path, metavar="MEASUREMENT", help="compare with the simulator")
    modes.add_argument(
        "--pool", type=Path, nargs="+", metavar="MEASUREMENT", help="one table of the repeats of several measurements"
    )
    modes.add_argument("--service", type=Path, metavar="JSON", help="the calibration, for --against-simulator")
    modes.add_argument(
        "--own-speed",
        action="store_true",
        help="with it: at the speed that the machine had in each run, window by window (docs/benchmark.md)",
    )
    return made


def _add_target(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--url", metavar="HOST:PORT", help="gRPC endpoint of a server that runs (default: starts one)")
    group.add_argument(
        "--token",
        default=os.environ.get("SSJF_CONTROL_TOKEN"),
        help="its control token (default: $SSJF_CONTROL_TOKEN)",
    )
    group.add_argument(
        "--max-inflight", type=_whole(1), metavar="N", help="engine slots (default: the server's; 4 for our own)"
    )


def _add_workload(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompts", type=Path, default=BUNDLED, metavar="JSONL", help="default: the bundled set")
    group.add_argument("--max-tokens", type=_whole(1), default=256, metavar="N", help="cap of an answer (%(default)s)")
    group.add_argument(
        "--sampling",
        choices=("greedy", "server"),
        default="greedy",
        help="greedy: answers repeat, so that every arm does the same work (default); server: its own sampling",
    )
    group.add_argument("--arrivals", choices=_ARRIVALS, help="default: poisson, or trace where --trace is given")
    group.add_argument("--cv", type=_above_zero, help=f"of the gaps of gamma arrivals ({_DEFAULT_CV:g})")
    group.add_argument(
        "--trace", type=Path, metavar="CSV", help="arrival times to replay, in the formats of scripts/simulate"
    )
    group.add_argument("--load", type=_above_zero, metavar="RHO", help="arrivals as a share of the capacity (0.9)")
    group.add_argument("--rate", type=_above_zero, metavar="R", help="arrivals a second, instead of --load")
    group.add_argument(
        "--concurrency", type=_whole(1), metavar="N", help="closed loop: N clients, each asks when it has its answer"
    )


def settings_of(chosen: argparse.Namespace) -> Settings:
    """Arms, arrivals and amounts. Raises ValueError."""
    arms = tuple(dict.fromkeys(name.strip() for name in chosen.policies.split(",") if name.strip()))
    for arm in arms or ("",):
        if arm not in ARMS:
            raise ValueError(f"--policies: {arm!r} is none of {', '.join(ARMS)}")
    process, load = _arrivals(chosen)
    return Settings(
        arms=arms,
        requests=chosen.requests,
        repeats=chosen.repeats,
        seed=chosen.seed,
        max_tokens=chosen.max_tokens,
        greedy=chosen.sampling == "greedy",
        process=process,
        load=load,
        concurrency=chosen.concurrency or 1,
        trace=chosen.trace,
        objective=Objective(chosen.objective_ttft, chosen.objective_itl),
    )


def refuse_unused(chosen: argparse.Namespace) -> None:
    """Raise ValueError for an argument that the mode does not read."""
    defaults = vars(parser().parse_args([]))
    given = {name for name, value in vars(chosen).items() if value != defaults[name]}
    if chosen.against_simulator is not None:
        mode, unused = "--against-simulator", given - _COMPARE_READS
    elif chosen.pool is not None:
        mode, unused = "--pool", given - _POOL_READS
    elif chosen.calibrate:
        mode, unused = "--calibrate", given - _CALIBRATE_READS
    else:
        mode, unused = "", given & _MODES_ONLY
    if unused:
        flags = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in unused))
        belongs = "--calibrate" if "chunk_tokens" in unused else "--against-simulator"
        raise ValueError(f"no effect {f'beside {mode}' if mode else f'without {belongs}'}: {flags}")


def _arrivals(chosen: argparse.Namespace) -> tuple[ArrivalProcess | None, float | None]:
    """The process, and the load that its rate is to be found for."""
    if chosen.load is not None and chosen.rate is not None:
        raise ValueError("--load and --rate exclude each other")
    if chosen.concurrency is not None:
        if chosen.load or chosen.rate or chosen.arrivals or chosen.trace or chosen.cv:
            raise ValueError("--concurrency is a closed loop: leave --arrivals, --trace, --cv, --load and --rate out")
        return None, None
    kind: Arrivals = chosen.arrivals or ("trace" if chosen.trace is not None else "poisson")
    if (kind == "trace") != (chosen.trace is not None):
        raise ValueError("--arrivals trace and --trace FILE belong together")
    if chosen.cv is not None and kind != "gamma":
        raise ValueError(f"--cv has no effect: it is for gamma arrivals, these are {kind}")
    if kind == "burst":
        if chosen.load is not None or chosen.rate is not None:
            raise ValueError("--load and --rate have no effect: a burst comes all at once")
        return ArrivalProcess("burst"), None
    load = None if chosen.rate is not None else (chosen.load or 0.9)
    return ArrivalProcess(kind, chosen.rate, chosen.cv or _DEFAULT_CV), load


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is out of range: above 0")
    return value


def _whole_or_none(text: str) -> int:
    return 0 if text == "none" else _whole(1)(text)


def _whole(low: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text} is out of range: at least {low}")
        return value

    return whole_number
