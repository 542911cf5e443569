"""`python -m ssjf_tools.launch`: one GPU goes to `scripts/serve`, several to mpirun."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.configure.facts import ConfigureError
from ssjf_tools.launch.plan import EngineProcesses, engine_processes, mpirun_command
from ssjf_tools.serve import layout
from ssjf_tools.serve.__main__ import main as serve
from ssjf_tools.serve.__main__ import write_state
from ssjf_tools.serve.layout import LayoutError, Triton
from ssjf_tools.serve.options import NGC_TRITON, ServeOptions, parse, taken_ports
from ssjf_tools.serve.server import new_shm_prefix

_SECRETS = ("SSJF_CONTROL_TOKEN", layout.ADMIN_HEADER)
# The filled configurations say everything; a typo in one is to be an error, not a guess.
_COMPLETE = "--disable-auto-complete-config"

_EPILOG = """\
  one GPU (and flavour llmapi)   becomes scripts/serve --profile trtllm, which supervises the server: it drains on
                                 SIGTERM and restarts a server with a dead process.
  several GPUs                   becomes mpirun with one tritonserver a GPU. Rank 0 serves; the others hold a part of
                                 the engine. mpirun ends all when one ends, and then systemd, Docker's restart policy or
                                 Kubernetes starts them again. A Python process that dies or hangs ends no rank: only
                                 Kubernetes acts on that (its liveness probe is scripts/health). Elsewhere run the watch
                                 of docs/deploy.md beside it, and scripts/drain before a stop. scripts/serve's --grace,
                                 --start-timeout and --verbose have no effect.

All options of scripts/serve work here, too, and what follows a -- goes to tritonserver.

examples
  scripts/launch --model-repository /srv/ssjf/model_repository --dry-run
  scripts/launch --model-repository /srv/ssjf/model_repository --host 0.0.0.0 -- --log-verbose=1

exit codes: 0 ended on request, 1 cannot run (the reason is printed), 2 wrong usage; with mpirun: mpirun's own
"""


def main(argv: Sequence[str]) -> int:
    """Returns only for one GPU, a dry run and errors; otherwise the process becomes mpirun."""
    parser = argparse.ArgumentParser(
        prog="scripts/launch",
        description="Starts a filled production repository with the number of processes that its engine was built for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model-repository", type=Path, required=True, metavar="DIR", help="see scripts/configure")
    parser.add_argument("--dry-run", action="store_true", help="print the command, start nothing")
    cut = argv.index("--") if "--" in argv else len(argv)
    own, others = parser.parse_known_args(argv[:cut])
    arguments = ["--profile", "trtllm", "--model-repository", str(own.model_repository.absolute()), *others]
    arguments += ["--", *argv[cut + 1 :], _COMPLETE]
    try:
        engine = engine_processes(own.model_repository)
        return _launch(arguments, engine, own.dry_run)
    except (ConfigureError, LayoutError) as error:
        print(f"scripts/launch: {error}", file=sys.stderr)
        return 1


def _launch(arguments: Sequence[str], engine: EngineProcesses, dry_run: bool) -> int:
    options = parse(arguments)
    many = engine.processes > 1
    print(f"scripts/launch: backend {engine.backend}, {engine.processes} process{'es' if many else ''}", flush=True)
    if not many:
        if dry_run:
            print(shlex.join(["scripts/serve", *arguments]))
            return 0
        _find_triton(dry_run=False, backend=engine.backend)
        return serve(arguments)
    taken = [] if dry_run else taken_ports(options)
    if taken:
        raise LayoutError("; ".join(taken))
    return _run_ranks(options, engine, dry_run)


def _run_ranks(options: ServeOptions, engine: EngineProcesses, dry_run: bool) -> int:
    triton = _find_triton(dry_run, engine.backend)
    mpirun = shutil.which("mpirun")
    if mpirun is None and not dry_run:
        raise LayoutError("mpirun is not on PATH: run inside an NVIDIA NGC Triton container with TensorRT-LLM")
    token = os.environ.get("SSJF_CONTROL_TOKEN") or secrets.token_urlsafe(24)
    admin_key = os.environ.get("SSJF_ADMIN_KEY") or secrets.token_hex(16)
    environment = layout.server_environment(options, triton, token, os.environ)
    folder = layout.run_folder(options)
    _lay_out(folder / "backends", triton)
    prefix = new_shm_prefix(options.instance)
    server = layout.server_command(options, triton, folder / "backends", prefix, admin_key)
    command = mpirun_command(server, engine.processes, os.geteuid() == 0, mpirun or "mpirun")
    if not dry_run:
        layout.check_stub(triton, environment)
        write_state(folder / "serve.json", options, os.getpid(), token)
        os.execve(command[0], command, environment)
    print(_readable(command, environment, admin_key))
    return 0


def _find_triton(dry_run: bool, backend: str) -> Triton:
    """The container's Triton; in a dry run elsewhere, its paths. Raises LayoutError when it or `backend` is missing."""
    try:
        triton = layout.system_triton()
    except LayoutError:
        if not dry_run:
            raise
        print("scripts/launch: no Triton with TensorRT-LLM here, shown with the paths of NVIDIA's image")
        python = NGC_TRITON / "backends" / "python"
        return Triton(NGC_TRITON / "bin" / "tritonserver", python, python / layout.STUB)
    if backend != "python" and backend not in {path.name for path in triton.backends}:
        raise LayoutError(f"{triton.python_backend.parent / backend} does not exist: an image without TensorRT-LLM?")
    return triton


def _lay_out(folder: Path, triton: Triton) -> None:
    """The backend folder; without a Triton (dry run) our own backends alone, so that the command names them."""
    if triton.server.is_file():
        layout.lay_out_backends(folder, triton, CHECKOUT / "python_backends")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for path in (CHECKOUT / "python_backends").glob("*/model.py"):
        link = folder / path.parent.name
        if not link.exists():
            link.symlink_to(path.parent, target_is_directory=True)


def _readable(command: Sequence[str], environment: Mapping[str, str], admin_key: str) -> str:
    """The command, an option a line, and the variables that we add; keys and tokens left out."""
    lines = [
        f"{name}={'…' if name in _SECRETS else shlex.quote(value)} \\"
        for name, value in sorted(environment.items())
        if name.startswith("SSJF_") and os.environ.get(name) != value
    ]
    lines.append(f"{command[0]} \\")
    for word in command[1:]:
        quoted = shlex.quote(word.replace(admin_key, "…"))
        if word.startswith("--"):
            lines.append(f"    {quoted} \\")
        else:
            lines[-1] = f"{lines[-1].removesuffix(chr(92))}{quoted} \\"
    return "\n".join(lines).removesuffix(" \\")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
