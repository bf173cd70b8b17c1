"""Several rankings of the same chunks → one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.components.checks import require, require_number, require_whole
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Floats, Ints, Queries, Scores
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Costs, Rankings
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.components.own_documents import Pair

METHODS = ("weighted", "rrf")
SCALINGS = ("minmax", "zscore")
VARIANTS_K = 60
"""The constant by which the rankings of several texts for one query are fused, as proposed by Cormack et al. (2009)."""

Shares = tuple[Scores, Scores]
"""What each hit adds to its chunk's score [queries, depth], and what a chunk gets that is lacking [queries, 1]."""

BELOW = 1e-6
"""How far a chunk that a ranking lacks stands below its last hit, in scaled scores: enough to break the tie."""


@component
class Fusion(Stage):
    """One, two or three rankings as one: BM25's, dense, web pages. Its `top_k` best chunks are handed on.

    One ranking stays as it is. Several are joined by

    - weighted: (1 - hybrid_weight) x BM25 + hybrid_weight x dense, each ranking's scores scaled per query first, since
      raw BM25 and cosine scores can't be added; a chunk that a ranking lacks stands just below that ranking's last hit
      (Bruch et al. 2023, arXiv 2210.11934). The web has `web_weight`, and the others what it leaves;
    - rrf: the sum of 1 / (rrf_k + rank), which asks nothing of the scores and uses no weight (Cormack et al. 2009).
    """

    algorithm = "rag_opt.components.fusion.Fusion"

    handing = ("top_k",)

    def __init__(
        self,
        top_k: int,
        fusion: str = "weighted",
        hybrid_weight: float = 0.5,
        scaling: str = "minmax",
        rrf_k: int = 60,
        web_weight: float = 0.3,
    ) -> None:
        require_whole("top_k", top_k)
        require(fusion in METHODS, f"fusion must be one of {', '.join(METHODS)}, not {fusion}")
        require_number("hybrid_weight", hybrid_weight, 0, 1)
        require(scaling in SCALINGS, f"scaling must be one of {', '.join(SCALINGS)}, not {scaling}")
        require_whole("rrf_k", rrf_k)
        require_number("web_weight", web_weight, 0, 1)
        self.top_k = top_k
        self.fusion = fusion
        self.hybrid_weight = hybrid_weight
        self.scaling = scaling
        self.rrf_k = rrf_k
        self.web_weight = web_weight

    @component.output_types(ranking=Rankings)
    def run(
        self,
        bm25_ranking: Rankings | None = None,
        dense_ranking: Rankings | None = None,
        web_ranking: Rankings | None = None,
    ) -> dict[str, Rankings]:
        weights = self._compute_weights(bm25_ranking is not None, dense_ranking is not None, web_ranking is not None)
        given = [ranking for ranking in (bm25_ranking, dense_ranking, web_ranking) if ranking is not None]
        if not given:
            raise ValueError("fusion needs at least one ranking")
        start = time.perf_counter()
        # Pages of the web stand behind the corpus' own chunks, so the last ranking knows all.
        first = given[-1]
        depth = max(ranking.rows.shape[1] for ranking in given)
        if self.top_k > depth:
            self.notices.report_once(
                f"top_k {self.top_k} is more than the {depth} chunks that are ranked: clipped to that"
            )
        rows, scores = first.rows, first.scores
        if len(given) > 1:
            shares = [self._compute_shares(ranking, weight) for ranking, weight in zip(given, weights, strict=True)]
            rows, scores = fuse_rankings(given, shares)
        key = compute_key(self.fingerprint, [ranking.key for ranking in given])
        costs = {key: (time.perf_counter() - start) / max(1, len(first.rows))}
        return {"ranking": build_fused(given, rows, scores, self.top_k, key, costs).add_costs(*given)}

    def _compute_weights(self, bm25: bool, dense: bool, web: bool) -> list[float]:
        """By ranking that there is its weight."""
        both = {"bm25": 1.0 - self.hybrid_weight, "dense": self.hybrid_weight} if bm25 and dense else {}
        local = both or {name: 1.0 for name, there in (("bm25", bm25), ("dense", dense)) if there}
        left = 1.0 - self.web_weight if web and local else 1.0
        weights = [left * weight for weight in local.values()] + ([self.web_weight if local else 1.0] if web else [])
        return [1.0] * len(weights) if self.fusion == "rrf" else weights

    def _compute_shares(self, ranking: Rankings, weight: float) -> Shares:
        """The ranking's scores, scaled; equal scores all get the middle."""
        if self.fusion == "rrf":
            return compute_rrf(ranking, self.rrf_k, weight)
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
        # Not `width == 0`: where nothing was hit it is -inf.
        flat = ~(width > 0)
        width = np.where(flat, 1.0, width)
        scaled = np.where(flat, middle, (scores - origin) / width)
        # At the last hit's own value, that hit could be lost to a chunk that was never found, even at weight 0.
        lacking = np.where(hit.any(axis=1, keepdims=True), np.where(flat, 0.0, lowest / width) - BELOW, 0.0)
        return weight * scaled, weight * lacking


