"""The inference process: `python -m openvino_llm.worker <fd>`; `<fd>` is its end of a socket pair to the Triton stub.

A process of its own, because a step of the pipeline holds the GIL for 20 to 200 ms: in the stub, that would stall
`execute`, every `send` and every `is_cancelled` (measured: a thread beside a batch of 16 got the GIL 42 times in 5 s).
It ends when the stub's end closes, and the kernel kills it when the stub dies in any other way.

It also watches the server: when tritonserver dies while a response is on its way, the stub hangs in that send for good,
and with it the engine would go on computing for nobody. Then this process ends the stub, and so itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from openvino_llm.batch import Batch
from openvino_llm.messages import Alive, Cancel, Configure, Fatal, Progress, Ready, Start
from openvino_llm.pipeline import OpenVinoPipeline

_PR_SET_PDEATHSIG = 1
WATCH_PERIOD_S = 1.0


def serve(connection: Connection, stub: int) -> None:
    """Load the model, say Ready, then work until the connection closes or the server is gone."""
    _die_with_parent(stub)
    server = parent_of(stub)
    configure: Configure = connection.recv()
    began = time.monotonic()
    pipeline = OpenVinoPipeline(configure.settings, configure.facts)
    batch = Batch(pipeline, configure.settings.max_num_seqs, configure.settings.num_kv_blocks)
    connection.send(Ready(time.monotonic() - began))
    next_look = 0.0
    while True:
        while connection.poll(0 if batch.busy else WATCH_PERIOD_S):
            _take(connection.recv(), batch)
        if time.monotonic() > next_look:
            next_look = time.monotonic() + WATCH_PERIOD_S
            if parent_of(stub) != server:
                os.kill(stub, signal.SIGKILL)
                return
            connection.send(Alive())
        if batch.busy:
            deltas = batch.step()
            if deltas:
                connection.send(Progress(tuple(deltas)))


def parent_of(pid: int) -> int:
    """The process id of its parent; 1 or a reaper's for an orphan."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(stat.rpartition(")")[2].split()[1])


def _take(message: Start | Cancel, batch: Batch) -> None:
    if isinstance(message, Start):
        batch.start(message.key, message.generation)
    else:
        for key in message.keys:
            batch.cancel(key)


def _die_with_parent(parent: int) -> None:
    # The server's own shutdown decides: Ctrl-C reaches the whole process group, and requests may still be finishing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        raise EOFError


def main() -> int:
    """Entry point: arguments are the file descriptor and the process id of the stub."""
    connection = Connection(int(sys.argv[1]))
    try:
        serve(connection, int(sys.argv[2]))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0
    except Exception as error:
        connection.send(Fatal(f"{type(error).__name__}: {error}"))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
