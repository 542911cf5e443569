"""The rendered manifests as objects, and how to find one's way in them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ssjf_tools.deploy.render import rendered

# Made by the operator, not by a manifest (docs/deploy.md).
SECRETS = {"ssjf-secrets", "ssjf-tls"}
POD_OWNERS = ("Deployment", "StatefulSet")


@dataclass(frozen=True)
class Pod:
    """A pod as its owner will make it."""

    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]


@functools.cache
def objects(overlay: str) -> list[dict[str, Any]]:
    """All objects of a rendered overlay; shared, so copy one before changing it."""
    return [each for each in yaml.safe_load_all(rendered(overlay).read_text()) if each]


def of_kind(overlay: str, *kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects(overlay) if each["kind"] in kinds]


def pods(overlay: str) -> list[Pod]:
    owned = [
        Pod(each["metadata"]["name"], each["spec"]["template"]["metadata"]["labels"], each["spec"]["template"]["spec"])
        for each in of_kind(overlay, *POD_OWNERS)
    ]
    return owned + [
        Pod(each["metadata"]["name"], kserve_labels(overlay), each["spec"])
        for each in of_kind(overlay, "ServingRuntime")
    ]


def kserve_labels(overlay: str) -> dict[str, str]:
    """What KServe writes on the pods that it makes of a ServingRuntime for the one InferenceService."""
    (service,) = of_kind(overlay, "InferenceService")
    return {"serving.kserve.io/inferenceservice": service["metadata"]["name"], "component": "predictor"}


def ours(overlay: str) -> Iterator[tuple[Pod, dict[str, Any]]]:
    """Pods whose container is our image, with that container."""
    for pod in pods(overlay):
        for container in pod.spec["containers"]:
            if "/triton-ssjf:" in container["image"]:
                yield pod, container


def selected(overlay: str, selector: dict[str, str]) -> list[Pod]:
    return [pod for pod in pods(overlay) if selector.items() <= pod.labels.items()]
