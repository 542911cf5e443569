"""Prometheus, Grafana, HAProxy: only metrics that exist, every alert tested, configurations that programs take."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssjf.service.metrics import METRICS
from ssjf.service.outcome import Outcome
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.deploy.dashboard import DASHBOARD, dashboard
from tests.unit.deploy.certificate import make_certificate
from tests.unit.deploy.programs import haproxy

DEPLOY = CHECKOUT / "deploy"
RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
SERIES = {spec.name for spec in METRICS if spec.kind != "histogram"} | {
    f"{spec.name}_{part}" for spec in METRICS if spec.kind == "histogram" for part in ("bucket", "sum", "count")
}


def series(expression: str) -> set[str]:
    return set(re.findall(r"\bssjf_[a-z_]*[a-z]", expression))


def expressions() -> list[str]:
    return [target["expr"] for panel in json.loads(dashboard())["panels"] for target in panel.get("targets", [])]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False, cwd=DEPLOY / "prometheus")


def test_the_dashboard_is_what_its_table_says() -> None:
    assert DASHBOARD.read_text() == dashboard(), "run scripts/dashboard"


def test_the_dashboard_shows_metrics_that_exist_and_nearly_all_of_them() -> None:
    shown = {name for expression in expressions() for name in series(expression)}
    assert shown <= SERIES
    assert {spec.name for spec in METRICS} - {re.sub("_(bucket|sum|count)$", "", name) for name in shown} == {
        "ssjf_waiting_requests"  # shown by class
    }


def test_every_panel_obeys_the_choice_of_servers() -> None:
    assert all('instance=~"$instance"' in expression and "{$}" not in expression for expression in expressions())


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_grafana_is_provisioned_with_the_source_that_panels_name() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in json.loads(dashboard())["panels"] if "targets" in panel} == {
        source["uid"] for source in sources
    }
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/ssjf.yaml").read_text())["providers"][0]
    mounts = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_are_about_metrics_that_exist_and_say_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert series(rule["expr"]) <= SERIES
    named = {word for value in re.findall(r'outcome=~?"([^"]*)"', rule["expr"]) for word in value.split("|")}
    assert named <= {outcome.value for outcome in Outcome}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["action"]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == set(ALERTS)


def test_promtool_accepts_configuration_and_rules() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_haproxy_accepts_its_configuration(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    variables = {"SSJF_PEM": str(certificate.pem), "SSJF_ADMIN_SOCKET": str(tmp_path / "admin.sock")}
    done = subprocess.run(
        [haproxy(), "-c", "-f", DEPLOY / "haproxy" / "haproxy.cfg"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
