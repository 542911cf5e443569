"""The Kubernetes manifests: valid by the published schemas, and in agreement with each other and with the code."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import fields
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from ssjf.core.settings import CoreSettings
from ssjf.service.settings import ServiceSettings
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.deploy import drain, health
from ssjf_tools.deploy.render import KUBERNETES, head, overlays, render, rendered
from ssjf_tools.serve.components import MODELS
from ssjf_tools.serve.health import TRTLLM_PATIENCE
from ssjf_tools.serve.options import parse
from ssjf_tools.serve.supervisor import RELOAD_TIMEOUT_S, RELOADABLE
from tests.unit.deploy.manifests import SECRETS, objects, of_kind, ours, pods, selected
from tokenizer.text import TextSettings

OVERLAYS = overlays()
# Kinds of other projects: checked by those projects' definitions when last changed (docs/deploy.md: how to repeat it).
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "InferencePool", "HTTPRoute", "ServingRuntime"}
CUSTOM |= {"InferenceService"}
SETTINGS = {
    f"SSJF_{entry.name.upper()}" for cls in (CoreSettings, ServiceSettings, TextSettings) for entry in fields(cls)
}
OTHER_VARIABLES = {"SSJF_ADMIN_KEY"}
# docs/deploy.md: an engine may take that long to load before the liveness probe has to be more patient.
ENGINE_LOAD_S = 480.0

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def test_all_overlays_are_there() -> None:
    assert OVERLAYS == ["kserve", "many-engines", "one-node", "replicas"]


@each_overlay
def test_the_rendered_file_is_up_to_date(overlay: str) -> None:
    assert rendered(overlay).read_text().splitlines()[0] == head(), "run scripts/render"


@each_overlay
def test_kustomize_renders_the_same(overlay: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed; the digest in the rendered file is checked all the same")
    assert render(overlay, kubectl) == rendered(overlay).read_text().partition("\n")[2]


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@each_overlay
def test_kubernetes_own_objects_are_valid(overlay: str, version: str) -> None:
    own = [each for each in objects(overlay) if each["kind"] not in CUSTOM]
    assert own
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_validation_notices_a_misspelt_field() -> None:
    budget = copy.deepcopy(of_kind("one-node", "PodDisruptionBudget")[0])
    budget["spec"]["maxUnavailabel"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(budget, "1.30", strict=True)


@each_overlay
def test_names_of_objects_are_unique(overlay: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in objects(overlay)]
    assert len(set(names)) == len(names)


@each_overlay
def test_services_reach_ports_of_their_pods(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        chosen = selected(overlay, service["spec"]["selector"])
        assert chosen, service["metadata"]["name"]
        for pod in chosen:
            names = {port["name"] for container in pod.spec["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


@each_overlay
def test_policies_and_budgets_choose_pods(overlay: str) -> None:
    for each in of_kind(overlay, "PodDisruptionBudget"):
        assert selected(overlay, each["spec"]["selector"]["matchLabels"])
    for each in of_kind(overlay, "NetworkPolicy"):
        assert selected(overlay, each["spec"]["podSelector"]["matchLabels"])


@each_overlay
def test_every_triton_pod_is_shielded(overlay: str) -> None:
    policies = [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(overlay, "NetworkPolicy")]
    for pod in pods(overlay):
        if pod.owner != "ssjf-picker":
            assert any(policy.items() <= pod.labels.items() for policy in policies), pod.owner


@each_overlay
def test_what_containers_refer_to_exists(overlay: str) -> None:
    config_maps = {each["metadata"]["name"] for each in of_kind(overlay, "ConfigMap")}
    claims = {each["metadata"]["name"] for each in of_kind(overlay, "PersistentVolumeClaim")}
    for pod in pods(overlay):
        text = yaml.safe_dump(pod.spec)
        assert set(re.findall(r"secretKeyRef:\s+key: \S+\s+name: (\S+)", text)) <= SECRETS
        assert set(re.findall(r"secretName: (\S+)", text)) <= SECRETS
        assert set(re.findall(r"claimName: (\S+)", text)) <= claims
        assert set(re.findall(r"(?:configMap|configMapRef):\s+name: (\S+)", text)) <= config_maps
        volumes = {volume["name"] for volume in pod.spec["volumes"]}
        mounted = {mount["name"] for container in pod.spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == volumes


@each_overlay
def test_containers_may_do_nothing_that_they_need_not(overlay: str) -> None:
    for pod in pods(overlay):
        for container in pod.spec["containers"]:
            security = pod.spec.get("securityContext", {}) | container["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] >= 1000
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


@each_overlay
def test_shared_memory_is_large_enough(overlay: str) -> None:
    tritons = [pod for pod in pods(overlay) if pod.owner != "ssjf-picker"]
    for pod in tritons:
        (shm,) = (volume for volume in pod.spec["volumes"] if volume["name"] == "shm")
        assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
        assert {"name": "shm", "mountPath": "/dev/shm"} in pod.spec["containers"][0]["volumeMounts"]


@each_overlay
def test_settings_exist(overlay: str) -> None:
    found = set()
    for each in of_kind(overlay, "ConfigMap"):
        found |= {key for key in each["data"] if key.startswith("SSJF_")}
    for _pod, container in ours(overlay):
        found |= {entry["name"] for entry in container.get("env", []) if entry["name"].startswith("SSJF_")}
    assert found
    assert found <= SETTINGS | OTHER_VARIABLES


@each_overlay
def test_the_server_is_started_with_options_that_exist(overlay: str) -> None:
    for _pod, container in ours(overlay):
        program, *arguments = container["args"]
        assert (CHECKOUT / program).is_file()
        options = parse([word for word in arguments if not word.startswith("--model-repository")])
        assert options.host == "0.0.0.0"


def commands(container: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: container[name]["exec"]["command"] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    } | {"preStop": container["lifecycle"]["preStop"]["exec"]["command"]}


@each_overlay
def test_probes_wait_long_enough_and_say_what_the_programs_understand(overlay: str) -> None:
    for _pod, container in ours(overlay):
        for name, (program, *arguments) in commands(container).items():
            assert (CHECKOUT / program).is_file()
            if name == "preStop":
                continue
            options = health._parser().parse_args(arguments)
            assert options.question == ("live" if name == "livenessProbe" else "ready")
            assert container[name]["timeoutSeconds"] > options.timeout + 2 * health.STATUS_TIMEOUT_S
            assert set(options.models.split(",")) <= MODELS
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 1800


@each_overlay
def test_the_kubelet_leaves_scripts_serve_the_time_to_bring_a_server_back(overlay: str) -> None:
    """The arithmetic in base/deployment.yaml: noticing a hang, and then the longer of both ways to mend it."""
    noticed = TRTLLM_PATIENCE.every_s + TRTLLM_PATIENCE.failures * TRTLLM_PATIENCE.answer_s
    replaced = RELOAD_TIMEOUT_S * (len(RELOADABLE) + 1)
    for _pod, container in ours(overlay):
        probe = container["livenessProbe"]
        least_silence = probe["periodSeconds"] * (probe["failureThreshold"] - 1)
        assert least_silence >= noticed + max(replaced, ENGINE_LOAD_S)


@each_overlay
def test_pods_with_a_gpu_may_go_where_gpus_are(overlay: str) -> None:
    for pod in pods(overlay):
        if any("nvidia.com/gpu" in container["resources"]["limits"] for container in pod.spec["containers"]):
            assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod.spec["tolerations"]


@each_overlay
def test_a_pod_has_time_to_drain_before_it_is_killed(overlay: str) -> None:
    (services,) = [of_kind(overlay, "InferenceService")] if overlay == "kserve" else [[]]
    for pod, container in ours(overlay):
        spec = services[0]["spec"]["predictor"] if services else pod.spec
        options = drain._parser().parse_args(commands(container)["preStop"][1:])
        assert options.grace >= 60
        assert spec["terminationGracePeriodSeconds"] >= options.delay + options.grace + 30
        # Names such as SSJF_PORT, which Kubernetes would make of the Service, must not look like settings.
        assert spec["enableServiceLinks"] is False


def test_the_scheduler_pod_loads_everything_but_the_engine() -> None:
    ((_pod, container),) = ours("many-engines")
    loaded = {word.partition("=")[2] for word in container["args"] if word.startswith("--load-model=")}
    assert loaded == MODELS - {"tensorrt_llm"}
    probed = next(w for w in container["livenessProbe"]["exec"]["command"] if w.startswith("--models="))
    assert set(probed.partition("=")[2].split(",")) == loaded
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_the_scheduler_knows_every_engine_and_the_way_to_it() -> None:
    (engines,) = of_kind("many-engines", "StatefulSet")
    settings = next(each["data"] for each in of_kind("many-engines", "ConfigMap") if "SSJF_ENGINE_URL" in each["data"])
    count = engines["spec"]["replicas"]
    domain = f"{engines['spec']['serviceName']}.{engines['metadata']['namespace']}.svc"
    assert settings["SSJF_ENGINE_URL"].split(",") == [f"ssjf-engine-{n}.{domain}:8001" for n in range(count)]
    assert int(settings["SSJF_MAX_INFLIGHT"]) == count * int(settings["SSJF_ENGINE_SLOTS"])
    ((_pod, container),) = ours("many-engines")
    tls = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls")
    files = {settings[f"SSJF_ENGINE_TLS_{name}"] for name in ("CA", "CERT", "KEY")}
    assert files == {f"{tls}/ca.crt", f"{tls}/tls.crt", f"{tls}/tls.key"}
    engine = engines["spec"]["template"]["spec"]["containers"][0]
    assert {word.partition("=")[2] for word in engine["args"] if "cert=" in word or "key=/" in word} == files
    assert "--grpc-use-ssl-mutual=true" in engine["args"]


@pytest.mark.parametrize("overlay", ["one-node", "many-engines", "replicas"])
def test_the_operators_rules_are_prometheus_own(overlay: str) -> None:
    rules = yaml.safe_load((CHECKOUT / "deploy" / "prometheus" / "rules.yml").read_text())
    (operator,) = of_kind(overlay, "PrometheusRule")
    assert operator["spec"]["groups"] == rules["groups"]
    (monitor,) = of_kind(overlay, "ServiceMonitor")
    (rule,) = monitor["spec"]["selector"]["matchExpressions"]
    assert rule["operator"] == "In"
    services = [s for s in of_kind(overlay, "Service") if "metrics" in {port["name"] for port in s["spec"]["ports"]}]
    assert services
    assert {service["metadata"]["labels"][rule["key"]] for service in services} <= set(rule["values"])
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == {"metrics"}


@pytest.mark.parametrize(
    ("group", "component"), [("monitoring.coreos.com", "prometheus"), ("keda.sh", "keda")], ids=["prometheus", "keda"]
)
def test_what_needs_an_operator_is_in_its_component(group: str, component: str) -> None:
    """A cluster without the operator refuses the objects: it leaves the component out, and everything else stays."""
    sources = [path for path in KUBERNETES.rglob("*.yaml") if KUBERNETES / "rendered" not in path.parents]
    holders = {path.parent for path in sources if f"apiVersion: {group}/" in path.read_text()}
    assert holders == {KUBERNETES / "components" / component}
