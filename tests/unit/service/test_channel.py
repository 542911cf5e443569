from __future__ import annotations

import threading
import time

from ssjf.core.errors import InvalidRequest, SchedulerError
from ssjf.service.channel import Channel, Outbox
from ssjf.service.messages import TextChunk


def chunk(text: str, row: int = 0, tokens: int = 1, log_probs: tuple[float, ...] = ()) -> TextChunk:
    return TextChunk(row, 0, (text,), 3, tokens, 9, 100, log_probs=(log_probs,) if log_probs else ())


class FakeResponder:
    """Records what reaches the client; `gate` holds sends back, as a slow server process would."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bool]] = []
        self.ends: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked_after_end = False
        self.broken = False

    def send(self, chunk: TextChunk, final: bool) -> None:
        self.gate.wait(10)
        if self.broken:
            raise RuntimeError("the request is gone")
        self.sent.append((chunk.texts[0], final))
        if final:
            self.ends.append("final")

    def finish(self) -> None:
        self.ends.append("empty final")

    def fail(self, error: SchedulerError) -> None:
        self.ends.append(f"error: {error}")

    def is_cancelled(self) -> bool:
        self.asked_after_end = self.asked_after_end or bool(self.ends)
        return False


def drained(outbox: Outbox) -> None:
    outbox.stop(10)


def test_pieces_arrive_in_order_and_the_last_one_is_final() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    channel = Channel(responder, outbox)
    outbox.start()
    for piece in "abc":
        channel.push(chunk(piece))
    channel.finish()
    drained(outbox)
    assert "".join(text for text, _ in responder.sent) == "abc"
    assert [final for _, final in responder.sent].count(True) + responder.ends.count("empty final") == 1
    assert len(responder.ends) == 1


def test_pieces_that_wait_are_merged_into_one_response() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    channel = Channel(responder, outbox)
    for count, piece in enumerate("abcdef", start=1):
        channel.push(chunk(piece, log_probs=(-float(count),)))
    channel.finish()
    outbox.start()
    drained(outbox)
    assert responder.sent == [("abcdef", True)]
    assert outbox.counts.merged == 5


def test_rows_are_not_merged_with_each_other() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    channel = Channel(responder, outbox)
    for row in (0, 1, 0, 1):
        channel.push(chunk("xy"[row], row=row))
    channel.finish()
    outbox.start()
    drained(outbox)
    assert responder.sent == [("xx", False), ("yy", True)]


def test_merging_keeps_log_probabilities_and_adds_counts() -> None:
    joined = chunk("a", tokens=1, log_probs=(-1.0,)).joined(chunk("b", tokens=2, log_probs=(-2.0, -3.0)))
    assert joined.texts == ("ab",)
    assert joined.log_probs == ((-1.0, -2.0, -3.0),)
    assert joined.output_tokens == 3


def test_an_error_is_the_only_end_and_drops_what_waits() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    channel = Channel(responder, outbox)
    channel.push(chunk("lost"))
    channel.fail(InvalidRequest("top_p", 2, "0 to 1"))
    channel.finish()
    channel.push(chunk("late"))
    outbox.start()
    drained(outbox)
    assert responder.sent == []
    assert responder.ends == ["error: top_p is 2, allowed: 0 to 1"]


def test_an_answer_without_pieces_ends_with_an_empty_final() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    channel = Channel(responder, outbox)
    channel.finish()
    outbox.start()
    drained(outbox)
    assert responder.ends == ["empty final"]


def test_a_finished_request_is_never_asked_whether_it_is_cancelled() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    channel = Channel(responder, outbox)
    channel.finish()
    outbox.start()
    drained(outbox)
    assert channel.is_cancelled() is False
    assert not responder.asked_after_end


def test_asking_does_not_wait_for_a_send_that_hangs() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    responder.gate.clear()
    channel = Channel(responder, outbox)
    outbox.start()
    channel.push(chunk("slow"))
    while channel._queued:
        pass  # until the sender thread holds the channel
    assert channel.is_cancelled() is False
    responder.gate.set()
    channel.finish()
    drained(outbox)
    assert "".join(text for text, _ in responder.sent) == "slow"


def test_the_worst_wait_for_a_sender_is_told_once() -> None:
    outbox, responder = Outbox(lambda _channel: None), FakeResponder()
    channel = Channel(responder, outbox)
    channel.push(chunk("x"))
    time.sleep(0.02)
    outbox.start()
    channel.finish()
    drained(outbox)
    assert outbox.take_worst_lag_s() >= 0.02
    assert outbox.take_worst_lag_s() == 0


def test_a_broken_responder_is_reported_and_does_not_stop_the_sender() -> None:
    broken_channels: list[Channel] = []
    outbox = Outbox(broken_channels.append)
    bad, good = FakeResponder(), FakeResponder()
    bad.broken = True
    first, second = Channel(bad, outbox), Channel(good, outbox)
    first.push(chunk("x"))
    second.push(chunk("y"))
    second.finish()
    outbox.start()
    drained(outbox)
    assert broken_channels == [first]
    assert good.sent == [("y", True)]
