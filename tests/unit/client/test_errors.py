from __future__ import annotations

import pytest

from ssjf.core import errors as core
from ssjf.service import errors as service
from ssjf_client import Cancelled, ClientError, DeadlineExceeded, InvalidRequest, ServerError, ServerUnavailable
from ssjf_client.errors import error_from_message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (core.InvalidRequest("max_tokens", 0, "1 to 512"), InvalidRequest),
        (core.InvalidRequest("deadline_ms", -4, "1 to 100"), InvalidRequest),
        (core.InvalidRequest("text_input", "two\nlines, cancelled", "UTF-8 text"), InvalidRequest),
        (core.QueueFull(1000, 2.5, "1000 requests"), ServerUnavailable),
        (core.DeadlineExceeded("its deadline passed before an engine slot was free"), DeadlineExceeded),
        (service.NotAccepting("the scheduler is draining and takes no new requests"), ServerUnavailable),
        (service.RequestCancelled("the client has gone"), Cancelled),
        (service.RequestCancelled("stopped before it was queued"), Cancelled),
        (service.ControlRefused("control 'drain' needs the control_token of the …"), InvalidRequest),
        (service.EngineFailed("out of memory"), ServerError),
        (service.InternalError("the scheduler failed while this request ran; its log has the reason"), ServerError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "in ensemble 'ensemble', "])
def test_the_scheduler_s_own_errors_get_their_class_and_keep_their_words(
    error: core.SchedulerError, kind: type[ClientError], prefix: str
) -> None:
    mapped = error_from_message(prefix + str(error))
    assert type(mapped) is kind
    assert str(mapped) == prefix + str(error)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("[request id: 1] unexpected shape for input 'max_tokens'. Expected [-1,1], got [1,2].", InvalidRequest),
        ("inference input 'max_tokens' data-type is 'FP32', but model 'x' expects 'INT32'", InvalidRequest),
        ("expected 2 inputs but got 1 inputs for model 'scheduler'", InvalidRequest),
        ("Request for unknown model: 'schedule' is not found", InvalidRequest),
        ("Exceeds maximum queue size", ServerUnavailable),
        ("Server is stopping, scheduler for model has stopped accepting new inference requests", ServerUnavailable),
        ("GRPC server is shutting down and has stopped accepting new requests.", ServerUnavailable),
        ("Request timeout expired", DeadlineExceeded),
        ("Stub process 'scheduler_0_0' is not healthy.", ServerError),
    ],
)
def test_triton_s_own_errors_get_their_class(message: str, kind: type[ClientError]) -> None:
    assert type(error_from_message(message)) is kind


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (str(core.QueueFull(1000, 2.5, "1000 requests")), 2.5),
        ("unavailable; retry after 300 ms", 0.3),
        ("unavailable; retry in about 12 seconds", 12.0),
        ("unavailable", None),
    ],
)
def test_the_retry_hint_is_read_from_the_message(message: str, seconds: float | None) -> None:
    error = error_from_message(message)
    assert isinstance(error, ServerUnavailable)
    assert error.retry_after_s == seconds
