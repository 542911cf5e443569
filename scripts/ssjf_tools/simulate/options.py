"""The command line of scripts/simulate, checked and turned into an experiment."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from ssjf.core.policies.registry import POLICY_NAMES
from ssjf_tools.simulate.events import Setup
from ssjf_tools.simulate.experiment import Experiment
from ssjf_tools.simulate.policies import Arm, parse_arm
from ssjf_tools.simulate.service import PAPER, ServiceModel, read_service
from ssjf_tools.simulate.sources import Population, read_journal, read_predictions, read_trace, synthetic
from ssjf_tools.simulate.workload import ARRIVALS, ArrivalProcess, Arrivals, rate_for_load

_DEFAULT_REQUESTS = 20_000
_DESCRIPTION = """\
Simulates an LLM engine behind the scheduler: the policy, queue and admission code that serves, with simulated time.
Answers what a policy would gain on lengths and arrivals like yours, before anything is installed.
"""
_EPILOG = f"""\
policies
  {", ".join(POLICY_NAMES)}
  name@seconds sets the bound on waiting: ssjf@60 promotes what has waited 60 s. Without it, --max-wait; without that
  there is none, except for ssjf-aging, whose default rate is made for a bound (60 s).

files
  --predictions  CSV: output_tokens and one or more of class3, class5, predicted_tokens; prompt_tokens and arrival_s may
                 be there. A class counts as the mean true length of its rows. Requests are drawn with replacement.
  --trace        CSV: TIMESTAMP,ContextTokens,GeneratedTokens (Azure 2023), timestamp_ms,input_tokens,output_tokens
                 (Mooncake) or arrival_s,prompt_tokens,output_tokens. Replayed in order. With --predictions, only the
                 times are taken from it.
  --journal      the scheduler's journal of finished requests (JSON lines), replayed: what would another policy gain?
  none           a synthetic mix of short tasks and chat, with a predictor of --noise.
  All may be gzip.

examples
  scripts/simulate --predictions lengths.csv --slots 8 --load 0.9 --policies fcfs,ssjf,sjf-oracle
  scripts/simulate --trace azure.csv --load 0.8 --slots 16 --policies fcfs,ssjf@60,sjf-oracle --json out.json
  scripts/simulate --arrivals burst --requests 50 --batching none --seeds 20
