"""Where texts are cut: the rules, checked against any text."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.components.splitters import spans
from rag_opt.components.splitters.spans import Ruler
from rag_opt.text.tokenization import Span

TEXT = "One two three. Four five six seven. Eight nine.\n\nTen eleven twelve thirteen fourteen."
texts = st.text(alphabet="ab .\n水ก้", max_size=200)
sizes = st.integers(1, 12)


def read(text: str, found: list[Span]) -> list[str]:
    return [text[start:end] for start, end in found]


def sentences_in(text: str) -> list[Span]:
    ends = [match.end() for match in re.finditer(r"[.\n]+", text)]
    parts = [spans.trim_span(text, part) for part in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part[0] < part[1]]


def in_tokens(text: str) -> Ruler:
    """Tokens of two characters, as a tokenizer might cut words."""
    return Ruler.from_tokens(text, [found.span() for found in re.finditer(r"\S{1,2}", text)])


def read_windows(text: str, size: int, overlap: int = 0) -> list[str]:
    return read(text, spans.pack_windows(Ruler.from_words(text), (0, len(text)), size, overlap))


RULERS = [Ruler.from_words, Ruler.from_characters, in_tokens]


def test_windows_by_hand() -> None:
    assert read_windows("a b c d e f g", 3) == ["a b c", "d e f", "g"]
    assert read_windows("a b c d e f g", 3, 1) == ["a b c", "c d e", "e f g"]


def test_where_there_are_no_spaces_characters_are_words() -> None:
    assert read_windows("水獭住河边，吃鱼。", 4) == ["水獭住河", "边，吃鱼。"]
    assert read_windows("แม่น้ำ", 2) == ["แม่", "น้ำ"]
    assert read_windows("Python 3.11は、速い", 3) == ["Python 3.11は、", "速い"]


def test_a_run_too_long_for_a_word_is_cut() -> None:
    found = read_windows("see " + "x1/" * 70_000, 100)
    assert max(map(len, found)) <= 100 * 8 + 4
    assert "".join(found).replace(" ", "") == "see" + "x1/" * 70_000


def test_sizes_in_characters_count_the_spaces() -> None:
    text = "One two. Three four five.  Six"
    found = spans.pack_sentences(Ruler.from_characters(text), [(0, 8), (9, 25), (27, 30)], 16, 0)
    assert read(text, found) == ["One two.", "Three four five.", "Six"]
    assert read(text, spans.pack_windows(Ruler.from_characters(text), (0, len(text)), 10)) == [
        "One two.",
        "Three four",
        "five.  Six",
    ]


def test_sizes_in_tokens_keep_words_whole_that_fit() -> None:
    text = "abcd ab abcdefghij"
    assert read(text, spans.pack_windows(in_tokens(text), (0, len(text)), 3)) == ["abcd ab", "abcdef", "ghij"]


def test_sentences_are_packed_up_to_the_size() -> None:
    found = spans.pack_sentences(Ruler.from_words(TEXT), sentences_in(TEXT), 7, 0)
    assert read(TEXT, found) == [
        "One two three. Four five six seven.",
        "Eight nine.\n\nTen eleven twelve thirteen fourteen.",
    ]


def test_overlap_repeats_whole_sentences() -> None:
    found = spans.pack_sentences(Ruler.from_words(TEXT), sentences_in(TEXT), 8, 2)
    assert read(TEXT, found) == [
        "One two three. Four five six seven.",
        "Eight nine.\n\nTen eleven twelve thirteen fourteen.",
    ]
    found = spans.pack_sentences(Ruler.from_words(TEXT), sentences_in(TEXT), 9, 4)
    assert read(TEXT, found)[:2] == [
        "One two three. Four five six seven. Eight nine.",
        "Eight nine.\n\nTen eleven twelve thirteen fourteen.",
    ]


def test_recursive_keeps_paragraphs_that_fit() -> None:
    found = spans.split_recursively(Ruler.from_words(TEXT), sentences_in(TEXT), 9, 0)
    assert read(TEXT, found) == [
        "One two three. Four five six seven. Eight nine.",
        "Ten eleven twelve thirteen fourteen.",
    ]


def test_breaks_are_never_crossed() -> None:
    sentences = sentences_in(TEXT)
    found = spans.split_at_breaks(Ruler.from_words(TEXT), sentences, [True, False, True, False], 100)
    assert read(TEXT, found)[0] == "One two three."
    assert read(TEXT, found)[1] == "Four five six seven. Eight nine."


@given(texts, sizes, st.integers(0, 11), st.sampled_from(RULERS))
def test_every_character_is_in_a_chunk_and_no_chunk_is_too_long(
    text: str, size: int, overlap: int, ruler_of: Callable[[str], Ruler]
) -> None:
    overlap = min(overlap, size - 1)
    ruler = ruler_of(text)
    chunkings = [
        spans.pack_windows(ruler, (0, len(text)), size, overlap),
        spans.pack_sentences(ruler, sentences_in(text), size, overlap),
        spans.split_recursively(ruler, sentences_in(text), size, overlap),
        spans.split_at_breaks(ruler, sentences_in(text), [False] * len(sentences_in(text)), size),
    ]
    for found in chunkings:
        inside = {place for start, end in found for place in range(start, end)}
        assert all(place in inside for place, character in enumerate(text) if not character.isspace())
        assert all(1 <= ruler.count_units(span) <= size for span in found)
        assert found == sorted(found)


@given(texts, sizes, st.sampled_from(RULERS))
def test_without_overlap_chunks_are_disjoint(text: str, size: int, ruler_of: Callable[[str], Ruler]) -> None:
    ruler = ruler_of(text)
    for found in (
        spans.pack_sentences(ruler, sentences_in(text), size, 0),
        spans.split_recursively(ruler, sentences_in(text), size, 0),
    ):
        assert all(earlier[1] <= later[0] for earlier, later in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
def test_a_text_without_words_gives_no_chunk(text: str) -> None:
    for ruler in (Ruler.from_words(text), Ruler.from_characters(text), in_tokens(text)):
        assert spans.split_recursively(ruler, [], 5, 0) == []
        assert spans.pack_windows(ruler, (0, len(text)), 5) == []