def fuse_rankings(rankings: Sequence[Rankings], shares: Sequence[Shares]) -> Pair:
    """Rows and scores of all queries' chunks, [queries, any], best first: a chunk's score is the sum of its shares."""
    rows = np.concatenate([ranking.rows for ranking in rankings], axis=1)
    share = np.concatenate([each for each, _ in shares], axis=1)
    owner = np.concatenate([np.full(ranking.rows.shape[1], place) for place, ranking in enumerate(rankings)])
    # By chunk, an earlier ranking's entry before a later one's: the entries of a chunk stand side by side.
    order = np.argsort(rows, axis=1, kind="stable")
    rows, share, owner = (np.take_along_axis(each, order, axis=1) for each in (rows, share, owner[None, :]))
    lacking = np.stack([np.broadcast_to(lack, rows.shape) for _, lack in shares])
    found = lacking.copy()
    repeated = np.zeros(rows.shape, bool)
    repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
    # A chunk has at most one entry of each ranking, so no more stand side by side.
    for back in range(min(len(rankings), rows.shape[1])):
        # What the entry `back` places behind the chunk's first one says of it.
        same = np.zeros(rows.shape, bool)
        same[:, : rows.shape[1] - back] = rows[:, back:] == rows[:, : rows.shape[1] - back]
        moved, whose = np.roll(share, -back, axis=1), np.roll(owner, -back, axis=1)
        for place in range(len(rankings)):
            found[place] = np.where(same & (whose == place), moved, found[place])
    total = sum(found[1:], found[0])
    # A chunk is ranked once, at its first entry; -1 is no chunk.
    total[repeated | (rows < 0)] = -np.inf
    # Equal scores by chunk: the columns are in that order, and the sort is stable.
    chosen = np.argsort(-total, axis=1, kind="stable")[:, : len(rankings[-1].chunks)]
    scores = np.take_along_axis(total, chosen, axis=1).astype(np.float32)
    best = np.take_along_axis(rows, chosen, axis=1)
    return np.where(np.isfinite(scores), best, -1).astype(np.int32), scores


def compute_rrf(rankings: Rankings, rrf_k: int, weight: float = 1.0) -> Shares:
    """What each rank is worth in reciprocal rank fusion, [queries, depth], and 0 for what is lacking, [queries, 1]."""
    places = 1.0 + np.arange(rankings.rows.shape[1], dtype=np.float64)
    return np.broadcast_to(weight / (rrf_k + places), rankings.rows.shape), np.zeros((len(rankings.rows), 1))


def fuse_variants(rankings: Sequence[Rankings], depth: int) -> Rankings:
    """One ranking of those of several texts for the same query, by reciprocal ranks; a single one stays as it is."""
    first = rankings[0]
    if len(rankings) == 1:
        return first
    rows, scores = fuse_rankings(rankings, [compute_rrf(each, VARIANTS_K) for each in rankings])
    key = compute_key("variants", [each.key for each in rankings], depth)
    return build_fused(rankings, rows, scores, depth, key, {}).add_costs(*rankings)


def build_fused(
    rankings: Sequence[Rankings], rows: Ints, scores: Floats, count: int, key: str, costs: Costs
) -> Rankings:
    """What these rankings were joined to, of which the first `count` are handed on.

    What each of them ranks behind its hits follows the others, one of each in turn.
    """
    rests = [each.rest for each in rankings if each.rest is not None]
    width = max((rest.shape[1] for rest in rests), default=0)
    filled = [np.pad(rest, ((0, 0), (0, width - rest.shape[1])), constant_values=-1) for rest in rests]
    # Along a last axis, so that reshaping takes one of each in turn.
    behind = np.stack(filled, axis=2).reshape(len(rows), -1) if filled else rows[:, :0]
    rest = np.concatenate([rows[:, count:], behind], axis=1)
    return Rankings(rankings[-1].chunks, rows[:, :count], scores[:, :count], key, costs, rest=rest)


@component
class NoRetriever(Stage):
    """An empty ranking for every query."""

    algorithm = "rag_opt.components.fusion.NoRetriever"

    @component.output_types(ranking=Rankings)
    def run(self, queries: Queries, chunks: Chunks) -> dict[str, Rankings]:
        rows, scores = np.zeros((len(queries.items), 0), np.int32), np.zeros((len(queries.items), 0), np.float32)
        return {"ranking": Rankings(chunks, rows, scores, compute_key("nothing", chunks.key, queries.key))}
