"""The real Prometheus with deploy/prometheus, and everything that is asked of it in a deployment."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssjf_tools.deploy.dashboard import dashboard
from ssjf_tools.serve.throwaway import Throwaway, free_ports
from tests.server.site import DEPLOY, running, wait_until
from tests.unit.deploy.manifests import of_kind


@dataclass(frozen=True)
class Prometheus:
    """A running one; `api`: where its HTTP interface begins."""

    api: str
    log: Path

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query gives now. HTTPError for one that is not PromQL."""
        answer = self._get(f"query?{urllib.parse.urlencode({'query': query})}")
        assert answer["resultType"] == "vector", query
        samples: list[dict[str, Any]] = answer["result"]
        return samples

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until("Prometheus does not get there", condition, self.log)

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.api}/{path}", timeout=10) as answer:
            return json.loads(answer.read())["data"]


@contextmanager
def running_prometheus(servers: Sequence[Throwaway], folder: Path) -> Iterator[Prometheus]:
    """With our configuration and rules; only targets and intervals are the test's."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = [server.metrics_url.split("/")[2] for server in servers]
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = targets
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    shutil.copy(DEPLOY / "prometheus" / "rules.yml", folder)
    (port,) = free_ports(1)
    command: list[str | Path] = [
        program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with running(command, folder / "log"):
        yield Prometheus(f"http://127.0.0.1:{port}/api/v1", folder / "log")


def queries() -> list[str]:
    """Every question that the dashboard and KEDA ask of Prometheus."""
    (scaled,) = of_kind("replicas", "ScaledObject")
    asked = [trigger["metadata"]["query"].replace('namespace="default"', "") for trigger in scaled["spec"]["triggers"]]
    panels = [target["expr"] for panel in json.loads(dashboard())["panels"] for target in panel.get("targets", [])]
    return asked + [expr.replace("$instance", ".*").replace("$__rate_interval", "1m") for expr in panels]
