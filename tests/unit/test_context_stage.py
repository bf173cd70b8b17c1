"""What is read of what was ranked: wider, merged, in another order, within a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.context.assembler import ORDERS, Assembler, Piece, merge_pieces, order_pieces, widen_piece
from rag_opt.components.resources import Resources
from rag_opt.components.splitters.chunkers import NoSplitter, SentenceSplitter, WordSplitter
from rag_opt.components.splitters.sentences import get_sentences
from rag_opt.records.documents import Document, Documents
from rag_opt.records.products import Chunks, Rankings, Usage
from rag_opt.text.tokenization import count_tokens
from tests.unit.test_components import chunked, corpus, ranking

SENTENCES = [[(0, 10), (11, 20), (21, 30), (31, 40)], [(0, 5)]]


def assembled(found: Rankings, window: int = 0, merge: bool = False, order: str = "score", tokens: int | None = None):
    stage = Assembler(window, merge, order, tokens)
    stage.use(Resources.from_store(Store()))
    return stage.run(found, found.chunks.documents)["context"]


# ---- wider


@pytest.mark.parametrize(
    ("piece", "window", "span"),
    [
        ((0, 11, 20), 1, (0, 30)),
        ((0, 0, 10), 1, (0, 20)),
        ((0, 31, 40), 1, (21, 40)),
        ((0, 11, 20), 9, (0, 40)),
        ((0, 25, 35), 1, (11, 40)),  # in the middle of two sentences
        ((0, 13, 15), 1, (0, 30)),
        ((0, 10, 11), 1, (10, 11)),  # between two sentences
        ((0, 5, 50), 1, (0, 50)),  # more than the sentences have
        ((1, 0, 5), 3, (0, 5)),
        ((2, 3, 9), 3, (3, 9)),  # a page of the web has no sentences
    ],
)
def test_a_chunk_grows_by_whole_sentences_of_its_document(piece: tuple, window: int, span: tuple[int, int]) -> None:
    document, start, end = piece
    assert widen_piece(Piece(document, start, end, 7), SENTENCES, window) == Piece(document, *span, 7)


def test_neighbouring_sentences_are_read_with_what_was_found() -> None:
    text = "The cat sleeps inside. The dog runs outside. The bird flies away. The fish keeps swimming. The bee makes honey."
    chunks = SentenceSplitter(4, 0).run(corpus(text))["chunks"]
    assert len(chunks) == 5
    context = assembled(ranking(chunks, [(2, 2.0), (0, 1.0)]), window=1)
    assert context.get_texts(0) == [
        "The dog runs outside. The bird flies away. The fish keeps swimming.",
        "The cat sleeps inside. The dog runs outside.",
    ]


# ---- merged


def test_what_overlaps_or_touches_becomes_one_at_the_place_of_the_better() -> None:
    given_pieces = [
        Piece(0, 11, 20, 0),
        Piece(1, 0, 5, 1),
        Piece(0, 0, 10, 2),
        Piece(0, 30, 40, 3),
        Piece(0, 35, 38, 4),
    ]
    assert merge_pieces(given_pieces) == [Piece(0, 0, 20, 0), Piece(1, 0, 5, 1), Piece(0, 30, 40, 3)]


@pytest.mark.parametrize(("gap", "count"), [(-3, 1), (0, 1), (1, 1), (2, 2)])
def test_one_character_between_pieces_is_merged_over_two_are_not(gap: int, count: int) -> None:
    assert len(merge_pieces([Piece(0, 0, 10, 0), Piece(0, 10 + gap, 20, 1)])) == count


def test_a_chain_of_pieces_takes_the_best_place_of_all() -> None:
    assert merge_pieces([Piece(0, 20, 30, 0), Piece(1, 0, 9, 1), Piece(0, 0, 10, 2), Piece(0, 9, 21, 3)]) == [
        Piece(0, 0, 30, 0),
        Piece(1, 0, 9, 1),
    ]


def test_the_same_characters_of_other_documents_stay_apart() -> None:
    pieces = [Piece(0, 0, 10, 0), Piece(1, 0, 10, 1)]
    assert merge_pieces(pieces) == pieces


def test_a_piece_within_another_leaves_the_other_as_it_is() -> None:
    assert merge_pieces([Piece(0, 10, 20, 0), Piece(0, 0, 100, 1), Piece(0, 50, 60, 2)]) == [Piece(0, 0, 100, 0)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(1, 9)), max_size=10))
def test_merged_pieces_cover_what_was_there_and_do_not_overlap(drawn: list[tuple[int, int, int]]) -> None:
    pieces = [Piece(document, start, start + size, place) for place, (document, start, size) in enumerate(drawn)]
    found = merge_pieces(pieces)

    def characters(of: list[Piece]) -> list[tuple[int, int]]:
        return [(piece.document, place) for piece in of for place in range(piece.start, piece.end)]

    covered, before = characters(found), set(characters(pieces))
    assert len(covered) == len(set(covered))
    assert before <= set(covered)
    # Beside these only single characters that stood between two pieces.
    assert all({(document, place - 1), (document, place + 1)} <= before for document, place in set(covered) - before)
    for piece in found:
        inside = [p.place for p in pieces if p.document == piece.document and piece.start <= p.start < piece.end]
        assert piece.place == min(inside)
    assert [piece.place for piece in found] == sorted(piece.place for piece in found)
    assert merge_pieces(found) == found


# ---- in order


def five(documents: str = "00000") -> list[Piece]:
    return [Piece(int(document), 90 - 10 * place, 95, place) for place, document in enumerate(documents, 1)]


def places(pieces: list[Piece]) -> list[int]:
    return [piece.place for piece in pieces]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 3, 2]), (4, [1, 3, 4, 2]), (5, [1, 3, 5, 4, 2])]
)
def test_the_best_stand_at_both_ends(count: int, expected: list[int]) -> None:
    assert places(order_pieces(five()[:count], "ends")) == expected


def test_by_score_is_as_given() -> None:
    assert places(order_pieces(five(), "score")) == [1, 2, 3, 4, 5]


def test_by_document_in_reading_order_documents_by_their_best_piece() -> None:
    """Document 2 holds places 1 and 4, document 0 places 2 and 5, document 1 place 3; later places start earlier."""
    assert places(order_pieces(five("20120"), "document")) == [4, 1, 5, 2, 3]


def test_scores_say_nothing_but_the_order() -> None:
    context = assembled(ranking(chunked("a", "b", "c"), [(2, 9.0), (0, 8.0), (1, 7.0)]), order="ends")
    assert context.get_texts(0) == ["c", "b", "a"]
    assert [score for _, score in context.get_hits(0)] == pytest.approx([1, 1 / 2, 1 / 3])


# ---- within a budget


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        (1, ["a b c d"]),  # the best one always
        (4, ["a b c d"]),
        (6, ["a b c d", "h i"]),  # the second is too long, the third is not
        (7, ["a b c d", "e f g"]),
        (8, ["a b c d", "e f g", "j"]),
        (None, ["a b c d", "e f g", "h i", "j"]),
    ],
)
def test_the_best_are_kept_while_they_fit(tokens: int | None, kept: list[str]) -> None:
    found = ranking(chunked("j", "h i", "e f g", "a b c d"), [(3, 4.0), (2, 3.0), (1, 2.0), (0, 1.0)])
    assert assembled(found, tokens=tokens).get_texts(0) == kept


def test_the_budget_goes_by_score_whatever_the_order() -> None:
    found = ranking(chunked("a b", "c d", "e f"), [(2, 3.0), (0, 2.0), (1, 1.0)])
    assert assembled(found, order="ends", tokens=4).get_texts(0) == ["e f", "a b"]


# ---- the stage


def test_a_query_without_hits_reads_nothing() -> None:
    found = ranking(chunked("a b", "c d"), [], [(1, 1.0)], [])
    for order in ORDERS:
        context = assembled(found, 1, True, order, 9)
        assert [context.get_texts(query) for query in range(3)] == [[], ["c d"], []]


@pytest.mark.parametrize("width", [0, 3])
def test_rankings_with_no_hit_at_all_read_nothing(width: int) -> None:
    rows, scores = np.full((2, width), -1, np.int32), np.full((2, width), -np.inf, np.float32)
    context = assembled(Rankings(chunked("a b"), rows, scores, "k"), 2, True, "document", 5)
    assert context.get_texts(0) == context.get_texts(1) == []
    assert len(context.chunks) == 0


def test_the_same_piece_for_two_queries_is_one_chunk() -> None:
    context = assembled(ranking(chunked("a b", "c d"), [(1, 2.0), (0, 1.0)], [(0, 1.0)]))
    assert len(context.chunks) == 2
    assert context.get_texts(1) == ["a b"]


def test_the_ranking_stays_and_what_it_cost_is_taken_along() -> None:
    one = np.ones(1, np.int32)
    usage = Usage("reranker", one, one, one, one.astype(float), one)
    plain = ranking(chunked("a b", "c d"), [(1, 2.0), (0, 1.0)])
    found = Rankings(plain.chunks, plain.rows, plain.scores, "k", {"earlier": 2.0}, {"earlier": usage})
    context = assembled(found, order="ends")
    assert found.rows.tolist() == [[1, 0]]
    assert context.costs["earlier"] == 2.0
    assert context.usage == {"earlier": usage}
    assert context.key != found.key


def test_a_page_of_the_web_is_read_as_it_was_found() -> None:
    chunks = chunked("The cat sat. The dog ran.").append_documents(
        (Document("web", "A page. Of the web. It is long."),)
    )
    found = ranking(chunks, [(1, 2.0), (0, 1.0)])
    stage = Assembler(1, True, "score", None)
    stage.use(Resources.from_store(Store()))
    context = stage.run(found, corpus("The cat sat. The dog ran."))["context"]
    assert context.get_texts(0) == ["A page. Of the web. It is long.", "The cat sat. The dog ran."]
    assert context.chunks.document_ids == ["web", "d0"]


def test_titles_are_no_part_of_what_is_read() -> None:
    chunks = NoSplitter().run(Documents((Document("a", "body text", "Title"),), "k"))["chunks"]
    assert assembled(ranking(chunks, [(0, 1.0)])).get_texts(0) == ["body text"]


@pytest.mark.parametrize(
    "wrong", [(-1, True, "score", None), (1, "yes", "score", 9), (1, True, "best", 9), (1, True, "score", 0)]
)
def test_what_cannot_be_assembled_is_refused(wrong: tuple) -> None:
    with pytest.raises(ValueError, match="window|merge|order|max_tokens"):
        Assembler(*wrong)


SENTENCE = st.lists(st.sampled_from("cat dog bird fish tree".split()), min_size=1, max_size=5).map(
    lambda words: f"{' '.join(words).capitalize()} rests."
)
TEXT = st.lists(SENTENCE, min_size=1, max_size=6).map(" ".join)


@st.composite
def found_in(draw) -> tuple[Chunks, list[list[int]]]:
    chunks = WordSplitter(draw(st.integers(1, 6))).run(corpus(*draw(st.lists(TEXT, min_size=1, max_size=4))))["chunks"]
    order = st.lists(st.integers(0, len(chunks) - 1), unique=True, max_size=8)
    return chunks, draw(st.lists(order, min_size=1, max_size=3))


@given(found_in(), st.integers(0, 2), st.booleans(), st.sampled_from(ORDERS), st.none() | st.integers(1, 30))
@settings(max_examples=150)
def test_what_is_read_is_in_one_document_holds_what_was_found_and_fits(
    case: tuple, window: int, merge: bool, order: str, tokens: int | None
) -> None:
    chunks, lists = case
    found = ranking(chunks, *[[(row, 1.0) for row in each] for each in lists])
    context = assembled(found, window, merge, order, tokens)
    documents = chunks.documents.items
    sentences = get_sentences(chunks.documents, Store())

    def span(of: Chunks, row: int) -> tuple[int, int, int]:
        return int(of.document_rows[row]), int(of.starts[row]), int(of.ends[row])

    for query, rows in enumerate(lists):
        read = [span(context.chunks, row) for row, _ in context.get_hits(query)]
        assert bool(read) == bool(rows)
        for document, start, end in read:
            assert 0 <= start < end <= len(documents[document].text)
            if window:
                assert start in {first for first, _ in sentences[document]}
                assert end in {last for _, last in sentences[document]}
        assert context.get_texts(query) == [documents[row].text[start:end] for row, start, end in read]

        def within(row: int, read: list = read) -> bool:
            document, start, end = span(chunks, row)
            return any(document == other and first <= start and end <= last for other, first, last in read)

        if rows:
            assert within(rows[0]), "the best chunk is always read"
        if tokens is None:
            assert all(within(row) for row in rows)
            assert merge or len(read) == len(rows)
        elif len(read) > 1:
            assert sum(count_tokens(text) for text in context.get_texts(query)) <= tokens
        if merge:
            ends = sorted(read)
            assert all(a[0] < b[0] or a[2] + 1 < b[1] for a, b in zip(ends, ends[1:], strict=False))
