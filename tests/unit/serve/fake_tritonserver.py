"""A stand-in for tritonserver: gRPC, stubs and shared memory, without models. Run as a program by test_supervisor.py.

Its mode is the text of the file --control, read again and again: `ok`; `exit`: ends while starting; `starting`:
inference is refused; `mute`: two doors do not answer; `busy`: the engine does not, and requests get finished; `hung`:
it does not, and none gets finished; `stuck`: requests never end; `noload`: models cannot be loaded again.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

STUB = "triton_python_backend_stub"
HUNG_ENGINE = ("busy", "hung")


class Fake(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, control: Path):
        self.control = control
        self.accepting = True
        self.polled = 0
        self.finished = 0
        self.stubs = {model: start_stub(model) for model in ("scheduler", "unary", "preprocessing")}

    def mode(self) -> str:
        return self.control.read_text().strip()

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        request = next(requests)
        control = request.parameters["control"].string_param if "control" in request.parameters else ""
        door = request.model_name in ("ensemble", "unary")
        if (door and self.mode() == "mute") or (request.model_name == "tensorrt_llm" and self.mode() in HUNG_ENGINE):
            while context.is_active():
                time.sleep(0.02)
            return
        if control:
            yield answer(request, json.dumps(self.status(control, request.parameters["control_token"].string_param)))
            return
        if self.mode() == "starting":
            yield service_pb2.ModelStreamInferResponse(error_message="the engine is not ready")
            return
        if request.model_name == "preprocessing" and self.mode() == "mute":
            yield service_pb2.ModelStreamInferResponse(error_message="Stub process 'preprocessing_0_0' is not healthy.")
            return
        yield answer(request, "hi")

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        if ("triton-grpc-protocol-ssjf-admin", "key") not in context.invocation_metadata() or self.mode() == "noload":
            context.abort(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted")
        self.stubs.pop(request.model_name).kill()
        return service_pb2.RepositoryModelUnloadResponse()

    def RepositoryModelLoad(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self.stubs[request.model_name] = start_stub(request.model_name)
        return service_pb2.RepositoryModelLoadResponse()

    def status(self, control: str, token: str) -> dict[str, Any]:
        if control == "drain" and token == "secret":
            self.accepting = False
        self.polled += not self.accepting
        # Two requests are live, and finish a moment after the drain began.
        live = 2 if self.mode() == "stuck" or self.polled < 4 else 0
        self.finished += self.mode() == "busy"
        return {"ready": self.accepting, "live_requests": live, "finished": self.finished}


def start_stub(model: str) -> subprocess.Popen[bytes]:
    """A shell under a stub's name that waits for input: it ends with this process, as a real stub does."""
    words = [STUB, "-c", "read -r line", "model.py", "prefix", "1", "1", "1", "be", "3", f"{model}_0_0", "DEFAULT"]
    return subprocess.Popen(words, executable="/bin/sh", stdin=subprocess.PIPE)


def answer(request: Any, text: str) -> Any:
    response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    response.outputs.add(name="text_output", datatype="BYTES", shape=[1, 1])
    data = text.encode()
    response.raw_output_contents.append(len(data).to_bytes(4, "little") + data)
    response.parameters["triton_final_response"].bool_param = True
    return service_pb2.ModelStreamInferResponse(infer_response=response)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--prefix")
    options = parser.parse_args()
    if options.control.read_text().strip() == "exit":
        print("E1122 failed to load 'scheduler'", flush=True)
        return 3
    (Path("/dev/shm") / f"{options.prefix}segment").touch()
    fake = Fake(options.control)
    server = grpc.server(ThreadPoolExecutor(16))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    print("I1122 x] \"successfully loaded 'scheduler'\"", flush=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while not stop.wait(0.05):
        for stub in list(fake.stubs.values()):
            stub.poll()
    return 0


if __name__ == "__main__":
    sys.exit(main())
