"""Which document a search finds first for a question that was made: one that finds another is no question for its own.

The round trip by retrieval of Promptagator (Dai et al. 2022, arXiv 2209.11755), whose best depth is 1, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rag_opt.config.trial import compose_trial
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.records.documents import Queries, Query
from rag_opt.records.products import Rankings

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.records.documents import Documents

SEARCH = (
    *("retriever=hybrid", "retriever.fusion=rrf"),
    *("generator=none", "query=none", "reranker=none", "context=none"),
)
"""By words and by meaning, so that the questions are not those that one of both finds alone."""

Search = Callable[[Sequence[str]], list[str]]
"""The id of the document that is found first for each question, "" where none is."""


def build_search(documents: Documents, words: Sequence[str], resources: Resources) -> Search:
    """A search of these documents by words and by vectors, cut and encoded as the command line `words` says."""
    pipeline = build_pipeline(compose_trial([*words, *SEARCH]), resources)
    index = pipeline.index_documents(documents)

    def search(questions: Sequence[str]) -> list[str]:
        if not questions:
            return []
        asked = Queries.from_items(tuple(Query(str(place), each) for place, each in enumerate(questions)))
        found: Rankings = pipeline.ask(asked, documents, index)["ranking"]
        hits = (found.get_hits(row) for row in range(len(questions)))
        return [found.chunks.document_ids[rows[0][0]] if rows else "" for rows in hits]

    return search
