"""What is read of what was ranked: widened, merged, put in order, cut to a budget."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from rag_opt.components.checks import require, require_whole
from rag_opt.components.splitters.sentences import get_sentences
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Documents
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Rankings
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import Span, count_tokens

ORDERS = ("score", "document", "ends")


@dataclass(frozen=True)
class Piece:
    """Characters [start, end) of document number `document`, and the place of the best chunk it is made of."""

    document: int
    start: int
    end: int
    place: int


@component
class Assembler(Stage):
    """The ranked chunks → what the generator reads; the ranking itself stays as it is.

    - `window`: each chunk grows by so many sentences of its document on both sides;
    - `merge`: chunks of a document that overlap or touch become one, at the place of the better;
    - `max_tokens`: of these the best are kept while they fit (None: all); the best one is always kept;
    - `headings`: what stands above a chunk is read in front of it, as "Manual > Setup" (of files);
    - `order`: by score, by document (as they stand there, documents by their best chunk), or ends: the best first, the
      second last, and so on towards the middle, which long contexts hide (Liu et al. 2023, arXiv 2307.03172).
    """

    algorithm = "rag_opt.components.context.Assembler"

    def __init__(self, window: int, merge: bool, order: str, max_tokens: int | None, headings: bool = False) -> None:
        require_whole("window", window, 0)
        require(isinstance(merge, bool), f"merge must be true or false, not {merge}")
        require(order in ORDERS, f"order must be one of {', '.join(ORDERS)}, not {order}")
        require(isinstance(headings, bool), f"headings must be true or false, not {headings}")
        if max_tokens is not None:
            require_whole("max_tokens", max_tokens)
        self.window = window
        self.merge = merge
        self.order = order
        self.max_tokens = max_tokens
        self.headings = headings

    @component.output_types(context=Rankings)
    def run(self, ranking: Rankings, documents: Documents) -> dict[str, Rankings]:
        start = time.perf_counter()
        # Only where sentences are added, since Punkt must learn from the whole corpus first.
        spans = get_sentences(documents, self.store) if self.window else []
        made = [self._assemble(row, ranking, spans) for row in range(len(ranking.rows))]
        key = compute_key(self.fingerprint, ranking.key)
        cost = {key: (time.perf_counter() - start) / max(1, len(made))}
        return {"context": _build_rankings(ranking, made, key, cost, headed=self.headings).add_costs(ranking)}

    def _assemble(self, query: int, ranking: Rankings, sentences: list[list[Span]]) -> list[Piece]:
        chunks = ranking.chunks
        rows = [row for row in ranking.rows[query].tolist() if row >= 0]
        pieces = [
            Piece(int(chunks.document_rows[row]), int(chunks.starts[row]), int(chunks.ends[row]), place)
            for place, row in enumerate(rows)
        ]
        if self.window:
            pieces = [widen_piece(piece, sentences, self.window) for piece in pieces]
        if self.merge:
            pieces = merge_pieces(pieces)
        # The budget goes by score, so it is spent before the pieces are put in another order.
        return order_pieces(self._limit_tokens(pieces, chunks), self.order)

    def _limit_tokens(self, pieces: list[Piece], chunks: Chunks) -> list[Piece]:
        if self.max_tokens is None:
            return pieces
        kept: list[Piece] = []
        room = self.max_tokens
        for piece in pieces:
            size = count_tokens(chunks.documents.items[piece.document].text[piece.start : piece.end])
            # One that does not fit is passed over: a shorter one behind it may fit.
            if size <= room or not kept:
                kept.append(piece)
                room -= size
        return kept


def widen_piece(piece: Piece, sentences: list[list[Span]], window: int) -> Piece:
    """The piece with `window` more sentences of its document on both sides; a page of the web has none."""
    spans = sentences[piece.document] if piece.document < len(sentences) else []
    inside = [number for number, (start, end) in enumerate(spans) if start < piece.end and end > piece.start]
    if not inside:
        return piece
    first, last = max(0, inside[0] - window), min(len(spans) - 1, inside[-1] + window)
    return Piece(piece.document, min(piece.start, spans[first][0]), max(piece.end, spans[last][1]), piece.place)


def merge_pieces(pieces: list[Piece]) -> list[Piece]:
    """Pieces of a document that overlap, or have at most one character between them, as one; by place."""
    found: list[Piece] = []
    for piece in sorted(pieces, key=lambda each: (each.document, each.start, each.end)):
        last = found[-1] if found else None
        # The one character between them is the space at which a splitter has cut.
        if last is not None and last.document == piece.document and piece.start <= last.end + 1:
            found[-1] = Piece(last.document, last.start, max(last.end, piece.end), min(last.place, piece.place))
        else:
            found.append(piece)
    return sorted(found, key=lambda each: each.place)


def order_pieces(pieces: list[Piece], order: str) -> list[Piece]:
    """Pieces, given by score, in the order in which they are read."""
    if order == "document":
        best: dict[int, int] = {}
        for piece in pieces:
            best.setdefault(piece.document, piece.place)
        return sorted(pieces, key=lambda each: (best[each.document], each.start))
    return [*pieces[::2], *pieces[1::2][::-1]] if order == "ends" else pieces


def _build_rankings(
    ranking: Rankings, made: list[list[Piece]], key: str, cost: dict[str, float], *, headed: bool
) -> Rankings:
    distinct = {(p.document, p.start, p.end): None for pieces in made for p in pieces}
    rows = {span: row for row, span in enumerate(distinct)}
    # Of no pieces at all NumPy would make an array without the three columns.
    columns = np.array(list(distinct), np.int32).reshape(-1, 3)
    spans = (columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy())
    chunks = Chunks(ranking.chunks.documents, *spans, key, headed=headed)
    width = max(map(len, made), default=0)
    found = np.full((len(made), width), -1, np.int32)
    scores = np.full((len(made), width), -np.inf, np.float32)
    for query, pieces in enumerate(made):
        found[query, : len(pieces)] = [rows[p.document, p.start, p.end] for p in pieces]
        # An order, not a relevance: greater is read earlier.
        scores[query, : len(pieces)] = 1 / np.arange(1, len(pieces) + 1)
    return Rankings(chunks, found, scores, key, cost)
