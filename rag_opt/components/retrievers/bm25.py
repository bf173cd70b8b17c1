"""BM25 by bm25s (Lù 2024, arXiv 2407.03618): index and retriever.

What k1, b and the variant have no part in — which word stands how often in which chunk — is counted once and kept; an
index is that, weighed, which takes milliseconds. The scorers are bm25s' own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag_opt.components.checks import require, require_number, require_whole
from rag_opt.components.own_documents import Pair, Search, exclude_own
from rag_opt.components.query.feedback import Feedback, transpose_counts
from rag_opt.components.ranking import compute_rankings, select_top
from rag_opt.components.retrievers.fusion import fuse_variants
from rag_opt.components.retrievers.term_counts import ARRAYS, Counts, get_counts, make_counts_key
from rag_opt.components.stage import Stage
from rag_opt.components.tokenization import Reading, check_reading, tokenize_texts
from rag_opt.records.documents import Ints, Queries, Record
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Rankings, Searches
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import AUTO

VARIANTS = ("robertson", "lucene", "atire", "bm25l", "bm25+")
STRANGE = 0.05
"""The share of questions without a known word from which it is said."""

MOST_WEIGHT = 100

KEPT = 2
"""Indexes that stay in memory: each k1 and b makes another, and their rankings are kept on disk."""


@dataclass(frozen=True, eq=False)
class BM25Index(Record):
    """A BM25 index over chunks.

    `model()` gives bm25s' (None where no chunk has a word that counts), made when asked for: a ranking that is in the
    store needs none. size() are the bytes of its word counts.
    """

    chunks: Chunks
    reading: Reading
    model: Callable[[], Any]
    counts: Callable[[], Counts]
    size: Callable[[], int]
    took: Callable[[], float]
    key: str

    @property
    def seconds(self) -> float:
        """What counting the words took, whenever that was; 0 before it was needed."""
        return self.took()


@component
class BM25Indexer(Stage):
    """Chunks → BM25 index.

    k1 saturates term frequency, b normalises length. Stop words and stemmer name a language; `language` is that of the
    texts where its capitals are its own (AUTO: the stemmer's). Stop words and stemmer may be AUTO, too: those of the
    language that most documents are in. Without `accents` é is e. A title's words count `title_weight` times in each
    chunk of its document.
    """

    algorithm = "rag_opt.components.bm25.BM25Indexer"

    def __init__(
        self,
        k1: float,
        b: float,
        variant: str,
        stemmer: str | None,
        stopwords: str | None,
        language: str = AUTO,
        title_weight: float = 1.0,
        accents: bool = True,
    ) -> None:
        require_number("k1", k1, 0)
        require_number("b", b, 0, 1)
        require(variant in VARIANTS, f"variant must be one of {', '.join(VARIANTS)}, not {variant}")
        check_reading(stemmer, stopwords, language)
        require_number("title_weight", title_weight, 0, MOST_WEIGHT)
        require(isinstance(accents, bool), f"accents must be true or false, not {accents}")
        self.k1 = k1
        self.b = b
        self.variant = variant
        self.stemmer = stemmer
        self.stopwords = stopwords
        self.language = language
        self.title_weight = title_weight
        self.accents = accents

    @component.output_types(bm25_index=BM25Index)
    def run(self, chunks: Chunks) -> dict[str, BM25Index]:
        key = compute_key(self.fingerprint, chunks.key)
        reading = self._resolve_reading(chunks)

        def model() -> Any:
            return self.store.get_object("bm25 indexes", key, lambda: self._build_index(chunks, reading), KEPT)

        def took() -> float:
            try:
                return self.store.get_seconds("bm25 counts", make_counts_key(chunks, reading, self.title_weight))
            except FileNotFoundError:
                return 0.0

        def counts() -> Counts:
            return get_counts(chunks, reading, self.store, self.title_weight)

        def size() -> int:
            return sum(getattr(counts(), name).nbytes for name in ARRAYS)

        return {"bm25_index": BM25Index(chunks, reading, model, counts, size, took, key)}

    def _resolve_reading(self, chunks: Chunks) -> Reading:
        reading = Reading(self.stopwords, self.stemmer, self.language, self.accents)
        if AUTO not in (self.stopwords, self.stemmer):
            return reading
        documents = chunks.documents
        key = compute_key(documents.key, vars(reading))
        found = self.store.get_object("language", key, lambda: reading.resolve([d.text for d in documents.items]))
        spoken = found.stemmer or found.stopwords or "no language that has stop words and a stemmer"
        self.notices.report_once(f"BM25: the documents are read as {spoken}", about=f"language {spoken}")
        return found

    def _build_index(self, chunks: Chunks, reading: Reading) -> Any:
        counts = get_counts(chunks, reading, self.store, self.title_weight)
        # On a corpus without a word, such as one of stop words alone, bm25s fails.
        return build_bm25(counts, self.k1, self.b, self.variant) if counts.words else None


@component
class BM25Retriever(Stage):
    """The `depth` best chunks of each query by BM25; a query without a known word finds nothing."""

    algorithm = "rag_opt.components.bm25.BM25Retriever"

    def __init__(self, depth: int) -> None:
        require_whole("depth", depth)
        self.depth = depth

    @component.output_types(bm25_ranking=Rankings)
    def run(
        self, bm25_queries: Searches, bm25_index: BM25Index, feedback: Feedback | None = None
    ) -> dict[str, Rankings]:
        found = [self._retrieve(queries, bm25_index, feedback) for queries in bm25_queries.variants]
        return {"bm25_ranking": fuse_variants(found, self.depth).add_costs(bm25_queries)}

    def _retrieve(self, queries: Queries, index: BM25Index, feedback: Feedback | None) -> Rankings:
        def prepare(whole: Queries) -> Search:
            model = index.model()
            asked = [count_query_words(each) for each in tokenize_texts(whole.texts, index.reading)]
            if feedback is None or model is None:
                return lambda rows, depth: _search_index(model, [asked[row] for row in rows], depth)
            # A query must not learn words from its own document.
            first = exclude_own(
                lambda rows, depth: _search_index(model, [asked[row] for row in rows], depth), whole, index.chunks
            )
            vectors = self.store.get_object("bm25 vectors", index.key, lambda: transpose_counts(index.counts()), KEPT)

            def searched(rows: Ints, depth: int) -> list[Pair]:
                mine = [asked[row] for row in rows]
                grown = zip(mine, first(rows, feedback.documents), strict=True)
                return _search_index(model, [feedback.expand_query(own, hits, *vectors) for own, hits in grown], depth)

            return searched

        key = compute_key("bm25", index.key, *([feedback.key] if feedback else []))
        whole = compute_rankings(self.resources, key, queries.whole, index.chunks, self.depth, prepare)
        self._report_unknown(whole)
        return whole if queries.whole_set is None else whole.take(queries.rows)

    def _report_unknown(self, found: Rankings) -> None:
        """Say how many of the questions are worded in nothing that the chunks know, where they are many."""
        # A ranking that begins with -1 has found nothing.
        lost, total = int((found.rows[:, :1] < 0).sum()), len(found.rows)
        if lost > STRANGE * total:
            self.notices.record_notice(f"BM25: {lost} of {total} questions share no word with any chunk")


def count_query_words(found: list[str]) -> dict[str, float]:
    """How often each word stands in a query: its weight."""
    return {word: float(times) for word, times in Counter(found).items()}


def build_bm25(counts: Counts, k1: float, b: float, variant: str) -> Any:
    """bm25s' index of these counts, as its own `index` would make it."""
    import bm25s
    from bm25s.scoring import _select_idf_scorer, _select_tfc_scorer

    model = bm25s.BM25(k1=k1, b=b, method=variant)
    total, average = len(counts.lengths), counts.lengths.mean()
    containing = np.diff(counts.starts)
    # Private names, so that scores are bm25s' own to the bit; a test compares them with its index.
    rarity, idf = _select_idf_scorer(model.idf_method), np.zeros(len(counts.words))
    # The scorer takes one number, and many words stand in equally many chunks: few calls do for all.
    for number in np.unique(containing[containing > 0]).tolist():
        idf[containing == number] = rarity(number, N=total)
    frequency = _select_tfc_scorer(variant)
    known = {"l_avg": average, "k1": k1, "b": b, "delta": model.delta}
    parts = frequency(counts.frequencies, counts.lengths[counts.chunk_rows], **known)
    scores = np.repeat(idf.astype(np.float32), containing) * parts
    model.nonoccurrence_array = None
    if variant in model.methods_requiring_nonoccurrence:
        model.nonoccurrence_array = (idf * frequency(0, average, **known)).astype(np.float32)
        # As bm25s keeps them: less what a chunk gets that lacks the word.
        scores -= np.repeat(model.nonoccurrence_array, containing)
    model.scores = {
        "data": scores.astype(np.float32),
        "indices": counts.chunk_rows,
        "indptr": counts.starts,
        "num_docs": total,
    }
    model.vocab_dict = counts.places
    return model


def _search_index(model: Any, queries: list[dict[str, float]], depth: int) -> list[Pair]:
    nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
    found = []
    for weights in queries:
        places = model.vocab_dict if model is not None else {}
        known = {places[word]: weight for word, weight in weights.items() if word in places}
        found.append(select_top(_score_chunks(model, known), depth) if known else nothing)
    return found


def _score_chunks(model: Any, known: dict[int, float]) -> NDArray[np.floating]:
    """The chunks' scores, -inf where no word of the query occurs: bm25s would fill a list up with arbitrary chunks."""
    postings = model.scores
    scores = np.zeros(postings["num_docs"], np.float32)
    for word, weight in known.items():
        place = slice(postings["indptr"][word], postings["indptr"][word + 1])
        # A word names a chunk once.
        scores[postings["indices"][place]] += np.float32(weight) * postings["data"][place]
    # bm25l and bm25+ give a chunk something for every word that it lacks.
    lacking = getattr(model, "nonoccurrence_array", None)
    nothing = 0.0
    if lacking is not None:
        nothing = float(sum(weight * lacking[word] for word, weight in known.items()))
        scores += np.float32(nothing)
    # Rounding alone makes no hit.
    matching: NDArray[np.floating] = np.where(scores > nothing * (1 + 1e-6), scores, -np.inf)
    return matching
