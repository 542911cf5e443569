"""Records that can be read back, calibrations, and the comparison of a measurement with the simulator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssjf_tools.bench.live.__main__ import main
from ssjf_tools.bench.live.against import agreements
from ssjf_tools.bench.live.calibrate import batch_sizes, fitted_line, write_service
from ssjf_tools.bench.live.one_speed import gains
from ssjf_tools.bench.live.record import as_record, read_record, write_record
from ssjf_tools.simulate.service import ServiceModel, read_service
from ssjf_tools.simulate.tables import InputError
from tests.unit.bench.build import TOKEN_S, make_outcome, one_slot

TOKENS = [40, 10, 20, 10]
ARRIVALS = [0.0, 0.5, 0.6, 0.7]
EXACT = ServiceModel(0.0, 0.0, ((1, TOKEN_S),))


@pytest.fixture
def measurement(tmp_path: Path) -> Path:
    runs = [
        ("fcfs", 0, one_slot(ARRIVALS, TOKENS, [0, 1, 2, 3])),
        ("ssjf", 0, one_slot(ARRIVALS, TOKENS, [0, 1, 3, 2])),
        ("sjf-oracle", 0, one_slot(ARRIVALS, TOKENS, [0, 1, 3, 2])),
        ("direct", 0, one_slot(ARRIVALS, TOKENS, [0, 1, 2, 3])),
    ]
    path = tmp_path / "run.json"
    write_record(path, as_record(make_outcome(runs, TOKENS)))
    return path


def test_the_right_service_times_give_the_same_completion_times(measurement: Path) -> None:
    found = {one.policy: one for one in agreements(read_record(measurement), EXACT)}
    assert set(found) == {"fcfs", "ssjf", "sjf-oracle"}
    for one in found.values():
        assert one.mean_off == pytest.approx(0.0, abs=1e-3)
        assert one.p90_off == pytest.approx(0.0, abs=1e-3)
        assert one.holds
    slow = agreements(read_record(measurement), replace(EXACT, steps=((1, 1.2 * TOKEN_S),)))
    assert not any(one.holds for one in slow)


def test_at_its_own_speed_a_slower_machine_agrees(measurement: Path) -> None:
    wrong = replace(EXACT, steps=((1, 0.3 * TOKEN_S),))
    assert not any(one.holds for one in agreements(read_record(measurement), wrong))
    for one in agreements(read_record(measurement), wrong, own_speed=True):
        assert one.mean_off == pytest.approx(0.0, abs=1e-3)


def test_command(measurement: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service, out = tmp_path / "service.json", tmp_path / "out.json"
    write_service(service, EXACT)
    assert main(["--against-simulator", str(measurement), "--service", str(service), "--json", str(out)]) == 0
    assert "sjf-oracle" in capsys.readouterr().out
    assert [one["policy"] for one in json.loads(out.read_text())] == ["fcfs", "ssjf", "sjf-oracle"]


def on_changing_machines(path: Path, *policies: str) -> Path:
    """Two repeats; in the second the machine took twice as long under fcfs, half as long under the others."""
    runs = []
    for repeat, (baseline_s, other_s) in enumerate([(TOKEN_S, TOKEN_S), (2 * TOKEN_S, 0.5 * TOKEN_S)]):
        for policy in policies:
            order, token_s = ([0, 1, 2, 3], baseline_s) if policy == "fcfs" else ([0, 1, 3, 2], other_s)
            runs.append((policy, repeat, one_slot(ARRIVALS, TOKENS, order, token_s)))
    write_record(path, as_record(make_outcome(runs, TOKENS)))
    return path


def test_gains_at_one_speed_are_those_of_the_order_alone(tmp_path: Path) -> None:
    path = on_changing_machines(tmp_path / "run.json", "fcfs", "ssjf", "sjf-oracle")
    first, own, best = gains(read_record(path), EXACT)
    means = {}
    for token_s in (TOKEN_S, 2 * TOKEN_S):
        for policy, order in (("fcfs", [0, 1, 2, 3]), ("ssjf", [0, 1, 3, 2])):
            run = one_slot(ARRIVALS, TOKENS, order, token_s)
            means[policy, token_s] = float((run.end_s - run.arrival_s).mean())
    expected = [means["ssjf", token_s] / means["fcfs", token_s] - 1 for token_s in (TOKEN_S, 2 * TOKEN_S)]
    assert first.one_speed_vs_fcfs == 0
    assert own.ci95_one_speed_vs_fcfs is not None
    assert own.ci95_one_speed_vs_fcfs[0] < min(expected) < max(expected) < own.ci95_one_speed_vs_fcfs[1]
    assert sum(own.ci95_one_speed_vs_fcfs) == pytest.approx(sum(expected), abs=1e-3)
    assert own.one_speed_mean_s == pytest.approx((means["ssjf", TOKEN_S] + means["ssjf", 2 * TOKEN_S]) / 2, rel=1e-3)
    assert own.one_speed_repeats_s == pytest.approx((means["ssjf", TOKEN_S], means["ssjf", 2 * TOKEN_S]), rel=1e-3)
    assert own.live_vs_fcfs < own.one_speed_vs_fcfs - 0.3
    assert own.share_of_oracle_gain == best.share_of_oracle_gain == pytest.approx(1.0)


def test_gains_need_fcfs_and_tell_an_oracle_that_was_not_measured(tmp_path: Path) -> None:
    assert gains(read_record(on_changing_machines(tmp_path / "alone.json", "ssjf", "sjf-oracle")), EXACT) == []
    _, own = gains(read_record(on_changing_machines(tmp_path / "two.json", "fcfs", "ssjf")), EXACT)
    assert own.share_of_oracle_gain is None


def test_command_at_own_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = on_changing_machines(tmp_path / "run.json", "fcfs", "ssjf")
    service, out = tmp_path / "service.json", tmp_path / "out.json"
    write_service(service, EXACT)
    options = ["--against-simulator", str(path), "--service", str(service), "--own-speed", "--json", str(out)]
    assert main(options) == 0
    said = capsys.readouterr().out
    assert "at one speed" in said
    assert "Mean by repeat" in said
    assert [one["policy"] for one in json.loads(out.read_text())] == ["fcfs", "ssjf"]
    assert all("one_speed_vs_fcfs" in one and "live_p90_s" in one for one in json.loads(out.read_text()))


def test_a_record_replaces_the_one_before_and_follows_no_link(tmp_path: Path) -> None:
    path, link = tmp_path / "new" / "run.json", tmp_path / "link.json"
    for rate in (1, 2):
        write_record(path, {"rate": rate})
    assert json.loads(path.read_text()) == {"rate": 2}
    link.symlink_to(path)  # as /dev/stdout is one
    write_record(link, {"rate": 3})
    assert link.is_symlink()
    assert json.loads(path.read_text()) == {"rate": 3}
    assert [each.name for each in path.parent.iterdir()] == ["run.json"]


def test_unknown_times_survive_a_record(measurement: Path) -> None:
    content = json.loads(measurement.read_text())
    content["runs"][0]["columns"]["end_s"][2] = None
    measurement.write_text(json.dumps(content))
    run = read_record(measurement).runs[0].run
    assert run.ok.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda content: content.pop("runs"), "column runs: is not a measurement of scripts/bench"),
        (lambda content: content["runs"][0]["columns"].pop("end_s"), "column end_s: needs 4 numbers in every run"),
        (lambda content: content["runs"][0]["columns"]["end_s"].pop(), "column end_s: needs 4 numbers"),
        (
            lambda content: content["runs"][0]["columns"]["output_tokens"].__setitem__(1, -4),
            "column runs.1.output_tokens: has -4 for request 2, expected numbers from 0 up",
        ),
        (
            lambda content: content["runs"][1]["columns"]["end_s"].__setitem__(3, float("nan")),
            "column runs.2.end_s: has nan for request 4, expected numbers from 0 up, or null",
        ),
        (
            lambda content: content["runs"][0]["columns"]["queue_s"].__setitem__(0, float("inf")),
            "column runs.1.queue_s: has inf for request 1",
        ),
        (
            lambda content: content["runs"][0].__setitem__("prior_tokens", float("nan")),
            "column runs.1.prior_tokens: is nan, expected a number",
        ),
        (
            lambda content: content["settings"].__setitem__("max_wait_s", float("nan")),
            "column settings.max_wait_s: is nan, expected a number",
        ),
    ],
)
def test_wrong_measurements(measurement: Path, change: Any, complaint: str) -> None:
    content = json.loads(measurement.read_text())
    change(content)
    measurement.write_text(json.dumps(content))
    with pytest.raises(InputError) as raised:
        read_record(measurement)
    assert complaint in str(raised.value)


def test_a_measurement_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{\n"runs": [\n')
    with pytest.raises(InputError, match="line 3: is not JSON"):
        read_record(path)


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    model = ServiceModel(0.02, 0.0015, ((1, 0.017), (4, 0.025)), 64)
    write_service(tmp_path / "deep" / "service.json", model)
    assert read_service(tmp_path / "deep" / "service.json") == model


@pytest.mark.parametrize("chunk", [0, -1, 1.5, True, "64"])
def test_wrong_chunks(tmp_path: Path, chunk: object) -> None:
    path = tmp_path / "service.json"
    path.write_text(json.dumps({"steps": {"1": 0.1}, "chunk_tokens": chunk}))
    with pytest.raises(InputError, match="column chunk_tokens"):
        read_service(path)


def test_batch_sizes_end_with_the_slots() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(4) == [1, 2, 3, 4]
    assert batch_sizes(16) == [1, 2, 3, 4, 8, 16]
    assert batch_sizes(64)[-2:] == [32, 64]


def test_fitted_line() -> None:
    base, slope = fitted_line([10, 20, 40], [0.12, 0.14, 0.18])
    assert (base, slope) == pytest.approx((0.1, 0.002))
    assert fitted_line([10, 20], [0.2, 0.1])[1] == 0.0
    assert fitted_line([10, 20], [0.1, 0.3])[0] == 0.0
