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

# Not argparse's defaults: an argument that was given and changes nothing is refused, so it must be known as given.
_DEFAULT_REQUESTS = 20_000
_DEFAULT_SLOTS = 8
_DEFAULT_SEEDS = 3
_DEFAULT_NOISE = 0.6

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
                 be there. A class counts as the mean true length of its rows. Requests are drawn with replacement; with
                 arrival_s the rows are replayed in order at these times, unless --arrivals says otherwise.
  --trace        CSV: TIMESTAMP,ContextTokens,GeneratedTokens (Azure 2023), timestamp_ms,input_tokens,output_tokens
                 (Mooncake) or arrival_s,prompt_tokens,output_tokens. Replayed in order. With --predictions, only the
                 times are taken from it (and arrival_s of --predictions is not used).
  --journal      the scheduler's journal (JSON lines), replayed: what would another policy gain? Used: arrival,
                 prompt_tokens, predicted_tokens and output_tokens of lines whose outcome is finished. Not used: all
                 else (tenants, priority classes, limits, deadlines, the times that were measured) and the load of
                 requests that did not finish. Which machine replays them you say by --slots and --service.
  none           a synthetic mix of short tasks and chat, with a predictor of --noise.
  All may be gzip.

examples
  scripts/simulate --predictions lengths.csv --slots 8 --load 0.9 --policies fcfs,ssjf,sjf-oracle
  scripts/simulate --trace azure.csv --load 0.8 --slots 16 --policies fcfs,ssjf@60,sjf-oracle --json out.json
  scripts/simulate --journal journal.jsonl --slots 4 --service service.json
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
    _add_sources(made.add_argument_group("where requests come from"))
    _add_arrivals(made.add_argument_group("when they arrive"))
    _add_machine(made.add_argument_group("what serves them"))
    output = made.add_argument_group("how much, and where results go")
    output.add_argument("--requests", type=_whole(1), metavar="N", help="a seed (a replayed file: all; else 20000)")
    output.add_argument("--seeds", type=_whole(1), metavar="K", help=f"repeats ({_DEFAULT_SEEDS}; a replay is one)")
    output.add_argument("--seed", type=_whole(0), default=0, metavar="S", help="the first seed (%(default)s)")
    output.add_argument("--json", type=Path, metavar="OUT", help="write the rows here")
    output.add_argument("--plots", type=Path, metavar="DIR", help="write plots here (installs matplotlib on first use)")
    return made


