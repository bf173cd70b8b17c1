"""Pseudo-relevance feedback: the words of what BM25 finds first are searched for, too. No model is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csc_array, csr_array

from rag_opt.components.checks import require_number, require_whole
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Floats, Record
from rag_opt.records.keys import compute_key
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.components.own_documents import Pair


@dataclass(frozen=True, eq=False)
class Feedback(Record):
    """How a query grows by its first hits: RM3 (Abdul-Jaleel et al. 2004, after Lavrenko and Croft 2001).

    `documents` hits are read, `terms` words of theirs remain, and the query's own words keep `own_weight`.
    """

    documents: int
    terms: int
    own_weight: float

    @property
    def key(self) -> str:
        return compute_key("rm3", self.documents, self.terms, self.own_weight)

    def expand_query(
        self, words: Mapping[str, float], hits: Pair, vectors: Any, vocabulary: list[str]
    ) -> dict[str, float]:
        """The query's words and their weights, which sum to 1; unchanged where nothing was hit.

        The relevance model gives word w the weight Σ P(w|d) P(d|query) over the hits, P(w|d) its share of the chunk's
        words, P(d|query) the chunk's share of the hits' scores. `vectors` are word counts, sparse [chunks, words].
        """
        rows, scores = hits
        if not len(rows) or not words:
            return dict(words)
        counts = vectors[rows]
        shares = scores.astype(np.float64) / scores.sum() / np.maximum(counts.sum(axis=1), 1)
        model: Floats = counts.T @ shares
        best = _select_terms(model, vocabulary, self.terms)
        total, own = model[best].sum(), sum(words.values())
        grown = {word: self.own_weight * weight / own for word, weight in words.items()}
        for place in best:
            word = vocabulary[place]
            grown[word] = grown.get(word, 0.0) + (1 - self.own_weight) * float(model[place] / total)
        return grown


def _select_terms(model: Floats, vocabulary: list[str], count: int) -> list[int]:
    """The places of the words of greatest weight above 0, equal ones by their letters.

    The vocabulary's own order is another one in each process.
    """
    known = np.flatnonzero(model > 0)
    if len(known) > count:
        # Whatever ties with the last place stays: letters decide between equals below.
        known = known[model[known] >= np.partition(model[known], len(known) - count)[len(known) - count]]
    # By the vocabulary's order the same study gave 0.5454 in one process and 0.5434 in another.
    return sorted(known.tolist(), key=lambda place: (-model[place], vocabulary[place]))[:count]


@component
class RM3(Stage):
    """Tells BM25 to search twice: for the query, then for the query and the telling words of its first hits."""

    algorithm = "rag_opt.components.feedback.RM3"

    def __init__(self, documents: int, terms: int, own_weight: float) -> None:
        require_whole("documents", documents)
        require_whole("terms", terms)
        require_number("own_weight", own_weight, 0, 1)
        self.documents = documents
        self.terms = terms
        self.own_weight = own_weight

    @component.output_types(feedback=Feedback)
    def run(self, bm25_queries: Any) -> dict[str, Feedback]:
        del bm25_queries  # what is asked makes this a part of asking
        return {"feedback": Feedback(self.documents, self.terms, self.own_weight)}


def transpose_counts(counts: Any) -> tuple[Any, list[str]]:
    """BM25's word counts the other way round: sparse [chunks, words], and the words."""
    shape = len(counts.lengths), len(counts.words)
    columns = csc_array((counts.frequencies, counts.chunk_rows, counts.starts), shape=shape)
    # By rows, since `expand_query` reads those of the hits.
    return csr_array(columns), counts.words
