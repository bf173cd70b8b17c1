"""BM25 by bm25s (Lù 2024, arXiv 2407.03618): index and retriever."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import Stemmer
from haystack import component
from numpy.typing import NDArray

from rag_opt.components.ranking import Pair, best, ranked, stacked
from rag_opt.components.stage import Stage, require, require_whole
from rag_opt.keys import key_of
from rag_opt.records import Chunks, Queries, Rankings, Record
from rag_opt.store import Columns

VARIANTS = ("robertson", "lucene", "atire", "bm25l", "bm25+")


@dataclass(frozen=True, eq=False)
class BM25Index(Record):
    """A bm25s index over chunks (None where no chunk has a word that counts), and how to read a query for it."""

    chunks: Chunks
    model: Any
    stopwords: str | None
    stemmer: str | None
    key: str


@component
class BM25Indexer(Stage):
    """Chunks → BM25 index. k1 saturates term frequency, b normalises length; stop words and stemmer name a language."""

    def __init__(self, k1: float, b: float, variant: str, stemmer: str | None, stopwords: str | None) -> None:
        require(k1 >= 0, f"k1 must be at least 0, not {k1}")
        require(0 <= b <= 1, f"b must be from 0 to 1, not {b}")
        require(variant in VARIANTS, f"variant must be one of {', '.join(VARIANTS)}, not {variant}")
        known = Stemmer.algorithms()
        require(
            stemmer is None or stemmer in known, f"stemmer must be null or one of {', '.join(known)}, not {stemmer}"
        )
        require(stopwords is None or _has_stopwords(stopwords), f"stopwords: bm25s has no list for '{stopwords}'")
        self.k1 = k1
        self.b = b
        self.variant = variant
        self.stemmer = stemmer
        self.stopwords = stopwords

    @component.output_types(bm25_index=BM25Index)
    def run(self, chunks: Chunks) -> dict[str, BM25Index]:
        key = key_of(self.fingerprint, chunks.key)
        return {"bm25_index": self.store.live("bm25 indexes", key, lambda: self._index(chunks, key))}

    def _index(self, chunks: Chunks, key: str) -> BM25Index:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)
        read_key = key_of(chunks.key, self.stopwords, self.stemmer)
        tokens = self.store.live(
            "bm25 tokens", read_key, lambda: tokenized(chunks.contents, self.stopwords, self.stemmer)
        )
        model = None
        if any(tokens.ids):
            model = bm25s.BM25(k1=self.k1, b=self.b, method=self.variant)
            model.index(tokens, show_progress=False)
        return BM25Index(chunks, model, self.stopwords, self.stemmer, key)


@component
class BM25Retriever(Stage):
    """The `depth` best chunks of each query by BM25; a query without a known word finds nothing."""

    def __init__(self, depth: int) -> None:
        require_whole("depth", depth)
        self.depth = depth

    @component.output_types(bm25_ranking=Rankings)
    def run(self, queries: Queries, bm25_index: BM25Index) -> dict[str, Rankings]:
        def rank(whole: Queries, depth: int) -> Columns:
            return stacked(_searched(bm25_index, whole.texts, depth), depth)

        key = key_of("bm25", bm25_index.key)
        return {"bm25_ranking": ranked(self.store, key, queries, bm25_index.chunks, self.depth, rank)}


def _has_stopwords(language: str) -> bool:
    from bm25s.tokenization import _infer_stopwords

    try:
        return bool(_infer_stopwords(language))
    except ValueError:
        return False


def tokenized(texts: list[str], stopwords: str | None, stemmer: str | None) -> Any:
    """bm25s tokens: lower case, words of two or more characters, less stop words, stemmed by Snowball."""
    import bm25s

    reduce = Stemmer.Stemmer(stemmer) if stemmer else None
    return bm25s.tokenize(texts, stopwords=stopwords or [], stemmer=reduce, show_progress=False)


def _searched(index: BM25Index, texts: list[str], depth: int) -> list[Pair]:
    nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
    if index.model is None:
        return [nothing] * len(texts)
    tokens = tokenized(texts, index.stopwords, index.stemmer)
    words = {number: word for word, number in tokens.vocab.items()}
    found = []
    for ids in tokens.ids:
        known = index.model.get_tokens_ids([words[number] for number in ids])
        found.append(best(_matching(index.model, known), depth) if known else nothing)
    return found


def _matching(model: Any, known: list[int]) -> NDArray[np.floating]:
    """The chunks' scores, -inf where no word of the query occurs: bm25s would fill a list up with arbitrary chunks."""
    scores: NDArray[np.floating] = model.get_scores_from_ids(known)
    # bm25l and bm25+ give a chunk something for every word that it lacks.
    lacking = getattr(model, "nonoccurrence_array", None)
    nothing = 0.0 if lacking is None else float(lacking[known].sum())
    matching: NDArray[np.floating] = np.where(scores > nothing * (1 + 1e-6), scores, -np.inf)
    return matching
