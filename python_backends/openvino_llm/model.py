"""Triton shell of the CPU engine: tensors in, tensors out. All decisions are in the modules beside this one."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import triton_python_backend_utils as pb_utils

from openvino_llm.desk import Desk, Reject, Stop, Submit
from openvino_llm.errors import EngineError, EngineUnavailable, InvalidInput
from openvino_llm.messages import Configure
from openvino_llm.request import RequestReader
from openvino_llm.responses import RowChunk
from openvino_llm.settings import EngineSettings, ModelFacts, SamplingDefaults
from openvino_llm.supervisor import Supervisor
from ssjf.parameters import Parameters
from ssjf.tensors import ENGINE_OPTIONAL_INPUTS, ENGINE_REQUIRED_INPUTS

INPUT_NAMES = tuple(spec.name for spec in ENGINE_REQUIRED_INPUTS + ENGINE_OPTIONAL_INPUTS)


class TritonPythonModel:
    """One instance; `execute` only reads tensors, the desk's thread answers."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model in a process of its own and wait until it is ready."""
        logging.basicConfig(level=logging.INFO, format="tensorrt_llm (cpu): %(message)s")
        parameters = Parameters.of_model(args, os.environ)
        parameters.check_known(EngineSettings, SamplingDefaults)
        settings = parameters.build(EngineSettings)
        facts = ModelFacts.read(settings.model_dir)
        defaults = parameters.build(SamplingDefaults)
        self._reader = RequestReader(settings, defaults, facts, lambda: secrets.randbits(32))
        self._desk = Desk(settings.cancel_poll_ms / 1000)
        self._supervisor = Supervisor(Configure(settings, facts), self._desk.post)
        self._desk.start()
        self._supervisor.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Decoupled: every request is answered through its response sender, exactly one final each."""
        for request in requests:
            client = TritonClient(request.get_response_sender(), frozenset(request.requested_output_names()))
            try:
                self._desk.post(self._event(request, client))
            except EngineError as error:
                self._desk.post(Reject(client, error))
            except Exception as error:  # a fault of ours must not leave this request open or touch the others
                logging.exception("a request could not be read")
                self._desk.post(Reject(client, EngineError(f"internal error: {error!r}")))

    def finalize(self) -> None:
        """Answer what is open, end the threads and the inference process."""
        self._desk.close()
        self._supervisor.close()

    def _event(self, request: Any, client: TritonClient) -> Submit | Stop:
        found = ((name, pb_utils.get_input_tensor_by_name(request, name)) for name in INPUT_NAMES)
        tensors = {name: tensor.as_numpy() for name, tensor in found if tensor is not None}
        if "stop" in tensors and tensors["stop"].any():
            if not request.request_id():
                raise InvalidInput("request id", "empty", "the id of the request that stop=true shall end")
            return Stop(client, request.request_id())
        return Submit(client, self._reader.read(request.request_id(), tensors))


class TritonClient:
    """A response sender as the desk's `Client`."""

    def __init__(self, sender: Any, wanted: frozenset[str]):
        self._sender = sender
        self._wanted = wanted  # outputs that the client asked for; Triton lists all when it named none

    def send(self, chunk: RowChunk, final: bool) -> None:
        """One response with tensors."""
        tensors = [pb_utils.Tensor(name, array) for name, array in chunk.tensors().items() if name in self._wanted]
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        self._sender.send(pb_utils.InferenceResponse(tensors), flags=flags)

    def finish(self) -> None:
        """The final flag alone."""
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def fail(self, error: EngineError) -> None:
        """An error with the final flag."""
        response = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), _code(error)))
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def is_cancelled(self) -> bool:
        """Whether the client has gone or cancelled."""
        return bool(self._sender.is_cancelled())


def _code(error: EngineError) -> Any:
    if isinstance(error, InvalidInput):
        return pb_utils.TritonError.INVALID_ARG
    if isinstance(error, EngineUnavailable):
        return pb_utils.TritonError.UNAVAILABLE
    return pb_utils.TritonError.INTERNAL
