"""An engine server that is nothing but its wire: the gRPC service of a Triton with `tensorrt_llm`, ready-made answers.

What a token costs here is one write to a socket, so what a benchmark sees beside it is the scheduler's own cost. A real
tritonserver with a Python backend that computes nothing takes 290 µs of the machine for every token (docs/results.md).
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2

from ssjf.service.engine.wire import FINAL_PARAMETER

_SERVICE = "inference.GRPCInferenceService"
_TOKEN = 65  # any ordinary token
_START_S = 20.0


@contextmanager
def lean_engine(step_s: float) -> Iterator[str]:
    """Its URL, as long as the block lasts. `step_s`: seconds between two tokens of a stream; 0: no pause."""
    command = [sys.executable, "-m", __spec__.name, "--step-s", str(step_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(_START_S)


class _Engine:
    """One task a stream; every token is the same bytes."""

    def __init__(self, step_s: float):
        self._step_s = step_s
        self._more, self._last = _response(final=False), _response(final=True)

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        loop = asyncio.get_running_loop()
        async for request in requests:
            left, due = _output_tokens(request), loop.time()
            while left > 0:
                due += self._step_s
                if self._step_s:
                    await asyncio.sleep(due - loop.time())
                left -= 1
                await context.write(self._more if left else self._last)

    async def ready(self, _request: Any, _context: Any) -> bytes:
        return bytes(service_pb2.ModelReadyResponse(ready=True).SerializeToString())


def _response(final: bool) -> bytes:
    """A ModelStreamInferResponse with one token, as Triton would write it."""
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name, response.model_version = "tensorrt_llm", "1"
    response.parameters[FINAL_PARAMETER].bool_param = final
    for name, value in (("output_ids", [[[_TOKEN]]]), ("sequence_length", [[1]])):
        array = np.array(value, np.int32)
        response.outputs.add(name=name, datatype="INT32", shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


def _output_tokens(request: Any) -> int:
    at = [tensor.name for tensor in request.inputs].index("request_output_len")
    return int(np.frombuffer(request.raw_input_contents[at], np.int32)[0])


async def _serve(step_s: float) -> None:
    engine, server = _Engine(step_s), grpc.aio.server()
    read = service_pb2.ModelInferRequest.FromString
    handlers: dict[str, Any] = {
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(engine.stream, request_deserializer=read),
        "ModelReady": grpc.unary_unary_rpc_method_handler(engine.ready),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


def main(argv: Sequence[str]) -> None:
    """The process of `lean_engine`: prints its URL and serves until it is terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-s", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args(argv).step_s))


if __name__ == "__main__":
    main(sys.argv[1:])
