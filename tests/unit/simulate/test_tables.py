"""Wrong files get an error that names file, line and column."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssjf_tools.simulate.service import read_service
from ssjf_tools.simulate.sources import Population, read_journal, read_predictions, read_trace
from ssjf_tools.simulate.tables import InputError

FINISHED = '{"arrival": 1, "prompt_tokens": 5, "predicted_tokens": 30, "output_tokens": 40, "outcome": "finished"}'


def trace(path: Path) -> Population:
    return read_trace(path, 0.0, 0)


@pytest.mark.parametrize(
    ("read", "text", "line", "column", "problem"),
    [
        (read_predictions, "tokens,class5\n1,2\n", 1, "output_tokens", "is missing; the header has: tokens, class5"),
        (read_predictions, "output_tokens\n1\n", 1, "class5", "one is needed"),
        (
            read_predictions,
            "output_tokens,class5\n5,1\n-3,1\n",
            3,
            "output_tokens",
            "is '-3', expected a number from 0",
        ),
        (read_predictions, "output_tokens,class5\n5,1\n7,\n", 3, "class5", "is '', expected a number from 0"),
        (read_predictions, "output_tokens,class5\nnan,1\n", 2, "output_tokens", "is 'nan'"),
        (read_predictions, "output_tokens,class5\n5\n", 2, "class5", "only 1 cells"),
        (read_predictions, "output_tokens,class5\n", 2, None, "has no rows"),
        (read_predictions, "", 1, "output_tokens", "the header has: nothing"),
        (
            read_predictions,
            "output_tokens,class5,arrival_s\n5,1,2\n5,1,1\n",
            3,
            "arrival_s",
            "earlier than the line before",
        ),
        (trace, "arrival_s,prompt_tokens\n1,2\n", 1, "output_tokens", "is missing"),
        (trace, "when,what\n1,2\n", 1, "arrival_s", "is missing"),
        (trace, "timestamp_ms,input_tokens,output_tokens\n0,1,1\nsoon,1,1\n", 3, "timestamp_ms", "is 'soon'"),
        (trace, "TIMESTAMP,ContextTokens,GeneratedTokens\n12:00,1,1\n", 2, "TIMESTAMP", "expected a time as"),
        (trace, "timestamp_ms,input_tokens,output_tokens\n5,1,1\n9,1,1\n8,1,1\n", 4, "timestamp_ms", "must be sorted"),
        (read_journal, '{"arrival_s": 1}\n', 1, "prompt_tokens", "is None, expected a number"),
        (read_journal, "what\n", 1, None, "is not a JSON object"),
        (
            read_journal,
            f"{FINISHED}\n\n{FINISHED.replace('40', 'NaN')}\n",
            3,
            "output_tokens",
            "is nan, expected a number",
        ),
        (read_journal, FINISHED.replace("30", "Infinity"), 1, "predicted_tokens", "is inf, expected a number"),
        (read_journal, FINISHED.replace("30", "1e999"), 1, "predicted_tokens", "is inf, expected a number"),
        (read_predictions, "output_tokens,class5\n5,1\ninf,1\n", 3, "output_tokens", "is 'inf'"),
        # Blank lines count, and so do lines inside of quotes.
        (
            read_predictions,
            "output_tokens,class5,arrival_s\n\n5,1,2\n\n\n5,1,1\n",
            6,
            "arrival_s",
            "is '1', earlier than",
        ),
        (
            trace,
            '\narrival_s,prompt_tokens,output_tokens,note\n5,1,1,"a\nb"\n4,1,1,\n',
            5,
            "arrival_s",
            "is '4', earlier",
        ),
        (trace, "\ntimestamp_ms,input_tokens\n1,2\n", 2, "output_tokens", "is missing"),
        (
            trace,
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.5e9,1,1\n",
            2,
            "TIMESTAMP",
            "expected a time",
        ),
        (
            read_predictions,
            'output_tokens,class5\n5,1\n6,"1\n7,1\n8,1\n',
            3,
            "class5",
            "is '1\\n7,1\\n8,1\\n', expected",
        ),
        (read_journal, '{"outcome": "cancelled"}\n', None, None, "has no finished requests"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_files(
    tmp_path: Path,
    read: Callable[[Path], Population],
    text: str,
    line: int | None,
    column: str | None,
    problem: str,
    packed: bool,
) -> None:
    path = tmp_path / "input.csv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert line is None or f"line {line}" in message
    assert column is None or f"column {column}" in message
    assert problem in message


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01,\n")
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"output_tokens,class5\n" + b"1,2\n" * 1000)[:40])
    for path, problem in ((binary, "not UTF-8"), (cut, "cannot be read"), (tmp_path / "none", "No such file")):
        with pytest.raises(InputError, match=problem):
            read_predictions(path)


PACKED = gzip.compress(b"output_tokens,class5\n" + b"1,2\n" * 1000, mtime=0)


@pytest.mark.parametrize(
    "content",
    [PACKED[:-20], PACKED[:10] + b"\xff" * 50, PACKED[:-8] + b"crc?" + PACKED[-4:], PACKED + b"more"],
    ids=["cut", "no deflate stream", "checksum", "something after it"],
)
@pytest.mark.parametrize("read", [read_predictions, trace, read_journal, read_service])
def test_damaged_gzip_files(tmp_path: Path, read: Callable[[Path], object], content: bytes) -> None:
    path = tmp_path / "damaged.gz"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    if read is read_predictions:  # the others may first find that the content is none of theirs
        assert "the gzip file is damaged or cut off" in str(caught.value)


def test_a_quote_that_never_ends_is_named_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "quote.csv"
    path.write_text('output_tokens,class5\n5,1\n6,"1\n' + "7,1\n" * 50_000)
    with pytest.raises(InputError, match="line 3: is no CSV from here on: field larger"):
        read_predictions(path)


def test_a_number_that_no_float_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(FINISHED.replace("30", "9" * 400))
    with pytest.raises(InputError, match=r"line 1, column predicted_tokens: is 9999.*expected a number"):
        read_journal(path)


def test_predictions_plain_and_gzip(tmp_path: Path) -> None:
    text = "\ufeffoutput_tokens,class5,class3,other\n10,4,0,x\n30,4,0,x\n500,1,1,x\n"
    for name, content in (("a.csv", text.encode()), ("b.csv.gz", gzip.compress(text.encode()))):
        path = tmp_path / name
        path.write_bytes(content)
        population = read_predictions(path)
        assert population.output_tokens.tolist() == [10, 30, 500]
        # A class is worth its rows' mean true length, whatever its number.
        assert population.predicted["class5"].tolist() == [20, 20, 500]
        assert list(population.predicted) == ["class3", "class5"]
        assert population.prompt_tokens.tolist() == [0, 0, 0]
        assert population.arrival_s is None


def test_point_predictions_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("output_tokens,predicted_tokens,prompt_tokens,arrival_s\n10,12.5,7,3\n20,9,8,4.5\n")
    population = read_predictions(path)
    assert population.predicted["predicted_tokens"].tolist() == [12.5, 9]
    assert population.prompt_tokens.tolist() == [7, 8]
    assert population.arrival_s is not None
    assert population.arrival_s.tolist() == [0, 1.5]


@pytest.mark.parametrize(
    "text",
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97996,480,10\n2023-11-16 18:17:05.4799600,31,8\n",
        "timestamp_ms,input_tokens,output_tokens\n100,480,10\n1600,31,8\n",
        "arrival_s,prompt_tokens,output_tokens\n5,480,10\n6.5,31,8\n",
    ],
)
def test_trace_formats(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    population = read_trace(path, 0.0, 0)
    assert population.arrival_s is not None
    assert population.arrival_s == pytest.approx([0, 1.5])
    assert population.prompt_tokens.tolist() == [480, 31]
    assert population.output_tokens.tolist() == [10, 8]
    assert population.predicted["noisy"].tolist() == [10, 8]  # no noise asked for
    assert population.ordered


def test_journal_is_replayed_in_order_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    entry = {"prompt_tokens": 5, "predicted_tokens": 20.0, "outcome": "finished"}
    lines = [
        entry | {"arrival_s": 12.0, "output_tokens": 2},
        entry | {"arrival_s": 10.0, "output_tokens": 1},
        entry | {"arrival_s": 11.0, "output_tokens": 9, "outcome": "cancelled"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    population = read_journal(path)
    assert population.output_tokens.tolist() == [1, 2]
    assert population.arrival_s is not None
    assert population.arrival_s.tolist() == [0, 2]


def test_service_calibration(tmp_path: Path) -> None:
    path = tmp_path / "service.json"
    path.write_text('{"base_s": 0.5, "prefill_s": 0.01, "steps": {"1": 0.1, "3": 0.2}}')
    model = read_service(path)
    assert [model.step_s(batch) for batch in (1, 2, 3, 9)] == pytest.approx([0.1, 0.15, 0.2, 0.2])
    assert model.mean_service_s(100, 10, 2) == pytest.approx(0.5 + 1 + 1.5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("{}", 'needs "steps"'),
        ('{"steps": {"zero": 0.1}}', "batch size 'zero'"),
        ('{"steps": {"1": -1}}', r"steps\.1.*is -1"),
        ('{"steps": {"1": 0.1}, "base_s": "x"}', "base_s.*is 'x'"),
    ],
)
def test_wrong_calibrations(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "service.json"
    path.write_text(text)
    with pytest.raises(InputError, match=problem):
        read_service(path)


def test_noise_is_unbiased_in_the_log_and_seeded(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i},1,100\n" for i in range(4000)))
    logs = np.log(read_trace(path, 0.5, 7).predicted["noisy"] / 100)
    assert abs(logs.mean()) < 0.04
    assert logs.std() == pytest.approx(0.5, rel=0.06)
    assert np.array_equal(logs, np.log(read_trace(path, 0.5, 7).predicted["noisy"] / 100))
