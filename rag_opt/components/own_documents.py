"""Queries that are documents themselves, as in ArguAna and Quora: none is a hit of its own, nor takes a rank.

So BEIR has it (ignore_identical_ids; Thakur et al. 2021, arXiv 2104.08663). A query names the document in `own`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rag_opt.records.documents import Floats, Ints, Queries
from rag_opt.records.products import Chunks

Pair = tuple[Ints, Floats]

Search = Callable[[Ints, int], list[Pair]]
"""search(rows of the set of queries, depth) → for each the chunks found, best first."""


def exclude_own(search: Search, queries: Queries, chunks: Chunks) -> Search:
    """The search without the chunks of a query's own document, as deep as before; itself where no query has one."""
    if not any(query.own for query in queries.items):
        return search
    own = _find_own_chunks([query.own for query in queries.items], chunks)

    def searched(rows: Ints, depth: int) -> list[Pair]:
        # At worst all chunks of the own document stand in front: so much deeper, and `depth` others are left.
        more = max((len(own[row]) for row in rows), default=0)
        found = search(rows, min(depth + more, len(chunks)))
        return [_drop_rows(pair, own[row], depth) for row, pair in zip(rows.tolist(), found, strict=True)]

    return searched


def _drop_rows(found: Pair, own: Ints, depth: int) -> Pair:
    rows, scores = found
    others = ~np.isin(rows, own)
    return rows[others][:depth], scores[others][:depth]


def _find_own_chunks(ids: Sequence[str], chunks: Chunks) -> list[Ints]:
    """For each of these documents the rows of its chunks; none for ""."""
    row_of = {document.id: row for row, document in enumerate(chunks.documents.items)}
    order = np.argsort(chunks.document_rows, kind="stable").astype(np.int32)
    ordered = chunks.document_rows[order]
    # -1 is no document's row, so a query without an own document gets an empty slice.
    wanted = np.array([row_of.get(each, -1) for each in ids], np.int32)
    starts, ends = (np.searchsorted(ordered, wanted, side) for side in ("left", "right"))
    return [order[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
