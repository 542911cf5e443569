"""The server that is measured: one that runs already, or one that lives as long as the benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ssjf_client import Client
from ssjf_tools.serve.throwaway import throwaway_server


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send requests, and the limits in force there. `own`: started by us, nobody else uses it."""

    url: str
    token: str
    max_inflight: int
    max_wait_s: float
    own: bool


@contextmanager
def running_target(url: str | None, token: str | None, max_inflight: int | None) -> Iterator[Target]:
    """The server at `url`, or where that is None a fresh one of the CPU profile with as many engine slots.

    On a server that runs already, the policy and the limit of requests in flight are put back at the end. Raises
    ValueError without a token, ClientError when the server does not answer.
    """
    if url is None:
        slots = str(max_inflight or 4)
        with throwaway_server({"SSJF_MAX_INFLIGHT": slots, "SSJF_MAX_NUM_SEQS": slots}) as server:
            yield _target(server.grpc_url, server.token, own=True)
        return
    if not token:
        raise ValueError("--url needs --token (or SSJF_CONTROL_TOKEN): policies are switched by control requests")
    with Client(url) as client:
        before = client.status(token)
        if not before.limits:
            raise ValueError("the server does not say its limits: --token is not its control token")
        try:
            if max_inflight is not None:
                client.set_limits(token, max_inflight=max_inflight)
            yield _target(url, token, own=False)
        finally:
            if before.policy is not None:
                client.set_policy(before.policy, token)
            client.set_limits(token, max_inflight=int(before.limits["max_inflight"]))


def _target(url: str, token: str, *, own: bool) -> Target:
    with Client(url) as client:
        limits = client.status(token).limits
    return Target(url, token, int(limits["max_inflight"]), float(limits["max_wait_s"]), own)