"""


def parser() -> argparse.ArgumentParser:
    """All options with their help."""
    made = argparse.ArgumentParser(
        prog="scripts/simulate",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = made.add_argument_group("where requests come from")
    source.add_argument("--predictions", type=Path, metavar="CSV", help="true and predicted lengths")
    source.add_argument("--trace", type=Path, metavar="CSV", help="arrivals and lengths")
    source.add_argument("--journal", type=Path, metavar="FILE", help="the scheduler's journal")
    source.add_argument("--predictors", metavar="NAMES", help="columns to use as predictors (default: all there are)")
    source.add_argument(
        "--noise", type=_at_least(0), default=0.6, metavar="SD", help="log-error of the made-up predictor (%(default)s)"
    )
    arrivals = made.add_argument_group("when they arrive")
    arrivals.add_argument("--arrivals", choices=ARRIVALS, help="default: trace for --trace and --journal, else poisson")
    arrivals.add_argument(
        "--load", type=_at_least(1e-6), metavar="RHO", help="arrivals as a share of what the slots can do (0.9)"
    )
    arrivals.add_argument("--rate", type=_at_least(1e-9), metavar="R", help="arrivals a second, instead of --load")
    arrivals.add_argument("--cv", type=_at_least(1e-3), default=1.0, help="of the gaps of gamma arrivals (%(default)s)")
    arrivals.add_argument(
        "--time-scale", type=_at_least(1e-9), default=1.0, metavar="F", help="stretches a trace's times (%(default)s)"
    )
    machine = made.add_argument_group("what serves them")
    machine.add_argument("--batching", choices=("none", "dynamic", "continuous"), default="continuous")
    machine.add_argument(
        "--slots", type=_whole(1), default=8, metavar="N", help="batch slots, size of a dynamic group (%(default)s)"
    )
    machine.add_argument(
        "--max-inflight-tokens", type=_whole(1), metavar="N", help="KV budget: prompt and predicted output of what runs"
    )
    machine.add_argument("--max-wait", type=_at_least(1e-3), metavar="S", help="bound on waiting for all policies")
    machine.add_argument(
        "--service", type=Path, metavar="JSON", help="calibrated service times (default: 0.1 s + 0.02 s a token)"
    )
    machine.add_argument("--policies", default="fcfs,ssjf,ssjf-aging,sjf-oracle", metavar="A,B", help="(%(default)s)")
    output = made.add_argument_group("how much, and where results go")
    output.add_argument("--requests", type=_whole(1), metavar="N", help="a seed (a replayed file: all; else 20000)")
    output.add_argument(
        "--seeds", type=_whole(1), default=3, metavar="K", help="repeats (%(default)s; a replay is one)"
    )
    output.add_argument("--seed", type=_whole(0), default=0, metavar="S", help="the first seed (%(default)s)")
    output.add_argument("--json", type=Path, metavar="OUT", help="write the rows here")
    output.add_argument("--plots", type=Path, metavar="DIR", help="write plots here (needs matplotlib)")
    return made


def arms_of(chosen: argparse.Namespace) -> list[Arm]:
    """The policies to run. Raises ValueError."""
    labels = [name.strip() for name in chosen.policies.split(",") if name.strip()]
    if not labels:
        raise ValueError("--policies names none")
    return [parse_arm(label, chosen.max_wait) for label in dict.fromkeys(labels)]


def population_of(chosen: argparse.Namespace) -> Population:
    """The requests to draw from. Raises InputError or ValueError."""
    if chosen.journal is not None:
        if chosen.predictions or chosen.trace:
            raise ValueError("--journal replays a run by itself: leave --predictions and --trace out")
        return read_journal(chosen.journal)
    if chosen.trace is not None:
        trace = read_trace(chosen.trace, chosen.noise, chosen.seed)
        if chosen.predictions is None:
            return trace
        return dataclasses.replace(read_predictions(chosen.predictions), arrival_s=trace.arrival_s)
    if chosen.predictions is not None:
        return read_predictions(chosen.predictions)
    return synthetic(chosen.noise, chosen.seed)


def predictors_of(chosen: argparse.Namespace, population: Population) -> list[str]:
    """The predictors to compare. Raises ValueError for one that the source does not have."""
    if chosen.predictors is None:
        return list(population.predicted)
    names = [name.strip() for name in chosen.predictors.split(",")]
    for name in names:
        if name not in population.predicted:
            raise ValueError(f"--predictors: {name!r} is none of {', '.join(population.predicted)}")
    return names


def experiment_of(chosen: argparse.Namespace, population: Population) -> Experiment:
    """Machine and arrivals. Raises InputError or ValueError."""
    if chosen.load is not None and chosen.rate is not None:
        raise ValueError("--load and --rate exclude each other")
    model = PAPER if chosen.service is None else read_service(chosen.service)
    slots = 1 if chosen.batching == "none" else chosen.slots
    replays = chosen.trace is not None or chosen.journal is not None
    kind: Arrivals = chosen.arrivals or ("trace" if replays else "poisson")
    if kind == "trace" and population.arrival_s is None:
        raise ValueError("--arrivals trace needs a file with arrival times")
    load, rate = _load_and_rate(chosen, population, model, slots, kind)
    return Experiment(
        population=population,
        process=ArrivalProcess(kind, rate, chosen.cv, chosen.time_scale),
        setup=Setup(chosen.batching, slots, model, tokens=chosen.max_inflight_tokens),
        requests=chosen.requests or (len(population) if population.ordered else _DEFAULT_REQUESTS),
        # A replay has nothing random in it: repeats would only feign certainty.
        seeds=1 if population.ordered and kind == "trace" else chosen.seeds,
        load=load,
        first_seed=chosen.seed,
    )


def _load_and_rate(
    chosen: argparse.Namespace, population: Population, model: ServiceModel, slots: int, kind: str
) -> tuple[float | None, float | None]:
    full_rate = rate_for_load(population, model, slots, 1.0)
    if kind == "burst":
        return None, None
    if chosen.rate is not None:
        return chosen.rate / full_rate, chosen.rate
    if kind == "trace" and chosen.load is None:
        return None, None  # the trace's own times
    load = 0.9 if chosen.load is None else chosen.load
    return load, load * full_rate


def _at_least(low: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not value >= low:
            raise argparse.ArgumentTypeError(f"{text} is out of range: at least {low:g}")
        return value

    return number


def _whole(low: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text} is out of range: at least {low}")
        return value

    return whole_number
