"""`scripts/label`: measure how long a running server's answers are."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ssjf_client import AsyncClient, ClientError, DeadlineExceeded, Generation, ServerUnavailable

from .data import DataError, load_prompts
from .progress import ProgressLine

Answer = Callable[[str, int], Awaitable[Generation]]  # text, seed
_TERMS = ("model", "max_tokens", "temperature")
_TRIES = 5
_PAUSE_S = 2.0  # before the second try; doubled each time


@dataclass(frozen=True, slots=True)
class Task:
    """One answer to be measured."""

    id: str
    sample: int
    text: str

    @property
    def seed(self) -> int:
        """The same in every run, another for every sample."""
        return zlib.crc32(f"{self.id}/{self.sample}".encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; 0, or 1 with one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    try:
        tasks = open_tasks(load_prompts(options.prompts), options.samples, options.out, _asked(options))
        failed = asyncio.run(_run(options, tasks))
    except (DataError, ClientError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if failed:
        print(f"{failed} answers failed; run the same command again to try them once more", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/label",
        description="Sends prompts to a running server and writes the true length of each answer, one JSON object a "
        "line: what scripts/train-proxy reads. Run it again to go on where it was stopped.",
    )
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, metavar="FILE", help="JSONL: id, prompt")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL, appended to")
    parser.add_argument("--samples", type=int, default=1, help="answers per prompt (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="cap of an answer (default: %(default)s)")
    parser.add_argument("--temperature", type=float, help="default: the server's")
    parser.add_argument("--model", metavar="NAME", help="of the served LLM, for the record: lengths of two never mix")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: %(default)s)")
    parser.add_argument("--url", default="127.0.0.1:8001", help="gRPC endpoint (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds per answer (default: %(default)s)")
    return parser


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """What lengths depend on beside the prompt, as far as it is known here; goes into every line."""
    asked = {"model": options.model, "max_tokens": options.max_tokens, "temperature": options.temperature}
    return {name: value for name, value in asked.items() if value is not None}


def open_tasks(prompts: Mapping[str, str], samples: int, out: Path, asked: Mapping[str, Any]) -> list[Task]:
    """What `out` does not hold yet, first samples first. A line that a killed run left half written is cut off.

    Raises DataError for a line that is not ours, or that was `asked` for otherwise than now.
    """
    done = _done(out, asked) if out.exists() else set()
    tasks = [Task(key, sample, text) for sample in range(samples) for key, text in prompts.items()]
    return [task for task in tasks if (task.id, task.sample) not in done]


def _done(out: Path, asked: Mapping[str, Any]) -> set[tuple[str, int]]:
    content = out.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with out.open("r+b") as file:
            file.truncate(len(whole))
    done = set()
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = json.loads(line)
            done.add((record["id"], record.get("sample", 0)))
            before = {name: record.get(name) for name in _TERMS}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{out}:{number}: not a line of labels: {error}") from error
        for name in _TERMS:
            if before[name] != asked.get(name):
                raise DataError(
                    f"{out}:{number}: {name} is {before[name]!r}, now it is {asked.get(name)!r}: another --out"
                )
    return done


async def _run(options: argparse.Namespace, tasks: Sequence[Task]) -> int:
    sampling: dict[str, Any] = {"max_tokens": options.max_tokens, "timeout_s": options.timeout}
    if options.temperature is not None:
        sampling["temperature"] = options.temperature
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as file:
        async with AsyncClient(options.url) as client:
            return await measure(
                tasks,
                lambda text, seed: client.generate(text, seed=seed, **sampling),
                Labels(file, _asked(options)),
                options.concurrency,
                ProgressLine("labelled", "answers"),
            )


@dataclass(frozen=True, slots=True)
class Labels:
    """Where lines go, and what stands in every one of them."""

    file: TextIO
    asked: Mapping[str, Any]

    def write(self, record: Mapping[str, Any]) -> None:
        self.file.write(json.dumps({**record, **self.asked}) + "\n")
        self.file.flush()


async def measure(
    tasks: Sequence[Task],
    answer: Answer,
    out: Labels,
    concurrency: int,
    progress: Callable[[int, int], None],
    pause_s: float = _PAUSE_S,
) -> int:
    """Write a line for every task that `answer` answers; returns how many it did not."""
    waiting = iter(tasks)
    ended = failed = 0

    async def work() -> None:
        nonlocal ended, failed
        for task in waiting:
            try:
                record = await _measure_one(task, answer, pause_s)
            except ClientError as error:
                failed += 1
                print(f"\n{task.id}: {error}", file=sys.stderr)
            else:
                out.write(record)
            ended += 1
            progress(ended, len(tasks))

    await asyncio.gather(*(work() for _ in range(min(concurrency, len(tasks)))))
    return failed


async def _measure_one(task: Task, answer: Answer, pause_s: float) -> dict[str, Any]:
    """One label; a server that is busy or restarting is asked again a few times."""
    for attempt in range(1, _TRIES + 1):
        try:
            result = await answer(task.text, task.seed)
            break
        except (ServerUnavailable, DeadlineExceeded):
            if attempt == _TRIES:
                raise
            await asyncio.sleep(pause_s * 2 ** (attempt - 1))
    if result.finish_reason is None or result.output_tokens is None:
        raise ClientError("the server did not say how many tokens it generated")
    return {
        "id": task.id,
        "sample": task.sample,
        "prompt_tokens": result.input_tokens,
        "output_tokens": result.output_tokens,
        "finish": result.finish_reason,
    }


if __name__ == "__main__":
    sys.exit(main())
