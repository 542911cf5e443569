"""A live view of the scheduler's state in the terminal; with `rich` where it is installed, else plain ANSI."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import ServerUnavailable
from .status import Status

__all__ = ["render", "run_top"]

_BAR_WIDTH = 40
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _bar(used: int | None, size: int | None) -> str:
    """A bar of `used` out of `size` slots; empty when the server does not say."""
    if used is None or not size:
        return ""
    filled = min(_BAR_WIDTH, round(_BAR_WIDTH * used / size))
    return "█" * filled + "░" * (_BAR_WIDTH - filled)


def _rate(now: Status, before: Status | None, seconds: float, outcome: str) -> str:
    if before is None or seconds <= 0:
        return ""
    return f"{max(0, now.ended[outcome] - before.ended.get(outcome, 0)) / seconds:.1f}/s"


def render(now: Status, before: Status | None, seconds: float) -> list[str]:
    """The view's lines. `before`: the state `seconds` ago, for rates."""
    effective = "" if now.effective_policy in (None, now.policy) else f" (now ordering by {now.effective_policy})"
    draining = "   DRAINING" if now.ready is False else ""
    slots = now.limits.get("max_inflight")
    lines = [
        f"policy {now.policy or '-'}{effective}   batching {now.limits.get('batching', '-')}{draining}",
        "",
        f"in flight {_number(now.in_flight):>7} / {_number(slots):<7} {_bar(now.in_flight, slots)}",
        f"waiting   {_number(now.queue_length):>7}   oldest {_number(now.oldest_wait_s)} s",
    ]
    waiting = {number: length for number, length in sorted(now.queue_lengths.items()) if length}
    if len(waiting) > 1:
        lines += [f"  class {number:<3} {length:>6,}" for number, length in waiting.items()]
    lines += [
        f"backlog   {_number(sum(now.backlog_tokens.values())):>7} tokens predicted",
        f"tau {_shown(now.tau)}   bias {_shown(now.bias)}",
    ]
    if now.ended:
        lines += ["", *(f"{name:<14} {n:>9,}  {_rate(now, before, seconds, name)}" for name, n in now.ended.items())]
    scalars = {name: value for name, value in now.extra.items() if isinstance(value, (str, int, float))}
    if scalars:
        width = max(map(len, scalars))
        lines += ["", *(f"{name:<{width}}  {_shown(value)}" for name, value in scalars.items())]
    return lines


def _shown(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _rich_screen() -> Iterator[Callable[[list[str]], None]]:
    from rich.live import Live  # noqa: PLC0415 - optional dependency
    from rich.text import Text  # noqa: PLC0415

    with Live(Text(""), screen=True, auto_refresh=False) as live:
        yield lambda lines: live.update(Text("\n".join(lines)), refresh=True)


@contextmanager
def _ansi_screen() -> Iterator[Callable[[list[str]], None]]:
    # Into a file or a pipe the frames follow each other, without control codes.
    terminal = sys.stdout.isatty()

    def show(lines: list[str]) -> None:
        sys.stdout.write((_HOME_AND_CLEAR if terminal else "") + "\n".join(lines) + "\n")
        sys.stdout.flush()

    if terminal:
        sys.stdout.write(_HIDE_CURSOR)
    try:
        yield show
    finally:
        if terminal:
            sys.stdout.write(_SHOW_CURSOR)


def _has_rich() -> bool:
    try:
        import rich.live  # noqa: F401, PLC0415 - optional dependency
    except ImportError:
        return False
    return True


def run_top(
    read: Callable[[], Status],
    *,
    interval_s: float,
    count: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Shows `read()` every `interval_s` seconds, `count` times or until interrupted.

    A server that is away for a while is shown as such and asked again; one that never answered is an error.
    """
    screen = _rich_screen if sys.stdout.isatty() and _has_rich() else _ansi_screen
    before: Status | None = None
    before_at = shown = 0.0
    with screen() as show:
        while count is None or shown < count:
            if shown:
                sleep(interval_s)
            try:
                now, now_at = read(), clock()
            except ServerUnavailable as error:
                if before is None:
                    raise
                show([f"the server does not answer: {error}"])
            else:
                show(render(now, before, now_at - before_at))
                before, before_at = now, now_at
            shown += 1
