"""Asking a running server: does an inference come back, do all models answer, is the scheduler empty yet?

Any thread may use a Probe; each call blocks for at most its timeouts.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ssjf_client import Client, ClientError, Door, GenerateRequest
from ssjf_client.wire import control_message, read_part
from ssjf_tools.serve.components import ENGINE, silent_models
from ssjf_tools.serve.layout import ADMIN_HEADER

FIRST_PROMPT = "Say hi."
CONTROL_TIMEOUT_S = 2.0
_UNANSWERED_AT_MOST = 3
# Counters of the scheduler's status that move only when work gets done; reading the status moves none of them.
_PROGRESS = ("engine_responses", "dispatched", "finished")
# An engine that used this share of a core while it did not answer is at work.
_BUSY_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for signs of life, in seconds, and after how many failed probes in a row a server is dead."""

    every_s: float
    answer_s: float
    failures: int


# A hang is noticed after 2 + 3 × 4 = 14 s, or one probe later when work got done just before: then the CPU profile,
# which starts in about 9 s, is back within 30 s.
CPU_PATIENCE = Patience(every_s=2.0, answer_s=4.0, failures=3)
TRTLLM_PATIENCE = Patience(every_s=5.0, answer_s=15.0, failures=3)


class ControlError(Exception):
    """The scheduler did not answer to a control request, or refused it."""


@dataclass(frozen=True, slots=True)
class Health:
    """What one probe saw: models that do not answer, and whether work got done (`moved`) while the probe waited."""

    silent: frozenset[str] = frozenset()
    moved: bool = True


class Probe:
    """One server as seen from outside. `url`: host:port of its gRPC endpoint.

    `engine_work` returns a number that grows while the engine computes (its CPU seconds).
    """

    def __init__(
        self, url: str, control_token: str, admin_key: str, patience: Patience, engine_work: Callable[[], float]
    ):
        self._address = url
        self._patience = patience
        self._engine_work = engine_work
        self._clients: dict[Door, Client] = {door: Client(url, door=door) for door in ("ensemble", "unary")}
        self._channel = grpc.insecure_channel(url)
        self._triton = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._token = control_token
        self._counters: Mapping[str, Any] = {}
        self._admin_metadata = ((f"triton-grpc-protocol-{ADMIN_HEADER}", admin_key),)

    def reachable(self) -> bool:
        """Whether the port is open, which Triton does when every model is loaded.

        NOTE: asked by a plain connection; a gRPC channel that is refused waits ever longer before it tries again.
        """
        host, port = self._address.rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
        except OSError:
            return False
        return True

    def infer(self, door: Door, timeout_s: float) -> None:
        """One tiny, most urgent inference through `door`. Raises ClientError."""
        request = GenerateRequest(FIRST_PROMPT, max_tokens=1, priority_class=0, timeout_s=timeout_s)
        self._clients[door].generate(request)

    def check(self) -> Health:
        """Which models answer; where one does not, also whether the engine and the scheduler get work done."""
        begun, work = time.monotonic(), self._engine_work()
        silent = silent_models(self._triton, self._patience.answer_s)
        if silent - {ENGINE}:
            return Health(silent, moved=False)
        worked = self._engine_work() - work > _BUSY_SHARE * (time.monotonic() - begun)
        before, self._counters = self._counters, {name: self.status().get(name) for name in _PROGRESS}
        return Health(silent, worked or before != self._counters)

    def status(self) -> Mapping[str, Any]:
        """The scheduler's status; empty when it does not answer."""
        try:
            return self._control("status")
        except ControlError:
            return {}

    def drain(self, grace_s: float, report: Callable[[str], None], hurry: Callable[[], bool]) -> bool:
        """Stops the scheduler from accepting and waits until nothing is live; True when it came to that.

        Ends early when `hurry()` says so or when the scheduler cannot be reached.
        """
        deadline, said, unanswered = time.monotonic() + grace_s, 0.0, 0
        try:
            self._control("drain")
        except ControlError as error:
            report(f"the scheduler cannot be drained: {error}")
            return False
        while not hurry():
            live = self.status().get("live_requests")
            unanswered = unanswered + 1 if live is None else 0
            if live == 0 or unanswered == _UNANSWERED_AT_MOST or time.monotonic() >= deadline:
                return live == 0
            if time.monotonic() - said > 2:
                said = time.monotonic()
                report(f"waiting for {live} requests to finish ({deadline - said:.0f} s left)")
            time.sleep(0.1)
        return False

    def reload(self, model: str, timeout_s: float) -> None:
        """Unloads `model` and loads it again, with a new process. Raises ControlError.

        Measured on 2.51: Triton answers what the dead process had at hand with an error, takes the ensembles that use
        the model away meanwhile and brings them back; running requests of other models go on.
        """
        unload = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        load = service_pb2.RepositoryModelLoadRequest(model_name=model)
        try:
            self._triton.RepositoryModelUnload(unload, timeout=timeout_s, metadata=self._admin_metadata)
            self._triton.RepositoryModelLoad(load, timeout=timeout_s, metadata=self._admin_metadata)
        except grpc.RpcError as error:
            raise ControlError(f"{model} cannot be loaded again: {error}") from error

    def close(self) -> None:
        """Gives up what is under way and closes the connections."""
        for client in self._clients.values():
            with suppress(ClientError):
                client.close()
        self._channel.close()

    def _control(self, name: str) -> Mapping[str, Any]:
        """A control request to the scheduler; its JSON answer. Raises ControlError."""
        timeout_s = CONTROL_TIMEOUT_S
        message = control_message(name, self._token, {}, timeout_s)
        texts = []
        try:
            for response in self._triton.ModelStreamInfer(iter((message,)), timeout=timeout_s):
                if response.error_message:
                    raise ControlError(response.error_message)
                texts.append(read_part(response.infer_response).text)
            status = json.loads("".join(texts))
        except (grpc.RpcError, ClientError, ValueError) as error:
            raise ControlError(f"{name}: {error}") from error
        if not isinstance(status, dict):
            raise ControlError(f"{name}: {status!r} is not a JSON object")
        return status
