from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from ssjf.service.messages import Call
from unary.relay import UnaryRelay, answered_rows, set_parameter


def call(rows: int = 3, timeout_us: int = 0, stop: bool = False, **parameters: Any) -> Call:
    tensors = {"text_input": np.array([[b"hi"]] * rows, dtype=np.object_), "stop": np.full((rows, 1), stop)}
    return Call("id", tensors, parameters, timeout_us, 0.0)


@pytest.mark.parametrize(
    ("request_", "rows"),
    [(call(), 3), (call(stop=True), 1), (call(control="status"), 1)],
    ids=["text", "stop", "control"],
)
def test_control_and_stop_are_answered_once(request_: Call, rows: int) -> None:
    assert answered_rows(request_) == rows


@pytest.mark.parametrize(
    ("value", "kind", "there"),
    [
        (True, "bool_param", True),
        (2**63 - 1, "int64_param", 2**63 - 1),
        (-(2**63), "int64_param", -(2**63)),
        (2**64 - 1, "string_param", "18446744073709551615"),
        (0.5, "double_param", 0.5),
        ("x", "string_param", "x"),
    ],
)
def test_parameters_keep_their_value(value: Any, kind: str, there: Any) -> None:
    parameter = service_pb2.InferParameter()
    set_parameter(parameter, value)
    assert parameter.WhichOneof("parameter_choice") == kind
    assert getattr(parameter, kind) == there


@pytest.mark.parametrize(("timeout_us", "there"), [(0, None), (5_000, 5_000), (2**64 - 1, None)])
def test_a_timeout_beyond_all_ages_is_none(timeout_us: int, there: int | None) -> None:
    message = UnaryRelay("127.0.0.1:1").forwarded(call(timeout_us=timeout_us))
    assert (message.parameters["timeout"].int64_param if "timeout" in message.parameters else None) == there
