"""Our metric families on Triton's own metrics port. Made and used on the metrics thread only (see service.metrics)."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from ssjf.service.metrics import METRICS, Labels, MetricSpec


class TritonMetrics:
    """Families are registered at once, so that a scrape of an idle server shows them; metrics come with first use."""

    def __init__(self) -> None:
        self._specs = {spec.name: spec for spec in METRICS}
        self._families = {spec.name: _family(spec) for spec in METRICS}
        self._metrics: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}

    def set_gauge(self, name: str, labels: Labels, value: float) -> None:
        self._metric(name, labels).set(value)

    def add(self, name: str, labels: Labels, amount: float) -> None:
        self._metric(name, labels).increment(amount)

    def observe(self, name: str, labels: Labels, value: float) -> None:
        self._metric(name, labels).observe(value)

    def _metric(self, name: str, labels: Labels) -> Any:
        key = (name, tuple(sorted(labels.items())))
        metric = self._metrics.get(key)
        if metric is None:
            buckets = list(self._specs[name].buckets)
            family = self._families[name]
            metric = (
                family.Metric(labels=dict(labels), buckets=buckets) if buckets else family.Metric(labels=dict(labels))
            )
            self._metrics[key] = metric
        return metric


def _family(spec: MetricSpec) -> Any:
    kind = getattr(pb_utils.MetricFamily, spec.kind.upper())
    return pb_utils.MetricFamily(name=spec.name, description=spec.help, kind=kind)
