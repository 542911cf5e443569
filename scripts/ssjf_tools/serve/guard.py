"""Tidies up after a `scripts/serve` that was killed: ends tritonserver and all its children, frees its shared memory.

`python -m ssjf_tools.serve.guard SERVER_PID SHM_PREFIX`, standard input a pipe that only serve holds open. A line on it
means that serve has done the work itself; its end without one means that serve is gone. Standard library only.
"""

from __future__ import annotations

import signal
import sys

from ssjf_tools.serve.processes import end_family, remove_shared_memory

POLITE_S = 8.0


def main(argv: list[str]) -> int:
    """Waits for the end of standard input, then tidies up unless told that nothing is left to do."""
    # Ctrl-C in the terminal and the end of the session are serve's business; this process ends with its pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    server, prefix = int(argv[0]), argv[1]
    if not sys.stdin.buffer.readline():
        end_family(server, POLITE_S)
        remove_shared_memory(prefix)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
