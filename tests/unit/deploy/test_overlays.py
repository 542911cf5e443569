"""What single overlays add: scaling by our metrics, the gateway's way to the servers, KServe."""

from __future__ import annotations

import re

import pytest
import yaml

from ssjf.service.metrics import METRICS
from ssjf_tools.bootstrap import CHECKOUT
from tests.unit.deploy.manifests import of_kind, pods, selected

METRIC_NAMES = {spec.name for spec in METRICS}


def metrics_in(text: str) -> set[str]:
    """Our metrics that a text names, without the suffixes of a histogram's series."""
    names = set(re.findall(r"\bssjf_[a-z_]+[a-z]", text))
    return {re.sub("_(bucket|sum|count)$", "", name) if name not in METRIC_NAMES else name for name in names}


@pytest.mark.parametrize("overlay", ["one-node", "replicas"])
def test_scaling_asks_for_metrics_that_exist(overlay: str) -> None:
    (scaled,) = of_kind(overlay, "ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] in {pod.owner for pod in pods(overlay)}
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    assert metrics_in(" ".join(queries)) == {"ssjf_queue_time_seconds", "ssjf_waiting_requests"}
    assert all(f'namespace="{scaled["metadata"]["namespace"]}"' in query for query in queries)
    kinds = {
        name: trigger["metricType"]
        for trigger in scaled["spec"]["triggers"]
        for name in metrics_in(trigger["metadata"]["query"])
    }
    # A number of requests is shared by the replicas, a wait is the same for all of them.
    assert kinds == {"ssjf_queue_time_seconds": "Value", "ssjf_waiting_requests": "AverageValue"}
    assert scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"]


def test_the_route_opens_what_the_balancer_opens_and_no_more() -> None:
    (route,) = of_kind("replicas", "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert {match["path"]["type"] for match in rule["matches"]} == {"Exact"}
    balancer = (CHECKOUT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    (doors,) = re.findall(r"acl http_allowed path_reg (\S+)", balancer)
    (others,) = re.findall(r"acl http_allowed path (/.*)", balancer)
    models, ways = (group.split("|") for group in re.findall(r"\(([a-z_|]+)\)", doors))
    paths = {f"/v2/models/{model}{way}" for model in models for way in ("", *(f"/{way}" for way in ways))}
    assert all(re.search(doors, path) for path in paths)
    assert {match["path"]["value"] for match in rule["matches"]} == paths | set(others.split())


def test_the_gateway_finds_the_pool_the_picker_and_their_metrics() -> None:
    (pool,) = of_kind("replicas", "InferencePool")
    (route,) = of_kind("replicas", "HTTPRoute")
    chosen = selected("replicas", pool["spec"]["selector"]["matchLabels"])
    assert [pod.owner for pod in chosen] == ["ssjf"]
    ports = {port["containerPort"] for port in chosen[0].spec["containers"][0]["ports"]}
    assert {port["number"] for port in pool["spec"]["targetPorts"]} <= ports
    picker = next(
        s for s in of_kind("replicas", "Service") if s["metadata"]["name"] == pool["spec"]["endpointPickerRef"]["name"]
    )
    assert pool["spec"]["endpointPickerRef"]["port"]["number"] in {port["port"] for port in picker["spec"]["ports"]}
    (program,) = (pod.spec["containers"][0] for pod in pods("replicas") if pod.owner == picker["metadata"]["name"])
    assert f"--pool-name={pool['metadata']['name']}" in program["args"]
    assert f"--pool-namespace={pool['metadata']['namespace']}" in program["args"]
    assert {ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]} == {pool["metadata"]["name"]}
    (config,) = (each["data"] for each in of_kind("replicas", "ConfigMap") if "picker-config.yaml" in each["data"])
    plugins = yaml.safe_load(config["picker-config.yaml"])
    extractor = next(p for p in plugins["plugins"] if p["type"] == "core-metrics-extractor")["parameters"]
    (engine,) = extractor["engineConfigs"]
    assert {engine["queuedRequestsSpec"], engine["runningRequestsSpec"]} <= METRIC_NAMES
    assert chosen[0].labels[extractor["engineLabelKey"]] == engine["name"] == extractor["defaultEngine"]
    known = {plugin["type"] for plugin in plugins["plugins"]}
    assert {entry["pluginRef"] for profile in plugins["schedulingProfiles"] for entry in profile["plugins"]} <= known


def test_kserve_leaves_the_number_of_replicas_alone() -> None:
    (service,) = of_kind("kserve", "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    assert "maxReplicas" not in service["spec"]["predictor"]
