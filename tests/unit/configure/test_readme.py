"""The README's commands from the trial to production, taken from the README and run against a fake engine folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.plan.options import parse as parse_build_proxy_plan
from tests.unit.byte_tokenizer import write_tokenizer_dir
from tests.unit.configure.engine_folder import ENGINE, write_config

SITE = "/srv/ssjf"
MOST_COMMANDS = 5


def commands() -> list[str]:
    """The lines of the block that belongs to this test, less its comments."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- From the CPU trial to production;.*?```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line and not line.startswith("#")]


def program(command: str) -> str:
    """Its first word that sets no variable."""
    return next(word for word in command.split() if "=" not in word)


def run(command: str, site: Path) -> subprocess.CompletedProcess[str]:
    """As a person would, in the checkout, with the site's folder in place of the README's."""
    environment = {**os.environ, "SSJF_PYTHON": sys.executable}
    there = command.replace(SITE, str(site))
    return subprocess.run(
        ["bash", "-c", there], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_config(tmp_path / "engine", ENGINE, {"pretrained_config.mapping.world_size": 2})
    write_tokenizer_dir(tmp_path / "tokenizer")
    return tmp_path


def test_at_most_five_commands_lead_to_production() -> None:
    programs = [program(command) for command in commands()]
    assert programs == ["scripts/configure", "pip", "scripts/build-proxy-plan", "scripts/launch", "scripts/launch"]
    assert len(programs) <= MOST_COMMANDS


def test_the_commands_do_what_the_readme_says(site: Path) -> None:
    configure, install, build_plan, dry_run, launch = commands()
    done = run(configure, site)
    assert done.returncode == 0, done.stderr
    assert (site / "model_repository" / "scheduler" / "config.pbtxt").is_file()
    assert "max_inflight                    48" in done.stdout
    # Not run: it is for the Python of NVIDIA's container. What the image of deploy/Dockerfile installs.
    assert (CHECKOUT / install.split()[-1]).samefile(CHECKOUT / "deploy" / "requirements.txt")
    # A plan is built where there are a GPU and TensorRT; here only its options can be looked at.
    options = parse_build_proxy_plan(shlex.split(build_plan.replace(SITE, str(site)))[1:])
    assert options.into == site / "proxy"
    assert f"proxy_dir                       {site / 'proxy'}" in done.stdout  # where the models look for it
    shown = run(dry_run, site)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count(f"--model-repository={site}/model_repository") == 2
    if not Path("/opt/tritonserver").exists():
        started = run(launch, site)
        assert started.returncode == 1
        assert "run inside an NVIDIA NGC Triton container" in started.stderr


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("engine/config.json", "engine/config.json: No such file"),
        ("tokenizer/tokenizer_config.json", "tokenizer/tokenizer_config.json: No such file"),
    ],
)
def test_a_missing_file_is_named_on_the_command_line_too(site: Path, missing: str, said: str) -> None:
    (site / missing).unlink()
    done = run(commands()[0], site)
    assert done.returncode == 1
    assert f"{site}/{said}" in done.stderr
    assert "Traceback" not in done.stderr
