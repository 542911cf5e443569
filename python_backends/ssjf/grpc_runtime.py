"""How gRPC's C core is to run in a backend's process. Imports no gRPC: the core reads this when it is loaded."""

from __future__ import annotations

import os

_EXPERIMENTS = "GRPC_EXPERIMENTS"


def wake_fewer_threads() -> None:
    """Let the thread that waits for gRPC's events read the sockets itself; call it before gRPC is imported.

    gRPC's event engine (the default since 1.7x) hands each message over between threads of its own before ours sees
    it: 9.2 thread switches and 350 µs of CPU for each relayed response, 4.9 and 280 µs without it (docs/results.md).
    An operator's own `GRPC_EXPERIMENTS` wins; a gRPC that no longer knows the name says so in its log and goes on.
    """
    os.environ.setdefault(_EXPERIMENTS, "-event_engine_client")
