"""Several rankings of the same chunks → one."""

from __future__ import annotations

import time

import numpy as np
from haystack import component

from rag_opt.components.ranking import say_once
from rag_opt.components.stage import Stage, require, require_whole
from rag_opt.keys import key_of
from rag_opt.records import Chunks, Floats, Ints, Queries, Rankings, Scores

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
            columns = self._joined(*given)
        key = key_of(self.fingerprint, [ranking.key for ranking in given])
        costs = {key: (time.perf_counter() - start) / max(1, len(first.rows))}
        for ranking in given:
            costs.update(ranking.costs)
        return {"ranking": Rankings(first.chunks, *columns, key, costs)}

    def _joined(self, bm25: Rankings, dense: Rankings) -> tuple[Ints, Floats]:
        """Rows and scores, [queries, top_k], of all queries at once."""
        weights = (1.0, 1.0) if self.fusion == "rrf" else (1.0 - self.hybrid_weight, self.hybrid_weight)
        (first, lacking_first), (second, lacking_second) = (
            self._shares(ranking, weight) for ranking, weight in zip((bm25, dense), weights, strict=True)
        )
        rows = np.concatenate([bm25.rows, dense.rows], axis=1)
        shares = np.concatenate([first, second], axis=1)
        lacking = np.concatenate(
            [np.broadcast_to(lacking_second, first.shape), np.broadcast_to(lacking_first, second.shape)], axis=1
        )
        # By chunk, BM25's entry before the dense one: a chunk of both lists stands twice, side by side.
        order = np.argsort(rows, axis=1, kind="stable")
        rows, shares, lacking = (np.take_along_axis(each, order, axis=1) for each in (rows, shares, lacking))
        twice = np.zeros(rows.shape, bool)
        twice[:, :-1] = rows[:, :-1] == rows[:, 1:]
        other = np.where(twice, np.roll(shares, -1, axis=1), lacking)
        total = shares + other
        total[:, 1:][twice[:, :-1]] = -np.inf
        total[rows < 0] = -np.inf
        # Equal scores by chunk: the columns are in that order, and the sort is stable.
        chosen = np.argsort(-total, axis=1, kind="stable")[:, : min(self.top_k, len(bm25.chunks))]
        scores = np.take_along_axis(total, chosen, axis=1).astype(np.float32)
        found = np.take_along_axis(rows, chosen, axis=1)
        return np.where(np.isfinite(scores), found, -1).astype(np.int32), scores

    def _shares(self, ranking: Rankings, weight: float) -> tuple[Scores, Scores]:
        """What each hit adds to its chunk's score [queries, depth], and what a chunk gets that is lacking [queries, 1].

        Equal scores all get the middle.
        """
        if self.fusion == "rrf":
            places = 1.0 + np.arange(ranking.rows.shape[1], dtype=np.float64)
            return np.broadcast_to(weight / (self.rrf_k + places), ranking.rows.shape), np.zeros((len(ranking.rows), 1))
        hit = ranking.rows >= 0
        scores = np.where(hit, ranking.scores, 0.0).astype(np.float64)
        count = np.maximum(1, hit.sum(axis=1, keepdims=True))
        least = np.min(scores, axis=1, keepdims=True, where=hit, initial=np.inf)
        if self.scaling == "minmax":
            origin, width = least, np.max(scores, axis=1, keepdims=True, where=hit, initial=-np.inf) - least
            middle, lowest = 0.5, 0.0
        else:
            origin = scores.sum(axis=1, keepdims=True) / count
            width = np.sqrt((np.where(hit, scores - origin, 0.0) ** 2).sum(axis=1, keepdims=True) / count)
            middle, lowest = 0.0, least - origin
        flat = ~(width > 0)
        width = np.where(flat, 1.0, width)
        scaled = np.where(flat, middle, (scores - origin) / width)
        lacking = np.where(hit.any(axis=1, keepdims=True), np.where(flat, 0.0, lowest / width) - BELOW, 0.0)
        return weight * scaled, weight * lacking


@component
class NoRetriever(Stage):
    """An empty ranking for every query."""

    @component.output_types(ranking=Rankings)
    def run(self, queries: Queries, chunks: Chunks) -> dict[str, Rankings]:
        rows, scores = np.zeros((len(queries.items), 0), np.int32), np.zeros((len(queries.items), 0), np.float32)
        return {"ranking": Rankings(chunks, rows, scores, key_of("nothing", chunks.key, queries.key))}
