"""Several rankings of the same chunks → one."""

from __future__ import annotations

import time

import numpy as np
from haystack import component

from rag_opt.components.ranking import Pair, best, say_once, stacked
from rag_opt.components.stage import Stage, require, require_whole
from rag_opt.keys import key_of
from rag_opt.records import Chunks, Ints, Queries, Rankings, Scores

METHODS = ("weighted", "rrf")
SCALINGS = ("minmax", "zscore")
BELOW = 1e-6
"""How far a chunk that a ranking lacks stands below its last hit, in scaled scores: enough to break the tie."""


@component
class Fusion(Stage):
    """The `top_k` best chunks of one or two rankings.

    One ranking is only cut. Two are joined by

    - weighted: (1 - hybrid_weight) x BM25 + hybrid_weight x dense, each ranking's scores scaled per query first, since
      raw BM25 and cosine scores can't be added; a chunk that a ranking lacks stands just below that ranking's last hit
      (Bruch et al. 2023, arXiv 2210.11934);
    - rrf: the sum of 1 / (rrf_k + rank), which asks nothing of the scores and uses no weight (Cormack et al. 2009).
    """

    def __init__(
        self,
        top_k: int,
        fusion: str = "weighted",
        hybrid_weight: float = 0.5,
        scaling: str = "minmax",
        rrf_k: int = 60,
    ) -> None:
        require_whole("top_k", top_k)
        require(fusion in METHODS, f"fusion must be one of {', '.join(METHODS)}, not {fusion}")
        require(0 <= hybrid_weight <= 1, f"hybrid_weight must be from 0 to 1, not {hybrid_weight}")
        require(scaling in SCALINGS, f"scaling must be one of {', '.join(SCALINGS)}, not {scaling}")
        require_whole("rrf_k", rrf_k)
        self.top_k = top_k
        self.fusion = fusion
        self.hybrid_weight = hybrid_weight
        self.scaling = scaling
        self.rrf_k = rrf_k

    @component.output_types(ranking=Rankings)
    def run(self, bm25_ranking: Rankings | None = None, dense_ranking: Rankings | None = None) -> dict[str, Rankings]:
        given = [ranking for ranking in (bm25_ranking, dense_ranking) if ranking is not None]
        if not given:
            raise ValueError("fusion needs at least one ranking")
        start = time.perf_counter()
        first = given[0]
        depth = max(ranking.rows.shape[1] for ranking in given)
        if self.top_k > depth:
            say_once(self.store, f"top_k {self.top_k} is more than the {depth} chunks that are ranked: clipped to that")
        columns = first.rows[:, : self.top_k], first.scores[:, : self.top_k]
        if len(given) == 2:
            pairs = [self._joined(given, query) for query in range(len(first.rows))]
            table = stacked(pairs, min(self.top_k, len(first.chunks)))
            columns = table["rows"], table["scores"]
        seconds = (time.perf_counter() - start) / max(1, len(first.rows)) + sum(r.seconds for r in given)
        key = key_of(self.fingerprint, [ranking.key for ranking in given])
        return {"ranking": Rankings(first.chunks, *columns, key, seconds)}

    def _joined(self, rankings: list[Rankings], query: int) -> Pair:
        rrf = self.fusion == "rrf"
        weights = (1.0, 1.0) if rrf else (1.0 - self.hybrid_weight, self.hybrid_weight)
        value = self._reciprocal if rrf else self._scaled
        lists = [_hits(ranking, query) for ranking in rankings]
        union = np.unique(np.concatenate([rows for rows, _ in lists]))
        total = np.zeros(len(union))
        for (rows, scores), weight in zip(lists, weights, strict=True):
            scaled, missing = value(scores)
            share = np.full(len(union), missing)
            share[np.searchsorted(union, rows)] = scaled
            total += weight * share
        order, values = best(total, self.top_k)
        return union[order].astype(np.int32), values

    def _reciprocal(self, scores: Scores) -> tuple[Scores, float]:
        return 1.0 / (self.rrf_k + 1.0 + np.arange(len(scores), dtype=np.float64)), 0.0

    def _scaled(self, scores: Scores) -> tuple[Scores, float]:
        """The scores scaled, and the value of a chunk that is not in the list; equal scores all get the middle."""
        if not len(scores):
            return scores, 0.0
        if self.scaling == "minmax":
            width = scores.max() - scores.min()
            scaled = (scores - scores.min()) / width if width > 0 else np.full(len(scores), 0.5)
            return scaled, -BELOW
        deviation = scores.std()
        scaled = (scores - scores.mean()) / deviation if deviation > 0 else np.zeros(len(scores))
        return scaled, float(scaled.min()) - BELOW


def _hits(ranking: Rankings, query: int) -> tuple[Ints, Scores]:
    found = ranking.rows[query] >= 0
    return ranking.rows[query][found], ranking.scores[query][found].astype(np.float64)


@component
class NoRetriever(Stage):
    """An empty ranking for every query."""

    @component.output_types(ranking=Rankings)
    def run(self, queries: Queries, chunks: Chunks) -> dict[str, Rankings]:
        rows, scores = np.zeros((len(queries.items), 0), np.int32), np.zeros((len(queries.items), 0), np.float32)
        return {"ranking": Rankings(chunks, rows, scores, key_of("nothing", chunks.key, queries.key))}
