"""Keeps one server running: starts it, waits until it answers, watches it, brings it back, drains and stops it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ssjf_client import ClientError
from ssjf_tools.serve.health import ControlError, Patience, Probe
from ssjf_tools.serve.log import ServerLog
from ssjf_tools.serve.probing import Prober
from ssjf_tools.serve.server import Server
from ssjf_tools.serve.starting import Start, StartError
from ssjf_tools.serve.stopping import StopSignals
from ssjf_tools.serve.watch import Restarts, Watch

LOOK_EVERY_S = 0.5
RELOAD_TIMEOUT_S = 10.0
# Models whose process may be replaced while the others run: nobody's answer is lost with them. A request at `unary` is
# answered later than its process returns, so it would wait for ever; the scheduler and the engine hold every request.
RELOADABLE = frozenset({"preprocessing", "length_predictor"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What the supervisor needs to know of a server; `start` starts a new run of it, `connect` makes its probe."""

    start: Callable[[], Server]
    connect: Callable[[Server], Probe]
    log: ServerLog
    patience: Patience
    start_timeout_s: float
    grace_s: float
    reloadable: frozenset[str] = frozenset()
    verbose: bool = False


class Supervisor:
    """Runs in the main thread of `scripts/serve`; one more thread asks for health, so that a hang delays nothing."""

    def __init__(self, plan: Plan, signals: StopSignals, say: Callable[[str], None]):
        self._plan = plan
        self._signals = signals
        self._say = say
        self._restarts, self._reloads = Restarts(), Restarts()
        self._server: Server | None = None
        self._probe: Probe | None = None

    def run(self, on_ready: Callable[[Server], None]) -> int:
        """Serves until a stop signal (exit code 0) or until the server cannot be kept running (1).

        `on_ready` is called after the first start and after every restart.
        """
        try:
            reason = self._start_once(on_ready)
            while not reason and not self._signals.count:
                reason = self._watch() or self._bring_back(on_ready)
            if self._signals.count:
                self._stop()
                return 0
            self._say(reason)
            return 1
        finally:
            self._discard()

    def _start_once(self, on_ready: Callable[[Server], None]) -> str:
        """Starts the server and waits until it answers; returns why that failed, or nothing."""
        self._server = self._plan.start()
        self._probe = self._plan.connect(self._server)
        start = Start(self._server, self._probe, self._plan.start_timeout_s, self._say)
        try:
            while not self._signals.wait(0.2) and not start.step(self._show_log()):
                pass
        except StartError as error:
            lines = "".join(f"\n  | {line}" for line in self._plan.log.explanation())
            return f"{error}; the log ({self._plan.log.path}) says:{lines}"
        if not self._signals.count:
            self._say(f"first answer after {start.seconds:.1f} s")
            on_ready(self._server)
        return ""

    def _watch(self) -> str:
        """Looks at the server until it must be restarted or stopped; always returns nothing, the reason is said."""
        assert self._server is not None
        assert self._probe is not None
        watch = Watch(self._server.stubs(), self._plan.patience.failures, self._probe.check().silent)
        prober = Prober(self._probe, self._plan.patience.every_s, time.monotonic())
        while not self._signals.wait(LOOK_EVERY_S):
            self._show_log()
            stubs = self._server.stubs()
            reason = watch.judge_processes(self._server.exit_code(), stubs)
            if reason and self._reload(reason, watch.dead_models(stubs), self._probe):
                continue
            health = prober.poll(time.monotonic())
            if health is not None:
                reason = reason or watch.judge_health(health)
            if reason:
                self._say(reason)
                self._discard()
                break
        prober.close()
        return ""

    def _reload(self, reason: str, dead: list[str], probe: Probe) -> bool:
        """Loads models whose process died again, where the server need not be restarted for it; whether that worked."""
        assert self._server is not None
        if self._server.exit_code() is not None or not self._plan.reloadable.issuperset(dead):
            return False
        if self._reloads.next_delay(time.monotonic()) is None:
            return False
        begun = time.monotonic()
        self._say(f"{reason}: loading again")
        try:
            for model in dead:
                probe.reload(model, RELOAD_TIMEOUT_S)
            probe.infer("ensemble", RELOAD_TIMEOUT_S)
        except (ClientError, ControlError) as error:
            self._say(str(error))
            return False
        self._say(f"ready again after {time.monotonic() - begun:.1f} s; running requests went on")
        return True

    def _bring_back(self, on_ready: Callable[[Server], None]) -> str:
        """Restarts after a failure, again and again with growing pauses; returns why it gave up, or nothing."""
        reason = ""
        while not self._signals.count:
            delay = self._restarts.next_delay(time.monotonic())
            if delay is None:
                return f"giving up: the server does not stay up. {reason}".rstrip()
            self._say(f"restarting{f' in {delay:g} s' if delay else ''}")
            if self._signals.wait(delay):
                break
            reason = self._start_once(on_ready)
            if not reason:
                break
            self._say(reason)
            self._discard()
        return ""

    def _stop(self) -> None:
        """Drains the scheduler, then ends the server; a second signal skips what is left of the waiting."""
        server, probe = self._server, self._probe
        if server is None or probe is None or server.exit_code() is not None:
            return
        self._say(f"stopping: no new requests; running ones get {self._plan.grace_s:g} s (again: stop at once)")
        drained = probe.drain(self._plan.grace_s, self._say, hurry=lambda: self._signals.count > 1)
        if self._signals.count > 1:
            self._say("stopping at once")
            server.kill()
        else:
            self._say("all requests have finished" if drained else "ending the requests that are left")
            server.stop()
        self._show_log()
        self._say("stopped")

    def _discard(self) -> None:
        """Ends what is left of the present run at once."""
        if self._probe is not None:
            self._probe.close()
        if self._server is not None:
            self._server.kill()
        self._probe = self._server = None

    def _show_log(self) -> list[str]:
        lines = self._plan.log.new_lines()
        if self._plan.verbose:
            for line in lines:
                print(line, flush=True)
        return lines
