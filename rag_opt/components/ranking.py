"""Scores → rankings: the same cut, order and clipping for every retriever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from rag_opt.artifacts import Columns
from rag_opt.keys import key_of
from rag_opt.progress import say
from rag_opt.records import Chunks, Costs, Floats, Ints, Queries, Rankings
from rag_opt.store import Store

Pair = tuple[Ints, Floats]


def best(scores: NDArray[np.floating], depth: int) -> Pair:
    """The rows of the `depth` greatest finite scores and the scores, best first, equal scores by row."""
    if depth < len(scores):
        limit = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        rows = np.flatnonzero(scores >= limit)
    else:
        rows = np.arange(len(scores))
    rows = rows[np.isfinite(scores[rows])]
    order = np.lexsort((rows, -scores[rows]))[:depth]
    return rows[order].astype(np.int32), scores[rows[order]].astype(np.float32)


def stacked(pairs: Iterable[Pair], depth: int) -> Columns:
    """Columns `rows` and `scores`, [queries, depth], shorter rankings filled up with row -1, score -inf."""
    found = list(pairs)
    rows = np.full((len(found), depth), -1, np.int32)
    scores = np.full((len(found), depth), -np.inf, np.float32)
    for query, (hits, values) in enumerate(found):
        rows[query, : len(hits)] = hits
        scores[query, : len(hits)] = values
    return {"rows": rows, "scores": scores}


def by_place(rows: Ints) -> Pair:
    """Rows, best first, with 1 / rank for scores: of an order that has no others."""
    return rows, (1 / np.arange(1, len(rows) + 1)).astype(np.float32)


def ranked(
    store: Store,
    key: str,
    queries: Queries,
    chunks: Chunks,
    depth: int,
    prepare: Callable[[Queries, int], Callable[[], list[Pair]]],
    costs: Costs | None = None,
    *,
    exact: bool = True,
) -> Rankings:
    """The batch's rankings, computed for the whole set of queries once and kept.

    `prepare(queries, depth)` makes ready what is there before a question comes and gives the search itself, which is
    timed. `depth` is clipped to the number of chunks, which is said once. Where a
    shorter ranking is the beginning of a deeper one (`exact`), the deepest that the study will ask for is computed.
    `costs` is what a query has cost before.
    """
    clipped = min(depth, len(chunks))
    if clipped < depth:
        say_once(store, f"only {len(chunks)} chunks: depth {depth} is clipped to that")
    made = min(max(depth, store.deepest), len(chunks)) if exact else clipped
    whole = queries.whole
    full_key = key_of(key, whole.key, made)
    columns = store.table("rankings", full_key, lambda: _timed(prepare(whole, made), made)).columns
    rows, scores = (columns[name][:, :clipped] for name in ("rows", "scores"))
    spent = {**(costs or {}), full_key: float(columns["seconds"].sum()) / max(1, len(whole.items))}
    rankings = Rankings(chunks, rows, scores, key_of(full_key, clipped), spent)
    return rankings if queries.whole_set is None else rankings.take(queries.rows)


def _timed(search: Callable[[], list[Pair]], depth: int) -> Columns:
    start = time.perf_counter()
    pairs = search()
    seconds = time.perf_counter() - start
    return {**stacked(pairs, depth), "seconds": np.full(len(pairs), seconds / max(1, len(pairs)))}


def say_once(store: Store, line: str) -> None:
    """Say a line the first time that it comes up with this store."""
    if line not in store.said:
        store.said.add(line)
        say(line)
