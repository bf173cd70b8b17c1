"""Scores → rankings: the same cut, order and clipping for every retriever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rag_opt.components.own_documents import Pair, Search, exclude_own
from rag_opt.records.documents import Floats, Ints, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Costs, Rankings

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns
    from rag_opt.components.resources import Resources

AT_ONCE = 64
"""Queries that are ranked to the corpus' end at once."""


def select_top(scores: NDArray[np.floating], depth: int) -> Pair:
    """The rows of the `depth` greatest finite scores and the scores, best first, equal scores by row.

    int32 and float32 [hits]; there are fewer than `depth` where fewer scores are finite.
    """
    if depth < len(scores):
        # Whatever ties with the last place is kept here, so that rows and not the partition decide between equals.
        limit = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        rows = np.flatnonzero(scores >= limit)
    else:
        rows = np.arange(len(scores))
    # A score of -inf marks what is no hit, so a query may find fewer than `depth`.
    rows = rows[np.isfinite(scores[rows])]
    # By score, then by row: the last key of lexsort counts first.
    order = np.lexsort((rows, -scores[rows]))[:depth]
    return rows[order].astype(np.int32), scores[rows[order]].astype(np.float32)


def stack_rankings(pairs: Iterable[Pair], depth: int) -> Columns:
    """Columns `rows` and `scores`, [queries, depth], shorter rankings filled up with row -1, score -inf."""
    found = list(pairs)
    rows = np.full((len(found), depth), -1, np.int32)
    scores = np.full((len(found), depth), -np.inf, np.float32)
    for query, (hits, values) in enumerate(found):
        rows[query, : len(hits)] = hits
        scores[query, : len(hits)] = values
    return {"rows": rows, "scores": scores}


def split_ranking(columns: Columns, keep: int | None) -> tuple[Ints, Floats, Ints]:
    """The rows and scores of the first `keep` columns, which are handed on (None: all), and the rows of the others."""
    rows, scores = columns["rows"], columns["scores"]
    return rows[:, :keep], scores[:, :keep], rows[:, rows.shape[1] if keep is None else keep :]


def score_by_rank(rows: Ints) -> Pair:
    """Rows, best first, with 1 / rank for scores: of an order that has no others."""
    return rows, (1 / np.arange(1, len(rows) + 1)).astype(np.float32)


def compute_rankings(
    resources: Resources,
    key: str,
    queries: Queries,
    chunks: Chunks,
    depth: int,
    prepare: Callable[[Queries], Search],
    costs: Costs | None = None,
    *,
    exact: bool = True,
) -> Rankings:
    """The batch's rankings, computed for the whole set of queries once and kept.

    `prepare(queries)` makes ready what is there before a question comes and gives the search itself, which is timed.
    `depth` is clipped to the number of chunks, which is said once. Where a shorter ranking is the beginning of a deeper
    one (`exact`), the deepest that the study will ask for is computed. `costs` is what a query has cost before.
    A query's own document is no hit.
    What is ranked behind `depth` is the rankings' `rest`: as far as `resources.reach` asks for, a chunk a document.
    """
    clipped = min(depth, len(chunks))
    if clipped < depth:
        resources.notices.report_once(f"only {len(chunks)} chunks: depth {depth} is clipped to that")
    # An approximate index may begin otherwise when it is asked for more, so it is asked for this depth alone.
    made = min(max(depth, resources.deepest), len(chunks)) if exact else clipped
    # One artifact for the whole set: batches of any size are cut out of it below.
    whole = queries.whole
    full_key = compute_key(key, whole.key, made)

    # Called only where nothing is kept: a ranking that is in the store needs no index.
    def ready() -> Search:
        return exclude_own(prepare(whole), whole, chunks)

    columns = resources.store.get_table(
        "rankings", full_key, lambda: _time_search(ready(), len(whole.items), made)
    ).columns
    rows, scores = (columns[name][:, :clipped] for name in ("rows", "scores"))
    # The seconds are those of the first making and travel with the ranking: kept work must not look fast.
    spent = {**(costs or {}), full_key: float(columns["seconds"].sum()) / max(1, len(whole.items))}
    further = _rank_further(resources, full_key, columns["rows"], chunks, ready)
    rest = np.concatenate([columns["rows"][:, clipped:], further], axis=1)
    rankings = Rankings(chunks, rows, scores, compute_key(full_key, clipped), spent, rest=rest)
    return rankings if queries.whole_set is None else rankings.take(queries.rows)


