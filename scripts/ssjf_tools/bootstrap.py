"""Makes the virtual environment that a script needs, then runs a module in it.

Standard library only: this runs before anything is installed. `scripts/_run` is its command line. What is installed is
pinned in `requirements/*.lock`; an environment is touched again only when one of its lock files changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE_FOLDERS = ("scripts", "client", "python_backends")
SYSTEM = "system"
PINNED_FOR = ((3, 11), (3, 12))

Report = Callable[[str], None]


class BootstrapError(Exception):
    """The environment could not be made; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One file of `requirements/`; `resolve` lets pip add what the listed packages ask for."""

    name: str
    resolve: bool = False


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment of the checkout and the lock files that fill it, in the order of installing."""

    folder: str
    locks: tuple[Lock, ...]


WEIGHTS, SERVE, PLOTS, DEV, TRAIN, DOCS = (
    Lock("weights.lock"),
    Lock("serve.lock"),
    Lock("plots.lock"),
    Lock("dev.lock"),
    Lock("train.lock", resolve=True),
    Lock("docs.lock"),
)
ENVIRONMENTS = {
    "serve": Environment(".venv", (WEIGHTS, SERVE)),
    "plots": Environment(".venv", (WEIGHTS, SERVE, PLOTS)),
    "dev": Environment(".venv", (WEIGHTS, SERVE, PLOTS, DEV)),
    "train": Environment(".venv-train", (WEIGHTS, TRAIN)),
    "docs": Environment(".venv-docs", (DOCS,)),
}


def to_stderr(text: str) -> None:
    """Prints one line of progress."""
    print(text, file=sys.stderr, flush=True)


def ensure_environment(extra: str, checkout: Path = CHECKOUT, report: Report = to_stderr) -> Path:
    """Makes the environment `extra` where it is missing or older than its lock files; returns its Python.

    Safe when several processes do it at once: one installs, the others wait. Raises BootstrapError.
    """
    environment = ENVIRONMENTS[extra]
    folder = checkout / environment.folder
    python = folder / "bin" / "python"
    if _missing(folder, environment, checkout):
        with _only_one(checkout, report):
            _make_venv(folder, report)
            for lock in _missing(folder, environment, checkout):
                _install(python, checkout / "requirements" / lock.name, lock.resolve, report)
                _stamp_file(folder, lock).write_text(_digest(checkout, lock), encoding="utf-8")
    _link_checkout(folder, checkout)
    return python


def enter(extra: str, module: str, arguments: Sequence[str]) -> None:
    """Replaces this process by `python -m module` in the environment `extra`; returns only when already in it."""
    python = ensure_environment(extra)
    if Path(sys.prefix) != python.parent.parent:
        sys.stdout.flush()
        os.execve(python, [str(python), "-m", module, *arguments], _environ_without_checkout())


def _environ_without_checkout() -> dict[str, str]:
    """The environment less what `scripts/_run` put on PYTHONPATH: in a venv of ours the .pth file does that."""
    environ = dict(os.environ)
    ours = {str(CHECKOUT / folder) for folder in SOURCE_FOLDERS}
    kept = [entry for entry in environ.pop("PYTHONPATH", "").split(os.pathsep) if entry and entry not in ours]
    return environ | ({"PYTHONPATH": os.pathsep.join(kept)} if kept else {})


def _digest(checkout: Path, lock: Lock) -> str:
    return hashlib.sha256((checkout / "requirements" / lock.name).read_bytes()).hexdigest()


def _stamp_file(folder: Path, lock: Lock) -> Path:
    return folder / f"installed-{lock.name}.sha256"


def _missing(folder: Path, environment: Environment, checkout: Path) -> list[Lock]:
    """The lock files of which this environment does not hold the present content."""
    if not (folder / "bin" / "python").exists():  # also false for a link to a Python that has gone
        return list(environment.locks)

    def current(lock: Lock) -> bool:
        stamp = _stamp_file(folder, lock)
        return stamp.is_file() and stamp.read_text(encoding="utf-8") == _digest(checkout, lock)

    return [lock for lock in environment.locks if not current(lock)]


