"""Plain tritonclient calls, as people write them who have never heard of this project."""

from __future__ import annotations

import json
import queue
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient

from ssjf_client import Client, Status

TIMEOUT_S = 60.0
NUMPY_TO_WIRE = {"b": "BOOL", "i": "INT32", "u": "UINT64", "f": "FP32", "O": "BYTES"}


def tensors(text: str | bytes, max_tokens: int, **more: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays with a leading batch dimension, `[[prompt]]`, as NVIDIA's own clients send them."""
    raw = text.encode() if isinstance(text, str) else text
    given = {
        "text_input": np.array([[raw]], dtype=np.object_),
        "max_tokens": np.array([[max_tokens]], dtype=np.int32),
    }
    return given | {name: np.asarray(value) for name, value in more.items()}


def inputs(arrays: Mapping[str, np.ndarray[Any, Any]], module: Any = grpcclient) -> list[Any]:
    """`InferInput`s of tritonclient's gRPC or HTTP module."""
    made = []
    for name, array in arrays.items():
        one = module.InferInput(name, list(array.shape), NUMPY_TO_WIRE[array.dtype.kind])
        one.set_data_from_numpy(array)
        made.append(one)
    return made


@dataclass
class Answer:
    """What one decoupled request brought: pieces in order, the error's text, how many final responses."""

    texts: list[str] = field(default_factory=list)
    error: str | None = None
    finals: int = 0
    outputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def ask(
    url: str,
    model: str,
    arrays: Mapping[str, Any],
    request_id: str = "",
    timeout_us: int | None = None,
    heard: threading.Event | None = None,
    **parameters: Any,
) -> Answer:
    """One request on a stream of its own, to its end; never waits longer than TIMEOUT_S. `heard`: set by a response."""
    events: queue.Queue[tuple[Any, Any]] = queue.Queue()
    answer = Answer()
    connection = grpcclient.InferenceServerClient(url)
    connection.start_stream(lambda result, error: events.put((result, error)))
    try:
        connection.async_stream_infer(
            model,
            inputs(arrays),
            request_id=request_id,
            enable_empty_final_response=True,
            timeout=timeout_us,
            parameters=parameters or None,
        )
        while not answer.finals:
            result, error = events.get(timeout=TIMEOUT_S)
            if error is not None:
                answer.error = str(error)
                return answer
            note(answer, result)
            if heard is not None:
                heard.set()
    finally:
        connection.stop_stream()
        connection.close()
    return answer


def note(answer: Answer, result: Any) -> None:
    """Add one response to an answer."""
    response = result.get_response()
    if response.outputs:
        answer.outputs.append({output.name: result.as_numpy(output.name) for output in response.outputs})
        if "text_output" in answer.outputs[-1]:
            answer.texts.append(answer.outputs[-1]["text_output"].reshape(-1)[0].decode())
    answer.finals += bool(response.parameters["triton_final_response"].bool_param)


def post(url: str, body: Mapping[str, Any]) -> Any:
    """POST JSON to a generate endpoint; the parsed answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.loads(response.read())


def wait_for(client: Client, token: str, condition: Callable[[Status], bool], timeout_s: float = 20.0) -> Status:
    """Poll the scheduler's status until `condition` holds. Raises TimeoutError with the last status."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = client.status(token)
        if condition(status):
            return status
        if time.monotonic() > deadline:
            raise TimeoutError(f"the scheduler's status did not become as expected: {status}")
        time.sleep(0.01)
