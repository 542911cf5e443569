from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ssjf_client import ClientError, Generation, InvalidRequest, ServerUnavailable
from ssjf_client.exchange import FinishReason
from ssjf_tools.proxy import label
from ssjf_tools.proxy.data import DataError, load_labelled
from ssjf_tools.proxy.label import Labels, Task, measure, open_tasks

PROMPTS = {"a": "one", "b": "two two", "c": "three"}
ASKED = {"model": "m", "max_tokens": 1024}


def generation(tokens: int | None, finish: FinishReason | None = "stop") -> Generation:
    return Generation("", "", finish, None, None, 3, tokens, None, 0.0, complete=True)


class Server:
    """Answers with as many tokens as the prompt has characters; fails as told; notes how much ran at once."""

    def __init__(self, errors: dict[str, list[ClientError]] | None = None) -> None:
        self.errors = errors or {}
        self.running = self.most = 0
        self.seeds: list[int] = []

    async def answer(self, text: str, seed: int) -> Generation:
        self.seeds.append(seed)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.errors.get(text):
            raise self.errors[text].pop(0)
        return generation(len(text), "length" if text == "three" else "stop")


def run(server: Server, tasks: list[Task], out: Path, concurrency: int = 2) -> int:
    with out.open("a") as file:
        return asyncio.run(
            measure(tasks, server.answer, Labels(file, ASKED), concurrency, lambda _done, _total: None, pause_s=0)
        )


def test_labels_are_what_training_reads(tmp_path: Path) -> None:
    out = tmp_path / "lengths.jsonl"
    server = Server()
    assert run(server, open_tasks(PROMPTS, 2, out, ASKED), out) == 0
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": key, "prompt": text}) + "\n" for key, text in PROMPTS.items()))
    labelled = {prompt.id: prompt.samples for prompt in load_labelled([prompts], [out])}
    assert [(sample.tokens, sample.censored) for sample in labelled["b"]] == [(7, False)] * 2
    assert [(sample.tokens, sample.censored) for sample in labelled["c"]] == [(5, True)] * 2
    assert server.most == 2
    assert len(set(server.seeds)) == 6


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "lengths.jsonl"
    run(Server(), open_tasks(PROMPTS, 1, out, ASKED)[:2], out)
    with out.open("a") as file:
        file.write('{"id": "c", "sam')  # killed while writing
    left = open_tasks(PROMPTS, 2, out, ASKED)
    assert [(task.id, task.sample) for task in left] == [("c", 0), ("a", 1), ("b", 1), ("c", 1)]
    run(Server(), left, out)
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["a", "b", "c", "a", "b", "c"]
    assert open_tasks(PROMPTS, 2, out, ASKED) == []


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lengths.jsonl"
    server = Server({"one": [ServerUnavailable("full")] * 4, "two two": [InvalidRequest("too long")]})
    assert run(server, open_tasks(PROMPTS, 1, out, ASKED), out) == 1
    assert [json.loads(line)["id"] for line in sorted(out.read_text().splitlines())] == ["a", "c"]
    assert len(server.seeds) == 5 + 1 + 1
    assert "b: too long" in capsys.readouterr().err


def test_a_server_that_stays_away_is_given_up(tmp_path: Path) -> None:
    server = Server({"one": [ServerUnavailable("full")] * 99})
    assert run(server, open_tasks({"a": "one"}, 1, tmp_path / "x", ASKED), tmp_path / "x") == 1
    assert len(server.seeds) == 5


def test_a_server_that_does_not_count_is_an_error(tmp_path: Path) -> None:
    async def answer(text: str, seed: int) -> Generation:
        return generation(None, None)

    with (tmp_path / "x").open("a") as file:
        tasks = open_tasks({"a": "one"}, 1, tmp_path / "x", ASKED)
        assert asyncio.run(measure(tasks, answer, Labels(file, ASKED), 1, lambda _done, _total: None)) == 1
    assert (tmp_path / "x").read_text() == ""


def test_an_output_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("[1]\n")
    with pytest.raises(DataError, match="out:1: not a line of labels"):
        open_tasks(PROMPTS, 1, tmp_path / "out", ASKED)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({**ASKED, "max_tokens": 512}, "out:1: max_tokens is 1024, now it is 512"),
        ({**ASKED, "temperature": 0.0}, "out:1: temperature is None, now it is 0.0"),
        ({"max_tokens": 1024}, "out:1: model is 'm', now it is None"),
    ],
)
def test_answers_to_another_question_do_not_join_the_file(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    out = tmp_path / "out"
    run(Server(), open_tasks(PROMPTS, 1, out, ASKED)[:1], out)
    with pytest.raises(DataError, match=message):
        open_tasks(PROMPTS, 1, out, asked)


def test_the_command_names_bad_prompts_and_asks_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts").write_text("{}\n")
    assert label.main(["--prompts", str(tmp_path / "prompts"), "--out", str(tmp_path / "out")]) == 1
    assert "prompts:1: id is None" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
