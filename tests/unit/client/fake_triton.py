"""A KServe gRPC server in this process, on a real loopback socket, with a script instead of a model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferResult, service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

Script = Callable[["Received"], Iterator[Any]]
"""What the server does with a request: yields `ModelStreamInferResponse`s, waits, aborts."""

_KSERVE_TYPES = {"int32": "INT32", "int64": "INT64"}


def replay(*responses: Any) -> Script:
    """Answers every request with these responses."""
    return lambda _request: iter(responses)


@dataclass
class Received:
    """One request as it arrived, and what became of it."""

    message: Any
    context: Any
    metadata: dict[str, str]
    cancelled: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)

    def tensor(self, name: str) -> Any:
        """The input `name` as numpy array, or None; read by tritonclient's own parser."""
        response = service_pb2.ModelInferResponse(
            outputs=[
                service_pb2.ModelInferResponse.InferOutputTensor(name=i.name, datatype=i.datatype, shape=i.shape)
                for i in self.message.inputs
            ],
            raw_output_contents=self.message.raw_input_contents,
        )
        return InferResult(response).as_numpy(name)

    @property
    def text(self) -> str:
        return str(self.tensor("text_input")[0, 0].decode())

    def parameter(self, name: str) -> Any:
        """The value of a request parameter, or None."""
        if name not in self.message.parameters:
            return None
        value = self.message.parameters[name]
        return getattr(value, value.WhichOneof("parameter_choice"))


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """`received` grows with every request; `script` answers those that are not `stop` requests."""

    def __init__(self, credentials: Any = None) -> None:
        self.received: list[Received] = []
        self.script: Script = tell("Hello", " world", "!")
        self.ready = True
        self._arrived = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=80))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.port = port
        self.url = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        """Drops every connection at once."""
        self._server.stop(None).wait()

    def wait_for(self, count: int) -> Received:
        """The `count`-th request, once it has come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.received) >= count, timeout=10), "the request never came"
        return self.received[count - 1]

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name
        return service_pb2.ModelReadyResponse(ready=self.ready and request.name in ("scheduler", "ensemble", "unary"))

    def ModelStreamInfer(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - the service's name
        message = next(request_iterator)
        request = Received(message, context, dict(context.invocation_metadata()))
        context.add_callback(lambda: None if request.answered.is_set() else request.cancelled.set())
        with self._arrived:
            self.received.append(request)
            self._arrived.notify_all()
        script = self.script if request.tensor("stop") is None else tell()
        yield from script(request)
        request.answered.set()


def response(values: dict[str, int] | None = None, *, final: bool = False, text: str | None = None) -> Any:
    """One response; without `text` it carries flags only. `values`: the INT32 (`*_us`: INT64) outputs beside it."""
    answer = service_pb2.ModelInferResponse(model_name="scheduler", model_version="1")
    answer.parameters["triton_final_response"].bool_param = final
    if text is not None:
        raw = serialize_byte_tensor(np.array([[text.encode()]], dtype=np.object_)).item()
        answer.outputs.add(name="text_output", datatype="BYTES", shape=[1, 1])
        answer.raw_output_contents.append(raw)
    for name, number in (values or {}).items():
        value = np.array([[number]], dtype=np.int64 if name.endswith("_us") else np.int32)
        answer.outputs.add(name=name, datatype=_KSERVE_TYPES[value.dtype.name], shape=[1, 1])
        answer.raw_output_contents.append(value.tobytes())
    return service_pb2.ModelStreamInferResponse(infer_response=answer)


def failed(message: str) -> Any:
    """A response that reports an error, as Triton's streams do."""
    return service_pb2.ModelStreamInferResponse(error_message=message)


def numbers(tokens: int = 1) -> dict[str, int]:
    """The outputs beside the text, as the scheduler sends them; `tokens` are those of this response."""
    return {"num_output_tokens": tokens, "num_input_tokens": 7, "predicted_tokens": 42, "queue_time_us": 1_500_000}


def tell(*texts: str) -> Script:
    """Answers with these texts, a token each, and an empty final response."""

    def script(request: Received) -> Iterator[Any]:
        for text in texts:
            yield response(numbers(), text=text)
        yield response(final=True)

    return script


def tell_then_hang(*texts: str) -> Script:
    """Answers with these texts and then says nothing until the client has gone."""

    def script(request: Received) -> Iterator[Any]:
        for text in texts:
            yield response(numbers(), text=text)
        assert request.cancelled.wait(timeout=20), "the client never left"

    return script


def fail(message: str, *texts: str) -> Script:
    """Answers with these texts and then an error."""

    def script(request: Received) -> Iterator[Any]:
        for text in texts:
            yield response(numbers(), text=text)
        yield failed(message)

    return script


def abort(code: Any, message: str) -> Script:
    """Ends the call with a gRPC status."""

    def script(request: Received) -> Iterator[Any]:
        request.context.abort(code, message)
        yield from ()

    return script


def tell_json(value: Any) -> Script:
    """Answers a control request."""
    return tell(json.dumps(value))