def _time_search(search: Search, count: int, depth: int) -> Columns:
    if count > 1:
        # The first question touches indexes for the first time, which is no part of what a question takes.
        search(np.zeros(1, np.int32), depth)
    start = time.perf_counter()
    pairs = search(np.arange(count, dtype=np.int32), depth)
    seconds = time.perf_counter() - start
    # Searched as one batch, so each question has an equal share.
    return {**stack_rankings(pairs, depth), "seconds": np.full(len(pairs), seconds / max(1, len(pairs)))}


def _rank_further(resources: Resources, key: str, rows: Ints, chunks: Chunks, ready: Callable[[], Search]) -> Ints:
    """The best chunk of each further document, [queries, any], where a full ranking holds fewer than `resources.reach`.

    It is made to be measured: what it takes is no cost of the pipeline's.
    """
    reach = min(resources.reach, len(chunks.documents.items))
    deep = rows.shape[1]
    if deep >= len(chunks) or not deep:
        return np.zeros((len(rows), 0), np.int32)
    # A ranking that ends early already holds all that its search can find.
    full = np.flatnonzero(rows[:, -1] >= 0)
    short = full[_count_distinct(chunks.document_rows[rows[full]]) < reach].astype(np.int32)
    if not len(short):
        return np.zeros((len(rows), 0), np.int32)

    def made() -> Columns:
        search, found = ready(), [np.zeros(0, np.int32)] * len(rows)
        for start in range(0, len(short), AT_ONCE):
            block = short[start : start + AT_ONCE]
            for row, hits in zip(block.tolist(), _deepen_search(search, block, rows, chunks, reach), strict=True):
                found[row] = hits
        return {"rows": stack_rankings(map(score_by_rank, found), max(1, *map(len, found)))["rows"]}

    further: Ints = resources.store.get_table("further documents", compute_key(key, reach), made).columns["rows"]
    return further


def _deepen_search(search: Search, block: Ints, rows: Ints, chunks: Chunks, reach: int) -> list[Ints]:
    """For each of these queries the first chunks of documents that its ranking lacks, up to `reach` with those it has.

    Each search goes four times as deep as the one before, until all have enough or the corpus ends.
    """
    depth = rows.shape[1]
    known = [np.unique(chunks.document_rows[rows[row]]) for row in block]
    while True:
        depth = min(4 * depth, len(chunks))
        pairs = search(block, depth)
        found = [
            _select_first_hits(hits, chunks, mine)[: reach - len(mine)]
            for (hits, _), mine in zip(pairs, known, strict=True)
        ]
        enough = [
            # Fewer hits than were asked for: a deeper search would find nothing more.
            len(hits) < depth or len(more) + len(mine) >= reach
            for (hits, _), more, mine in zip(pairs, found, known, strict=True)
        ]
        if depth == len(chunks) or all(enough):
            return found


def _select_first_hits(hits: Ints, chunks: Chunks, known: Ints) -> Ints:
    """The first hit in each document that is not among the known ones, in their order."""
    documents = chunks.document_rows[hits]
    # NumPy's unique sorts by document; sorted once more, the places are in the ranking's order.
    places = np.sort(np.unique(documents, return_index=True)[1])
    return hits[places[~np.isin(documents[places], known)]]


def _count_distinct(values: Ints) -> Ints:
    """How many distinct values each row has."""
    ordered = np.sort(values, axis=1)
    counts: Ints = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1, dtype=np.int32)
    return counts
