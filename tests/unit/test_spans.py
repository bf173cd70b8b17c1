"""Where texts are cut: the rules, checked against any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.components import spans

TEXT = "One two three. Four five six seven. Eight nine.\n\nTen eleven twelve thirteen fourteen."
texts = st.text(alphabet="ab .\n", max_size=200)
sizes = st.integers(1, 12)


def read(text: str, found: list[spans.Span]) -> list[str]:
    return [text[start:end] for start, end in found]


def sentences_in(text: str) -> list[spans.Span]:
    import re

    ends = [match.end() for match in re.finditer(r"[.\n]+", text)]
    parts = [spans.trimmed(text, part) for part in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part[0] < part[1]]


def test_windows_by_hand() -> None:
    units = spans.words("a b c d e f g", (0, 13))
    assert read("a b c d e f g", spans.windows(units, 3)) == ["a b c", "d e f", "g"]
    assert read("a b c d e f g", spans.windows(units, 3, 1)) == ["a b c", "c d e", "e f g"]


def test_sentences_are_packed_up_to_the_size() -> None:
    found = spans.by_sentence(TEXT, sentences_in(TEXT), 7, 0)
    assert read(TEXT, found) == [
        "One two three. Four five six seven.",
        "Eight nine.\n\nTen eleven twelve thirteen fourteen.",
    ]


def test_overlap_repeats_whole_sentences() -> None:
    found = spans.by_sentence(TEXT, sentences_in(TEXT), 8, 2)
    assert read(TEXT, found) == [
        "One two three. Four five six seven.",
        "Eight nine.\n\nTen eleven twelve thirteen fourteen.",
    ]
    found = spans.by_sentence(TEXT, sentences_in(TEXT), 9, 4)
    assert read(TEXT, found)[:2] == [
        "One two three. Four five six seven. Eight nine.",
        "Eight nine.\n\nTen eleven twelve thirteen fourteen.",
    ]


def test_recursive_keeps_paragraphs_that_fit() -> None:
    found = spans.recursive(TEXT, sentences_in(TEXT), 9, 0)
    assert read(TEXT, found) == [
        "One two three. Four five six seven. Eight nine.",
        "Ten eleven twelve thirteen fourteen.",
    ]


def test_breaks_are_never_crossed() -> None:
    sentences = sentences_in(TEXT)
    found = spans.at_breaks(TEXT, sentences, [True, False, True, False], 100)
    assert read(TEXT, found)[0] == "One two three."
    assert read(TEXT, found)[1] == "Four five six seven. Eight nine."


@given(texts, sizes, st.integers(0, 11))
def test_every_character_is_in_a_chunk_and_no_chunk_is_too_long(text: str, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    words = spans.words(text, (0, len(text)))
    chunkings = [
        spans.windows(words, size, overlap),
        spans.by_sentence(text, sentences_in(text), size, overlap),
        spans.recursive(text, sentences_in(text), size, overlap),
        spans.at_breaks(text, sentences_in(text), [False] * len(sentences_in(text)), size),
    ]
    for found in chunkings:
        inside = {place for start, end in found for place in range(start, end)}
        assert all(place in inside for place, character in enumerate(text) if not character.isspace())
        assert all(1 <= len(spans.words(text, span)) <= size for span in found)
        assert found == sorted(found)


@given(texts, sizes)
def test_without_overlap_chunks_are_disjoint(text: str, size: int) -> None:
    for found in (
        spans.by_sentence(text, sentences_in(text), size, 0),
        spans.recursive(text, sentences_in(text), size, 0),
    ):
        assert all(earlier[1] <= later[0] for earlier, later in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
def test_a_text_without_words_gives_no_chunk(text: str) -> None:
    assert spans.recursive(text, [], 5, 0) == []
    assert spans.windows(spans.words(text, (0, len(text))), 5) == []
