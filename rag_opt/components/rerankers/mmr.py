"""Rerankers: a ranking → the same chunks in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rag_opt.components.checks import require_number, require_whole
from rag_opt.components.embedders.embedding_cache import get_embeddings
from rag_opt.components.ranking import split_ranking, stack_rankings
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Floats
from rag_opt.records.keys import compute_key
from rag_opt.records.products import QueryVectors, Rankings, Vectors
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns
    from rag_opt.components.embedders.encoder import Encoder
    from rag_opt.components.own_documents import Pair


@component
class MMR(Stage):
    """Maximal marginal relevance (Carbonell and Goldstein 1998): relevant, and unlike what was chosen before.

    Each step takes the chunk of greatest (1 - diversity) x similarity to the query - diversity x greatest similarity
    to a chosen chunk; similarities are cosines. `keep` chunks are handed on (None: all). `encoder` embeds what has no
    vector yet: pages of the web.
    """

    algorithm = "rag_opt.components.rerankers.MMR"

    handing = ("keep",)

    def __init__(self, diversity: float, encoder: Encoder, keep: int | None = None) -> None:
        require_number("diversity", diversity, 0, 1)
        if keep is not None:
            require_whole("keep", keep)
        self.diversity = diversity
        self.encoder = encoder
        self.keep = keep

    @component.output_types(ranking=Rankings)
    def run(self, ranking: Rankings, query_vectors: QueryVectors, vectors: Vectors) -> dict[str, Rankings]:
        asked = query_vectors.own
        width = ranking.rows.shape[1]
        if not width:
            return {"ranking": ranking}

        def columns() -> Columns:
            known = vectors.values
            if more := ranking.chunks.contents[len(known) :]:
                known = np.concatenate([known, get_embeddings(self.encoder.for_documents, more, self.store)])
            pairs = [self._rerank(ranking.rows[i], asked[i], known) for i in range(len(asked))]
            return stack_rankings(pairs, width)

        first, asked_as = query_vectors.vectors[0], query_vectors.queries[0]
        # The order is the same whatever is kept of it.
        order = compute_key(
            MMR(self.diversity, self.encoder).fingerprint, ranking.key, first.key, asked_as.key, vectors.key
        )
        table = self.store.get_table("reranked", order, columns)
        costs = {first.key: first.seconds, order: table.seconds / max(1, len(asked))}
        rows, scores, rest = split_ranking(table.columns, self.keep)
        key = compute_key(order, self.keep)
        return {"ranking": Rankings(ranking.chunks, rows, scores, key, costs, rest=rest).add_costs(ranking)}

    def _rerank(self, rows: NDArray[np.int32], query: Floats, vectors: Floats) -> Pair:
        rows = rows[rows >= 0]
        mine = vectors[rows]
        relevance, likeness = mine @ query, mine @ mine.T
        nearest = np.zeros(len(rows), np.float32)
        free = np.ones(len(rows), bool)
        order, scores = [], []
        for _ in range(len(rows)):
            gain = (1 - self.diversity) * relevance - self.diversity * nearest
            # Of equal gains argmax takes the first, which the ranking had before.
            choice = int(np.argmax(np.where(free, gain, -np.inf)))
            order.append(choice)
            scores.append(gain[choice])
            free[choice] = False
            # At first not the greater of it and the zeros above: cosines may be negative.
            nearest = likeness[choice] if len(order) == 1 else np.maximum(nearest, likeness[choice])
        return rows[order], np.array(scores, np.float32)
