from __future__ import annotations

from pathlib import Path

import pytest

from ssjf.core.errors import InvalidRequest
from tests.unit.byte_tokenizer import write_tokenizer_dir
from tokenizer.text import TextSettings, TextTokenizer

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tokenizer_dir(tmp_path / "tokenizer", TEMPLATE)


def test_a_raw_prompt_is_tokenized_as_it_is(folder: Path) -> None:
    tokenizer = TextTokenizer.from_dir(folder, TextSettings(prompt_format="raw"))
    assert tokenizer.tokenizer.decode(tokenizer.encode("héllo".encode())) == "héllo"


def test_a_chat_prompt_is_put_into_the_template(folder: Path) -> None:
    tokenizer = TextTokenizer.from_dir(folder, TextSettings(prompt_format="chat", system_prompt="Be brief."))
    assert tokenizer.render("Hi") == "[system]Be brief.<|end|>[user]Hi<|end|>[assistant]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "text_input is 'empty text'"),
        (b" \n\t", "text_input is 'empty text'"),
        (b"ab\xff", "byte 0xff at 2"),
        (b"x" * 200, "200 bytes"),
        (b"x" * 64, "64 tokens"),
    ],
)
def test_a_bad_prompt_is_refused_with_field_and_limit(folder: Path, text: bytes, message: str) -> None:
    tokenizer = TextTokenizer.from_dir(folder, TextSettings(max_context_tokens=64, max_prompt_bytes=100))
    with pytest.raises(InvalidRequest, match=message) as caught:
        tokenizer.encode(text)
    assert caught.value.field == "text_input"


def test_the_longest_prompt_that_leaves_room_for_one_token_is_taken(folder: Path) -> None:
    tokenizer = TextTokenizer.from_dir(folder, TextSettings(max_context_tokens=64))
    assert len(tokenizer.encode(b"x" * 63)) == 63


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist"):
        TextTokenizer.from_dir(tmp_path, TextSettings())


def test_chat_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no chat_template"):
        TextTokenizer.from_dir(write_tokenizer_dir(tmp_path), TextSettings(prompt_format="chat"))
