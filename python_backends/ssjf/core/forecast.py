"""How long jobs take and when the queue will have moved on, judged by what the engine did lately."""

from __future__ import annotations

from ssjf.core.admission import Running

# Weight of the newest answer in the running means, and the answers before which it is that of a plain mean.
_GAIN = 0.05
_FIRST = round(1 / _GAIN)
# Answers before the pace is believed.
_ENOUGH = 8
# What to tell a refused client while no answer has been finished yet.
_UNKNOWN_RETRY_S = 1.0
# A wait is believed by this share: some who wait will leave, and lengths are guessed.
_CAUTION = 0.5


class Forecast:
    """Running means over the jobs that have left the engine; times in seconds, lengths in tokens of one sequence.

    `service_s`: mean time in a slot, None before the first answer. The pace, seconds a token, is that of the answers
    weighted by their lengths, prefill included, so that an engine that slows down under load shows in it.
    """

    def __init__(self) -> None:
        self.service_s: float | None = None
        self._seconds = self._tokens = 0.0
        self._seen = 0

    def learn_service(self, seconds: float) -> None:
        """An answer came to its end after `seconds` in its slot."""
        known = self.service_s
        self.service_s = seconds if known is None else known + _GAIN * (seconds - known)

    def learn_pace(self, running: Running) -> None:
        """A job has left the engine, however it ended: until its last news it had made these tokens.

        What came after, silence of an engine that hangs for example, says nothing about its pace.
        """
        tokens = running.output_tokens / running.job.sequences
        if tokens <= 0:
            return
        self._seen = seen = self._seen + 1
        gain = _GAIN if seen > _FIRST else 1.0 / seen
        self._seconds += gain * (running.heard - running.started - self._seconds)
        self._tokens += gain * (tokens - self._tokens)

    def pace_s(self) -> float:
        """Seconds a token; 0 while too little is known."""
        return self._seconds / self._tokens if self._seen >= _ENOUGH else 0.0

    def wait_s(self, tokens: float, slots: int) -> float:
        """Time until `slots` have made `tokens`, rather too short than too long."""
        return _CAUTION * tokens * self.pace_s() / slots

    def retry_after_s(self, waiting: int, slots: int) -> float:
        """Time until a tenth of the queue has left it: by Little's law, slots / mean time in a slot a second."""
        if self.service_s is None:
            return _UNKNOWN_RETRY_S
        return max(1.0, 0.1 * waiting) * self.service_s / slots
