from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssjf_tools.proxy.data import DataError, Sample, flatten, load_labelled

PROMPTS = [
    {"id": "a", "prompt": "Hi", "source": "s"},
    {"id": "b", "prompt": "Hello"},
    {"id": "c", "prompt": "Unlabelled"},
]
LENGTHS: list[Any] = [
    {"id": "b", "output_tokens": 7, "finish": "stop"},
    {"id": "a", "sample": 0, "output_tokens": 5, "finish": "stop"},
    {"id": "a", "sample": 1, "output_tokens": 64, "finish": "length"},
]


def write(file: Path, records: list[Any]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def load(tmp_path: Path, prompts: list[Any], lengths: list[Any]) -> Any:
    return load_labelled([write(tmp_path / "p.jsonl", prompts)], [write(tmp_path / "l.jsonl", lengths)])


def test_prompts_are_joined_with_all_their_samples(tmp_path: Path) -> None:
    first, second = load(tmp_path, PROMPTS, LENGTHS)
    assert (first.id, first.text, first.source) == ("a", "Hi", "s")
    assert first.samples == (Sample(5, False), Sample(64, True))
    assert second.samples == (Sample(7, False),)
    labels = flatten([first, second])
    assert labels.prompt.tolist() == [0, 0, 1]
    assert labels.tokens.tolist() == [5, 64, 7]
    assert labels.censored.tolist() == [False, True, False]


def test_several_files_and_blank_lines(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", PROMPTS[:1]), write(tmp_path / "2", PROMPTS[1:])
    lengths = write(tmp_path / "l", LENGTHS)
    lengths.write_text(lengths.read_text().replace("\n", "\n\n"))
    assert [prompt.id for prompt in load_labelled([one, two], [lengths])] == ["a", "b"]


def test_a_line_separator_inside_text_ends_no_line(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_text('{"id": "a", "prompt": "x\u2028y"}\n', encoding="utf-8")
    assert load_labelled([file], [write(tmp_path / "l", LENGTHS[1:])])[0].text == "x\u2028y"


def test_earlier_turns_come_before_the_last(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "3"},
    ]
    assert load(tmp_path, [{"id": "b", "messages": messages}], LENGTHS[:1])[0].text == "One\nTwo\n3"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([*PROMPTS, {"prompt": "x"}], "p.jsonl:4: id is None"),
        ([*PROMPTS, {"id": "d", "prompt": "  "}], "p.jsonl:4: prompt is '  '"),
        ([*PROMPTS, {"id": "d", "prompt": 5}], "p.jsonl:4: prompt is 5"),
        ([*PROMPTS, {"id": "a", "prompt": "x"}], "p.jsonl:4: id 'a' was given before"),
        ([*PROMPTS, {"id": "d", "messages": []}], "p.jsonl:4: messages must be a list"),
        ([*PROMPTS, {"id": "d", "messages": [{"role": "user"}]}], r"p.jsonl:4: messages\[0\] has no content"),
        ([*PROMPTS, ["list"]], "p.jsonl:4: a JSON list; expected an object"),
    ],
)
def test_a_bad_prompt_is_named_by_file_and_line(tmp_path: Path, prompts: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, prompts, LENGTHS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"output_tokens": 1, "finish": "stop"}, "l.jsonl:4: id is None"),
        ({"id": "z", "output_tokens": 1, "finish": "stop"}, "l.jsonl:4: no prompt has id 'z'"),
        ({"id": "c", "output_tokens": -3, "finish": "stop"}, "l.jsonl:4: output_tokens is -3; expected at least 1"),
        ({"id": "c", "output_tokens": 0, "finish": "stop"}, "l.jsonl:4: output_tokens is 0"),
        ({"id": "c", "output_tokens": 2.5, "finish": "stop"}, "l.jsonl:4: output_tokens is 2.5"),
        ({"id": "c", "output_tokens": True, "finish": "stop"}, "l.jsonl:4: output_tokens is True"),
        ({"id": "c", "output_tokens": 1}, "l.jsonl:4: finish is None"),
        ({"id": "b", "output_tokens": 1, "finish": "stop"}, "l.jsonl:4: sample 0 of id 'b' was given before"),
        (
            {"id": "c", "output_tokens": 1, "finish": "stop", "model": "other"},
            "l.jsonl:4: model is 'other'; .*l.jsonl:1 has ",
        ),
    ],
)
def test_a_bad_length_is_named_by_file_and_line(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, PROMPTS, [*LENGTHS, line])


def test_a_line_that_is_no_json_and_a_file_that_is_no_text(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text('{"id": "a", "prompt": "x"}\n{"id": \n')
    with pytest.raises(DataError, match="broken:2: not JSON"):
        load_labelled([broken], [])
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="broken: cannot be read"):
        load_labelled([broken], [])
    with pytest.raises(DataError, match="absent: cannot be read"):
        load_labelled([tmp_path / "absent"], [])


def test_a_journal_is_prompts_and_lengths_in_one(tmp_path: Path) -> None:
    line = {"outcome": "finished", "finish": "stop", "output_tokens": 5, "sequences": 1}
    journal = [
        {**line, "id": "1", "prompt": "Hi"},
        {**line, "id": "2", "prompt": "Hi", "output_tokens": 9, "finish": "length"},
        {**line, "id": "3", "prompt": "Bye"},
        {**line, "id": "4"},
        {**line, "id": "5", "prompt": "Two", "sequences": 2, "output_tokens": 7.5},
        {**line, "id": "6", "prompt": "Gone", "outcome": "cancelled", "finish": None},
    ]
    file = write(tmp_path / "journal", journal)
    first, second = load_labelled([file], [file])
    assert (first.text, first.samples) == ("Hi", (Sample(5, False), Sample(9, True)))
    assert (second.id, second.text) == ("3", "Bye")
