from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssjf.service.text_stream import TextStream
from tests.unit.byte_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="�"), max_size=30)


def stream(text: str, cuts: list[int], stop_words: tuple[str, ...] = ()) -> tuple[str, TextStream]:
    """The answer as an engine sends it: ever longer beginnings of its bytes, half characters as U+FFFD."""
    data = text.encode()
    decoder = TextStream(TOKENIZER, stop_words)
    pieces = [decoder.push(data[:cut].decode("utf-8", "replace")) for cut in sorted({*cuts, len(data)})]
    return "".join([*pieces, decoder.finish()]), decoder


@given(TEXTS, st.lists(st.integers(0, 120), max_size=10))
def test_pieces_join_to_the_text_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    joined, decoder = stream(text, [min(cut, len(text.encode())) for cut in cuts])
    assert joined == text
    assert decoder.tokens == len(text.encode())
    assert not decoder.stopped


@given(st.text("abc", max_size=20), st.text("abc", min_size=1, max_size=3), st.lists(st.integers(0, 20), max_size=10))
def test_text_ends_before_the_first_stop_word(text: str, word: str, cuts: list[int]) -> None:
    joined, decoder = stream(text, [min(cut, len(text)) for cut in cuts], (word,))
    assert joined == text.split(word, maxsplit=1)[0]
    assert decoder.stopped == (word in text)


def test_tokens_are_estimated_while_the_answer_grows() -> None:
    decoder = TextStream(TOKENIZER)
    decoder.push("ab")
    assert decoder.tokens == 2
    decoder.push("ab")
    assert decoder.tokens == 2
    decoder.push("abé")
    assert decoder.tokens == 4
