"""Whether a search for a question that was made finds its own document first; where not, it asks for another.

The round trip by retrieval of Promptagator (Dai et al. 2022, arXiv 2209.11755), whose best depth is 1, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rag_opt.config.trial import compose_trial
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.questions.kinds import MadeQuestion
from rag_opt.records.documents import Queries, Query
from rag_opt.records.products import Rankings

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.records.documents import Documents

SEARCH = (
    *("retriever=hybrid", "retriever.fusion=rrf", "index=exact"),
    *("generator=none", "query=none", "reranker=none", "context=none"),
)
"""By words and by meaning, so that the questions are not those that one of both finds alone."""

Search = Callable[[Sequence[MadeQuestion]], list[bool]]
"""Whether what is found first for each question is its document, or another one that holds the same sentences."""


def build_search(documents: Documents, words: Sequence[str], resources: Resources) -> Search:
    """A search of these documents by words and by vectors, cut and encoded as the command line `words` says."""
    pipeline = build_pipeline(compose_trial([*words, *SEARCH]), resources)
    index, texts = pipeline.index_documents(documents), {each.id: each.text for each in documents.items}

    def search(made: Sequence[MadeQuestion]) -> list[bool]:
        if not made:
            return []
        asked = Queries.from_items(tuple(Query(str(place), each.question) for place, each in enumerate(made)))
        found: Rankings = pipeline.ask(asked, documents, index)["ranking"]
        hits = (found.get_hits(row) for row in range(len(made)))
        # "" where nothing was found, which is the name of no document.
        first = [found.chunks.document_ids[rows[0][0]] if rows else "" for rows in hits]
        # Of equal texts the one that stands first among the documents is found first.
        return [
            any(name == passage.document_id or passage.text in texts.get(name, "") for passage in each.target.passages)
            for name, each in zip(first, made, strict=True)
        ]

    return search
