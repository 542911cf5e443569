from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.byte_tokenizer import END, byte_tokenizer
from tokenizer.detokenizer import StopWordFilter, StreamDecoder

TOKENIZER = byte_tokenizer()
END_ID: int = TOKENIZER.token_to_id(END)  # type: ignore[assignment]
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=60)


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def cut(items: list[int], sizes: list[int]) -> list[list[int]]:
    """Split a list into pieces of the given sizes; the rest is the last piece."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(items[at : at + size])
        at += size
    return [*pieces, items[at:]]


@given(TEXT, st.lists(st.integers(1, 4), max_size=40))
def test_pieces_join_to_the_text_and_never_hold_half_a_character(text: str, sizes: list[int]) -> None:
    decoder = StreamDecoder(TOKENIZER)
    pieces = [decoder.push(piece) for piece in cut(ids_of(text), sizes)]
    assert "".join([*pieces, decoder.finish()]) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_unfinished_character_at_the_end_is_dropped() -> None:
    decoder = StreamDecoder(TOKENIZER)
    assert decoder.push(ids_of("ok é")[:-1]) + decoder.finish() == "ok "


def test_special_tokens_leave_no_text() -> None:
    decoder = StreamDecoder(TOKENIZER)
    assert decoder.push([*ids_of("bye"), END_ID]) + decoder.finish() == "bye"


@given(
    st.text(alphabet="abc", max_size=30),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(1, 3), max_size=30),
)
def test_text_is_cut_before_the_first_stop_word_wherever_tokens_end(
    text: str, words: list[str], sizes: list[int]
) -> None:
    decoder = StreamDecoder(TOKENIZER, words)
    streamed = "".join(decoder.push(piece) for piece in cut(ids_of(text), sizes)) + decoder.finish()
    # A stop word counts once it is complete; of those complete at the same character the earliest start wins.
    ends = [at for at in range(len(text) + 1) if any(text[:at].endswith(word) for word in words)]
    if not ends:
        assert streamed == text
        assert not decoder.stopped
        return
    assert decoder.stopped
    assert all(word not in streamed for word in words)
    assert text.startswith(streamed)
    starts = [at for at in (text.find(word) for word in words) if at >= 0]
    assert min(starts) <= len(streamed) <= ends[0]


def test_text_that_may_begin_a_stop_word_is_held_back_until_decided() -> None:
    words = StopWordFilter(["\n\n"])
    assert words.push("one\n") == "one"
    assert words.push("two") == "\ntwo"
    assert words.push("\n") == ""
    assert words.finish() == "\n"


def test_nothing_follows_a_stop_word() -> None:
    words = StopWordFilter(["END"])
    assert words.push("text EN") == "text "
    assert words.push("D more") == ""
    assert words.stopped
    assert words.push("still more") + words.finish() == ""
