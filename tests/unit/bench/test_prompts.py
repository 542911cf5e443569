"""The bundled set is fit for use; files of one's own are checked line by line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ssjf_tools.bench.live.prompts import BUNDLED, Prompt, load_prompts
from ssjf_tools.simulate.tables import InputError


def test_bundled_set() -> None:
    prompts = load_prompts(BUNDLED)
    assert len(prompts) >= 300
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert max(len(prompt.text) for prompt in prompts) < 1000
    kinds = {prompt.id.rsplit("-", 1)[0] for prompt in prompts}
    assert {"capital", "topic", "summarise", "essay", "story", "code"} <= kinds


@pytest.mark.parametrize("packed", [False, True])
def test_own_file(tmp_path: Path, packed: bool) -> None:
    text = '{"prompt": "a"}\n\n{"id": "x", "prompt": "b", "max_tokens": 7, "source": "mine"}\n'
    path = tmp_path / "p.jsonl"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert load_prompts(path) == [Prompt("1", "a"), Prompt("x", "b", 7)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no json", "line 2: is not a JSON object"),
        ("[1]", "line 2: is not a JSON object"),
        ('{"text": "a"}', "line 2, column prompt: is missing; the line has: text"),
        ('{"prompt": "  "}', "line 2, column prompt: is '  ', expected a text"),
        ('{"prompt": 3}', "line 2, column prompt: is 3, expected a text"),
        ('{"prompt": "a", "id": "first"}', "line 2, column id: is 'first', as in a line above"),
        ('{"prompt": "a", "id": []}', "line 2, column id: is [], expected a text"),
        ('{"prompt": "a", "max_tokens": 0}', "line 2, column max_tokens: is 0, expected a whole number from 1 up"),
        ('{"prompt": "a", "max_tokens": -5}', "line 2, column max_tokens: is -5"),
        ('{"prompt": "a", "max_tokens": true}', "line 2, column max_tokens: is True"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"id": "first", "prompt": "x"}) + "\n" + line + "\n")
    with pytest.raises(InputError) as raised:
        load_prompts(path)
    assert f"{path}, {complaint}" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
def test_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="has no prompts"):
        load_prompts(path)


@pytest.mark.parametrize("content", [gzip.compress(b'{"prompt": "a"}', mtime=0)[:-9], b"\xff\xfe\xfd"])
def test_unreadable_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        load_prompts(path)