@contextmanager
def _only_one(checkout: Path, report: Report) -> Iterator[None]:
    """Holds the lock that lets one process at a time change environments; the kernel frees it when a process dies."""
    run = checkout / ".run"
    run.mkdir(exist_ok=True)
    with (run / "bootstrap.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process of this checkout that is installing")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_venv(folder: Path, report: Report) -> None:
    if (folder / "bin" / "python").exists():
        return
    python = _python_for_venv()
    report(f"making the virtual environment {folder.name} with {python}")
    command = [python, "-m", "venv", "--clear", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        hint = "On Debian or Ubuntu: apt-get install python3-venv"
        raise BootstrapError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}{hint}")
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def _python_for_venv() -> str:
    """A Python for which the pinned packages exist: the running one, or another on PATH. Raises BootstrapError."""
    if sys.version_info[:2] in PINNED_FOR:
        return sys.executable
    for version in PINNED_FOR:
        found = shutil.which("python" + ".".join(map(str, version)))
        if found:
            return found
    versions = " or ".join(".".join(map(str, version)) for version in PINNED_FOR)
    raise BootstrapError(
        f"requirements/*.lock are for Python {versions}, here is {sys.version.split()[0]} ({sys.executable}): "
        "install one of them, or name it by SSJF_PYTHON"
    )


def _install(python: Path, lock: Path, resolve: bool, report: Report) -> None:
    """Runs pip on one lock file, reporting as packages come; raises BootstrapError with the end of pip's output."""
    wanted = [line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    report(f"installing {len(wanted)} packages of requirements/{lock.name} into {python.parent.parent.name}")
    command = [str(python), "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", *([] if resolve else ["--no-deps"]), "-r", str(lock)]
    begun = said = time.monotonic()
    collected, output = 0, list[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            output.append(line)
            collected += line.startswith(("Collecting", "Requirement already"))
            if line.startswith("Installing") or time.monotonic() - said > 2:
                said = time.monotonic()
                phase = "unpacking" if line.startswith("Installing") else f"fetched {collected} of {len(wanted)}"
                report(f"  {phase} ({said - begun:.0f} s)")
    if pip.returncode != 0:
        raise BootstrapError(f"pip failed ({' '.join(command)}):\n{''.join(output[-20:])}")
    report(f"  done ({time.monotonic() - begun:.0f} s)")


def _link_checkout(folder: Path, checkout: Path) -> None:
    """Puts the three source folders on the environment's path, as an editable install would, without a build."""
    site = next((folder / "lib").glob("python3.*/site-packages"))
    path_file = site / "ssjf-checkout.pth"
    wanted = "".join(f"{checkout / source}\n" for source in SOURCE_FOLDERS)
    if not path_file.is_file() or path_file.read_text(encoding="utf-8") != wanted:
        path_file.write_text(wanted, encoding="utf-8")


def _run(extra: str, arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by `python -m arguments...` in the environment `extra`."""
    if extra == SYSTEM:
        os.execv(sys.executable, [sys.executable, "-m", *arguments])
    python = ensure_environment(extra)
    os.execve(python, [str(python), "-m", *arguments], _environ_without_checkout())


def main(argv: Sequence[str]) -> int:
    """`[--extra NAME] MODULE [ARGUMENT...]`: see the text in scripts/_run. Returns only on an error."""
    arguments = list(argv)
    extra = "serve"
    if len(arguments) >= 2 and arguments[0] == "--extra":
        extra = arguments[1]
        del arguments[:2]
    if not arguments or extra not in (*ENVIRONMENTS, SYSTEM):
        names = "|".join((*ENVIRONMENTS, SYSTEM))
        to_stderr(f"usage: scripts/_run [--extra {names}] MODULE [ARGUMENT...]")
        return 2
    try:
        _run(extra, arguments)
    except BootstrapError as error:
        to_stderr(f"scripts/_run: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
