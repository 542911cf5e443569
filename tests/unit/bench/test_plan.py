"""Plans repeat with their seed; the command line refuses what does not go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssjf_tools.bench.live.__main__ import main
from ssjf_tools.bench.live.experiment import chosen_prompts
from ssjf_tools.bench.live.options import parser, settings_of
from ssjf_tools.bench.live.plan import make_plan
from ssjf_tools.bench.live.prompts import Prompt
from ssjf_tools.simulate.workload import ArrivalProcess

POISSON = ArrivalProcess("poisson", 2.0)


def test_a_plan_is_made_by_its_seed() -> None:
    one, same, other = (make_plan(30, 100, POISSON, None, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.prompts, same.prompts)
    assert np.array_equal(one.arrival_s, same.arrival_s)  # type: ignore[arg-type]
    assert not np.array_equal(one.arrival_s, other.arrival_s)  # type: ignore[arg-type]
    assert one.arrival_s is not None
    assert one.arrival_s[-1] == pytest.approx(50)  # 100 requests at 2 a second
    assert make_plan(30, 100, ArrivalProcess("burst"), None, 1).arrival_s == pytest.approx(0.0)


def test_every_prompt_is_asked_as_often_as_the_others() -> None:
    counts = np.bincount(make_plan(30, 100, POISSON, None, 1).prompts)
    assert set(counts.tolist()) == {3, 4}


def test_a_closed_loop_has_no_times() -> None:
    assert make_plan(3, 5, None, None, 1).arrival_s is None


def test_a_trace_is_scaled_to_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{at**2},5,5\n" for at in range(11)))
    plan = make_plan(3, 10, ArrivalProcess("trace", 2.0), path, 1)
    assert plan.arrival_s is not None
    assert plan.arrival_s[-1] == pytest.approx(5.0)
    assert plan.arrival_s[1] / plan.arrival_s[9] == pytest.approx(1 / 81)


def test_more_prompts_than_requests() -> None:
    prompts = [Prompt(str(at), "x") for at in range(50)]
    chosen = chosen_prompts(prompts, settings_of(parser().parse_args(["--requests", "20"])))
    assert len(set(chosen)) == 20
    assert chosen_prompts(prompts[:5], settings_of(parser().parse_args(["--requests", "20"]))) == prompts[:5]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policies", "fcfs,best"], "--policies: 'best' is none of fcfs"),
        (["--policies", ","], "--policies: '' is none of"),
        (["--load", "0.9", "--rate", "2"], "--load and --rate exclude each other"),
        (["--concurrency", "4", "--load", "0.9"], "--concurrency is a closed loop"),
        (["--arrivals", "trace"], "--arrivals trace and --trace FILE belong together"),
        (["--trace", "missing.csv"], "missing.csv: cannot be read"),
        (["--prompts", "missing.jsonl"], "missing.jsonl: cannot be read"),
        (["--url", "127.0.0.1:1"], "--url needs --token"),
        (["--against-simulator", "run.json"], "--against-simulator needs --service"),
        (["--cv", "4"], "--cv has no effect: it is for gamma arrivals, these are poisson"),
        (["--concurrency", "4", "--cv", "4"], "--concurrency is a closed loop: leave --arrivals, --trace, --cv"),
        (["--arrivals", "burst", "--load", "0.5"], "--load and --rate have no effect: a burst"),
        (["--own-speed"], "no effect without --against-simulator: --own-speed"),
        (["--service", "s.json"], "no effect without --against-simulator: --service"),
        (["--chunk-tokens", "64"], "no effect without --calibrate: --chunk-tokens"),
        (["--calibrate", "--html", "p.html", "--requests", "9"], "no effect beside --calibrate: --html, --requests"),
        (["--against-simulator", "run.json", "--calibrate"], "no effect beside --against-simulator: --calibrate"),
    ],
)
def test_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSJF_CONTROL_TOKEN", raising=False)
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("arrival_s,prompt_tokens,output_tokens\n1,2,3\n0.5,2,3\n", "line 3, column arrival_s: is '0.5', earlier than"),
        ("arrival_s,prompt_tokens,output_tokens\n1,2,3\nsoon,2,3\n", "line 3, column arrival_s: is 'soon'"),
        ("arrival_s,prompt_tokens,output_tokens\n1,2,-3\n", "line 2, column output_tokens: is '-3'"),
        ("arrival_s,prompt_tokens\n1,2\n", "line 1, column output_tokens: is missing"),
        ("", "line 1, column arrival_s: is missing; the header has: nothing"),
    ],
)
def test_wrong_traces_are_refused_before_a_server_starts(
    tmp_path: Path, rows: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(rows)
    assert main(["--trace", str(path)]) == 2
    assert complaint in capsys.readouterr().err


def test_arrivals() -> None:
    settings = settings_of(parser().parse_args(["--arrivals", "gamma", "--cv", "4", "--load", "0.5"]))
    assert settings.process == ArrivalProcess("gamma", None, 4.0)
    assert settings.load == 0.5
    assert settings_of(parser().parse_args([])).load == 0.9
    assert settings_of(parser().parse_args(["--rate", "3"])).load is None
    assert settings_of(parser().parse_args(["--concurrency", "3"])).process is None
    assert settings_of(parser().parse_args(["--arrivals", "burst"])).process == ArrivalProcess("burst")


@pytest.mark.parametrize(("text", "chunk"), [("64", 64), ("none", 0)])
def test_chunks(text: str, chunk: int) -> None:
    assert parser().parse_args(["--calibrate", "--chunk-tokens", text]).chunk_tokens == chunk


@pytest.mark.parametrize("text", ["0", "-1", "all"])
def test_wrong_chunks(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--calibrate", f"--chunk-tokens={text}"])
    assert "--chunk-tokens" in capsys.readouterr().err