def _add_sources(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--predictions", type=Path, metavar="CSV", help="true and predicted lengths")
    group.add_argument("--trace", type=Path, metavar="CSV", help="arrivals and lengths")
    group.add_argument("--journal", type=Path, metavar="FILE", help="the scheduler's journal")
    group.add_argument("--predictors", metavar="NAMES", help="columns to use as predictors (default: all there are)")
    group.add_argument(
        "--noise", type=_at_least(0), metavar="SD", help=f"log-error of the made-up predictor ({_DEFAULT_NOISE})"
    )


def _add_arrivals(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--arrivals", choices=ARRIVALS, help="default: trace where the file has times, else poisson")
    group.add_argument(
        "--load",
        type=_at_least(1e-6),
        metavar="RHO",
        help="arrivals as a share of what the slots can do (0.9; for trace arrivals: the file's own times)",
    )
    group.add_argument("--rate", type=_at_least(1e-9), metavar="R", help="arrivals a second, instead of --load")
    group.add_argument("--cv", type=_at_least(1e-3), help="of the gaps of gamma arrivals (1)")
    group.add_argument(
        "--time-scale", type=_at_least(1e-9), metavar="F", help="stretches a trace's own times (1); not with --load"
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batching", choices=("none", "dynamic", "continuous"), default="continuous")
    group.add_argument(
        "--slots",
        type=_whole(1),
        metavar="N",
        help=f"batch slots, size of a dynamic group ({_DEFAULT_SLOTS}; without batching 1)",
    )
    group.add_argument(
        "--max-inflight-tokens", type=_whole(1), metavar="N", help="KV budget: prompt and predicted output of what runs"
    )
    group.add_argument("--max-wait", type=_at_least(1e-3), metavar="S", help="bound on waiting for all policies")
    group.add_argument(
        "--service", type=Path, metavar="JSON", help="calibrated service times (default: 0.1 s + 0.02 s a token)"
    )
    group.add_argument("--policies", default="fcfs,ssjf,ssjf-aging,sjf-oracle", metavar="A,B", help="(%(default)s)")


def arms_of(chosen: argparse.Namespace) -> list[Arm]:
    """The policies to run. Raises ValueError."""
    labels = [name.strip() for name in chosen.policies.split(",") if name.strip()]
    if not labels:
        raise ValueError("--policies names none")
    return [parse_arm(label, chosen.max_wait) for label in dict.fromkeys(labels)]


def population_of(chosen: argparse.Namespace) -> Population:
    """The requests to draw from. Raises InputError or ValueError."""
    noise = _DEFAULT_NOISE if chosen.noise is None else chosen.noise
    if chosen.journal is not None:
        if chosen.predictions or chosen.trace:
            raise ValueError("--journal replays a run by itself: leave --predictions and --trace out")
        return read_journal(chosen.journal)
    if chosen.trace is not None:
        trace = read_trace(chosen.trace, noise, chosen.seed)
        if chosen.predictions is None:
            return trace
        return dataclasses.replace(read_predictions(chosen.predictions), arrival_s=trace.arrival_s)
    if chosen.predictions is not None:
        return read_predictions(chosen.predictions)
    return synthetic(noise, chosen.seed)


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
    """Machine and arrivals. Raises InputError, and ValueError for arguments that exclude each other or do nothing."""
    if chosen.load is not None and chosen.rate is not None:
        raise ValueError("--load and --rate exclude each other")
    kind: Arrivals = chosen.arrivals or ("poisson" if population.arrival_s is None else "trace")
    _refuse_unused(chosen, kind)
    if kind == "trace" and population.arrival_s is None:
        raise ValueError("--arrivals trace needs a file with arrival times")
    model = PAPER if chosen.service is None else read_service(chosen.service)
    slots = 1 if chosen.batching == "none" else chosen.slots or _DEFAULT_SLOTS
    if kind == "trace" and _has_own_times(chosen, population):
        population = dataclasses.replace(population, ordered=True)  # the time of a row belongs to its lengths
    load, rate = _load_and_rate(chosen, population, model, slots, kind)
    return Experiment(
        population=population,
        process=ArrivalProcess(kind, rate, chosen.cv or 1.0, chosen.time_scale or 1.0),
        setup=Setup(chosen.batching, slots, model, tokens=chosen.max_inflight_tokens),
        requests=chosen.requests or (len(population) if population.ordered else _DEFAULT_REQUESTS),
        # A replay has nothing random in it: repeats would only feign certainty.
        seeds=1 if population.ordered and kind == "trace" else chosen.seeds or _DEFAULT_SEEDS,
        load=load,
        first_seed=chosen.seed,
    )


def notes_of(chosen: argparse.Namespace, experiment: Experiment) -> list[str]:
    """What the caller could take for granted and is not so."""
    notes = []
    setup, kind, seeds = experiment.setup, experiment.process.kind, experiment.seeds
    if kind == "trace" and experiment.process.rate is None:
        notes.append(f"at its own times this run is a load of {_own_load(experiment):.2g} on the machine simulated")
    if chosen.journal is not None or (kind == "trace" and experiment.process.rate is None):
        if chosen.service is None:
            notes.append(
                "service times are the paper's, not those of the machine that the times are from: --service takes "
                "what scripts/bench --calibrate measures there"
            )
        if chosen.slots is None and chosen.batching != "none":
            notes.append(f"{setup.slots} slots are this command's default, no server's max_inflight: --slots N")
    if kind != "trace" and _has_own_times(chosen, experiment.population):
        notes.append(f"arrival_s of {chosen.predictions} is not used: --arrivals {kind}")
    if chosen.seeds is not None and chosen.seeds != seeds:
        notes.append(f"--seeds {chosen.seeds}: a replay has nothing random in it and runs once")
    if chosen.slots is not None and chosen.slots != setup.slots:
        notes.append(f"--slots {chosen.slots}: without batching there is one")
    return notes


def _refuse_unused(chosen: argparse.Namespace, kind: Arrivals) -> None:
    """Raise ValueError for an argument that would change nothing."""
    paced = "--load" if chosen.load is not None else "--rate" if chosen.rate is not None else None
    scaled, made_up = chosen.time_scale is not None, chosen.journal is None and chosen.predictions is None
    both = chosen.trace is not None and chosen.predictions is not None
    for unused, flag, reason in (
        (chosen.cv is not None and kind != "gamma", "--cv", f"it is for gamma arrivals, these are {kind}"),
        (scaled and kind != "trace", "--time-scale", f"it stretches the times of a trace, arrivals are {kind}"),
        (scaled and paced is not None, "--time-scale", f"{paced} stretches the times already; leave one of them out"),
        (paced is not None and kind == "burst", paced, "a burst comes all at once"),
        (chosen.noise is not None and not made_up, "--noise", "the file brings predictions of its own"),
        (both and kind != "trace", "--trace", f"beside --predictions only its times count, and arrivals are {kind}"),
    ):
        if unused:
            raise ValueError(f"{flag} has no effect: {reason}")


def _has_own_times(chosen: argparse.Namespace, population: Population) -> bool:
    """Whether `arrival_s` came with the predictions."""
    return chosen.predictions is not None and chosen.trace is None and population.arrival_s is not None


def _own_load(experiment: Experiment) -> float:
    """The load of a replay at its own times."""
    times, setup = experiment.population.arrival_s, experiment.setup
    if times is None or times[-1] <= 0:
        return float("inf")
    rate = len(times) / (times[-1] * experiment.process.time_scale)
    return float(rate / rate_for_load(experiment.population, setup.model, setup.slots, 1.0))


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
