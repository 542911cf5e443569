"""What is published has the names and labels that the table of metrics, and with it the page, gives."""

from __future__ import annotations

import numpy as np

from ssjf.core.settings import CoreSettings
from ssjf.service.journal import Journal
from ssjf.service.metrics import METRICS, gauges, observations, totals
from tests.unit.service.harness import Bench, run


class NoDisk:
    def write(self, lines: list[bytes]) -> int:
        return len(lines)

    def close(self) -> None:
        pass


def test_published_metrics_have_the_names_and_labels_of_the_table() -> None:
    published: dict[str, set[tuple[str, ...]]] = {}

    async def scenario(bench: Bench) -> None:
        bench.service.journal = Journal(NoDisk(), prompts=False)
        bench.core.guardrail.tau, bench.core.guardrail.bias = 0.5, 1.0  # published once enough answers have been seen
        await bench.ended(bench.send("hello", stream=np.array([[True]])))
        for name, pairs, _value in (*gauges(bench.service), *totals(bench.service)):
            published.setdefault(name, set()).add(tuple(key for key, _ in pairs))
        row = bench.records[0]
        for name, labels, _value in observations(row):
            published.setdefault(name, set()).add(tuple(labels))

    run(scenario, CoreSettings(max_inflight=1))
    assert published == {spec.name: {spec.labels} for spec in METRICS}
