"""What outlives a pod: the claim and how it is filled, the proxy's plan, the journal."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from ssjf.parameters import Parameters
from ssjf.service.settings import ServiceSettings
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.deploy.render import KUBERNETES, overlays
from ssjf_tools.plan.options import parse
from tests.unit.deploy.manifests import of_kind, ours, pods
from tests.unit.deploy.page import command_lines

FILLING = KUBERNETES / "filling"
POD: dict[str, Any] = yaml.safe_load((FILLING / "pod.yaml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())
JOURNAL = "/var/lib/ssjf"

each_overlay = pytest.mark.parametrize("overlay", overlays())


def commands(part: str) -> list[list[str]]:
    """The words of the page's commands that contain `part`."""
    return [shlex.split(line, comments=True) for line in command_lines() if part in line]


# -- the claim ---------------------------------------------------------------------------------------------------------


@each_overlay
def test_the_claim_is_shared_and_servers_only_read_it(overlay: str) -> None:
    (claim,) = of_kind(overlay, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(overlay):
        for volume in pod.spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"], "readOnly": True}
                mounts = [
                    mount for mount in pod.spec["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]
                ]
                assert [mount["readOnly"] for mount in mounts] == [True]


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_the_pod_that_fills_it_is_valid(version: str) -> None:
    kubernetes_validate.validate(POD, version, strict=True)


def test_one_pod_may_write_as_the_user_of_the_servers_and_do_nothing_else() -> None:
    (server,) = pods("one-node")
    (claim,) = of_kind("one-node", "PersistentVolumeClaim")
    spec = POD["spec"]
    assert spec["securityContext"] == server.spec["securityContext"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in spec["volumes"]
    (container,) = spec["containers"]
    (served,) = server.spec["containers"]
    assert container["securityContext"] == served["securityContext"]
    place = next(mount["mountPath"] for mount in served["volumeMounts"] if mount["name"] == "data")
    assert {"name": "data", "mountPath": place} in container["volumeMounts"]
    assert spec["activeDeadlineSeconds"] <= 4 * 3600


def test_it_has_the_image_of_the_servers() -> None:
    base, filling = (
        yaml.safe_load((KUBERNETES / part / "kustomization.yaml").read_text()) for part in ("base", "filling")
    )
    assert filling["images"] == base["images"]
    assert POD["spec"]["containers"][0]["image"] == "triton-ssjf"


def test_kustomize_accepts_it() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", FILLING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = [each["kind"] for each in yaml.safe_load_all(done.stdout)]
    assert sorted(made) == ["PersistentVolumeClaim", "Pod"]


def test_the_page_fills_it_by_that_pod() -> None:
    assert commands("apply -k deploy/kubernetes/filling")
    name = POD["metadata"]["name"]
    assert f"pod/{name}" in commands("kubectl wait")[0]
    assert [words[-1] for words in commands("kubectl delete pod")] == [name]
    assert all(name in words for words in commands("kubectl exec"))


# -- the proxy's plan --------------------------------------------------------------------------------------------------


def test_the_plan_is_built_from_the_export_into_the_folder_that_servers_read() -> None:
    config = (CHECKOUT / "model_repository" / "length_predictor" / "config.pbtxt").read_text()
    (read,) = re.findall(r"\$\{SSJF_PROXY_DIR:-([^}]*)\}", config)
    (export,) = commands("build-proxy-plan --export-only")
    written = str(parse(export[1:]).export_only)
    builds = commands("build-proxy-plan --exported")
    assert [words[:2] for words in builds] == [["docker", "run"], ["kubectl", "exec"]]
    for words in builds:
        options = parse(words[words.index("scripts/build-proxy-plan") + 1 :])
        assert str(options.into) == read
        assert str(options.exported) == written.replace("/srv/ssjf", "/opt/ssjf")
    (docker, _kubectl) = builds
    assert "/srv/ssjf:/opt/ssjf" in docker  # not `:ro`, as for serving
    assert docker[docker.index("--user") + 1] == "$(id -u):$(id -g)"


# -- the journal -------------------------------------------------------------------------------------------------------


def test_compose_keeps_the_journal_and_leaves_it_off() -> None:
    server = COMPOSE["services"]["server"]
    assert f"journal:{JOURNAL}" in server["volumes"]
    assert "journal" in COMPOSE["volumes"]
    assert server["environment"]["SSJF_JOURNAL_PATH"] == "${SSJF_JOURNAL_PATH:-}"
    given = Parameters("scheduler", {}, {"SSJF_JOURNAL_PATH": ""}, CHECKOUT).build(ServiceSettings)
    assert given.journal_path is None


def test_the_image_may_write_it() -> None:
    dockerfile = (CHECKOUT / "deploy" / "Dockerfile").read_text()
    assert re.search(rf"install -d -o ssjf -g ssjf .*{JOURNAL}$", dockerfile, re.MULTILINE)


@each_overlay
def test_every_pod_of_ours_has_room_for_a_journal(overlay: str) -> None:
    default = ServiceSettings()
    for pod, container in ours(overlay):
        (volume,) = (volume for volume in pod.spec["volumes"] if volume["name"] == "journal")
        assert volume["emptyDir"] == {"sizeLimit": "1Gi"}
        assert {"name": "journal", "mountPath": JOURNAL} in container["volumeMounts"]
    # The limit evicts the pod, so it has to be more than all files together, and the one that is being begun.
    assert (default.journal_files + 1) * default.journal_max_bytes < 2**30
