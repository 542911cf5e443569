"""scripts/bench."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ssjf_client import ClientError
from ssjf_tools.bench.live import against, one_speed, pooled
from ssjf_tools.bench.live.calibrate import calibrate, write_service
from ssjf_tools.bench.live.engine import chosen_chunk, engine_parameters
from ssjf_tools.bench.live.experiment import Outcome, Settings, measure
from ssjf_tools.bench.live.options import parser, refuse_unused, settings_of
from ssjf_tools.bench.live.page import write_page
from ssjf_tools.bench.live.prompts import Prompt, load_prompts
from ssjf_tools.bench.live.record import as_record, can_rewrite, read_record, write_record
from ssjf_tools.bench.live.report import show
from ssjf_tools.bench.live.target import Target, running_target
from ssjf_tools.bench.streams import StreamClient
from ssjf_tools.proxy.progress import ProgressLine
from ssjf_tools.serve.throwaway import ServerDidNotStart
from ssjf_tools.simulate.service import read_service
from ssjf_tools.simulate.sources import read_trace

_ROUNDS = 5


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 2 for input that cannot be used, 1 for a server that fails."""
    chosen = parser().parse_args(arguments)
    try:
        refuse_unused(chosen)
        if chosen.against_simulator is not None:
            return _compare_with_simulator(chosen)
        if chosen.pool is not None:
            return _pool(chosen)
        settings, prompts = settings_of(chosen), load_prompts(chosen.prompts)
        if settings.trace is not None:
            read_trace(settings.trace, 0.0, 0)  # refused before a server is started
        with running_target(chosen.url, chosen.token, chosen.max_inflight) as target:
            return _calibrate(target, chosen) if chosen.calibrate else _measure(target, prompts, settings, chosen)
    except ValueError as error:  # InputError is one
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    except (ClientError, RuntimeError, ServerDidNotStart) as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _measure(target: Target, prompts: list[Prompt], settings: Settings, chosen: argparse.Namespace) -> int:
    kept = 0

    def keep(outcome: Outcome) -> None:
        nonlocal kept
        record, last = as_record(outcome), outcome.settings.repeats == settings.repeats
        if chosen.json is not None and (last or can_rewrite(chosen.json)):
            write_record(chosen.json, record)
        if chosen.html is not None and (last or can_rewrite(chosen.html)):
            write_page(chosen.html, record, outcome)
        kept = outcome.settings.repeats

    try:
        outcome = _with_progress(target, prompts, settings, keep)
    except BaseException:
        _say_what_is_kept(kept, settings, chosen)
        raise
    show(as_record(outcome))
    if chosen.html is not None:
        print(f"page: {chosen.html}")
    return 0


def _say_what_is_kept(repeats: int, settings: Settings, chosen: argparse.Namespace) -> None:
    files = [str(path) for path in (chosen.json, chosen.html) if path is not None]
    if repeats and files:
        print(f"{repeats} of {settings.repeats} repeats were complete: {' and '.join(files)}", file=sys.stderr)


def _with_progress(
    target: Target, prompts: list[Prompt], settings: Settings, keep: Callable[[Outcome], None]
) -> Outcome:
    if not sys.stderr.isatty():
        line = ProgressLine("measured", "requests")
        return asyncio.run(measure(target, prompts, settings, lambda _what, done, total: line(done, total), keep))
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        return asyncio.run(measure(target, prompts, settings, progress, keep))


def _calibrate(target: Target, chosen: argparse.Namespace) -> int:
    parameters = asyncio.run(_engine_of(target))
    chunk, source = chosen_chunk(chosen.chunk_tokens, parameters, os.environ, target.own)
    console = Console(stderr=True)
    with console.status("calibrating") as status:
        model = asyncio.run(
            calibrate(target, _ROUNDS, lambda what: status.update(f"calibrating: {what}"), chunk_tokens=chunk)
        )
    print(f"chunk_tokens: {'none' if chunk is None else chunk} ({source})")
    print(f"a request: {model.base_s * 1e3:.1f} ms, and {model.prefill_s * 1e3:.2f} ms for each prompt token")
    for size, seconds in model.steps:
        print(f"a decode step with {size} running: {seconds * 1e3:.1f} ms, {size / seconds:.0f} tokens/s")
    if chosen.json is not None:
        write_service(chosen.json, model)
    return 0


def _pool(chosen: argparse.Namespace) -> int:
    found = pooled.pool(chosen.pool)
    pooled.show(found)
    if chosen.json is not None:
        write_record(chosen.json, found)
    return 0


async def _engine_of(target: Target) -> dict[str, str]:
    client = StreamClient(target.url)
    try:
        return await engine_parameters(client, target.url, "--calibrate")
    finally:
        await client.close()


def _compare_with_simulator(chosen: argparse.Namespace) -> int:
    """0 also where they disagree: the table is the result."""
    if chosen.service is None:
        raise ValueError("--against-simulator needs --service: make it with scripts/bench --calibrate --json FILE")
    record, model = read_record(chosen.against_simulator), read_service(chosen.service)
    found = against.agreements(record, model, chosen.own_speed)
    against.show(found, chosen.own_speed)
    gains = {one.policy: one for one in one_speed.gains(record, model)} if chosen.own_speed else {}
    one_speed.show(list(gains.values()))
    if chosen.json is not None:
        rows = [asdict(one) | (asdict(gains[one.policy]) if one.policy in gains else {}) for one in found]
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
