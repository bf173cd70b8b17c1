"""Rankings of chunks → rankings of documents, as deep as metrics read."""

from __future__ import annotations

from collections.abc import Sequence

from rag_opt.records.products import Rankings


def rank_documents(rankings: Sequence[Rankings], reach: int) -> list[list[str]]:
    """Per query its documents, each where its best chunk stands: those handed on, then the others up to `reach` in all.

    The first ranking is the final one; what it lacks follows in the order of the one that it was made of, and so on.
    """
    ids = rankings[0].chunks.document_ids
    found = [dict.fromkeys(ids[chunk] for chunk in row if chunk >= 0) for row in rankings[0].rows.tolist()]
    for ranking in rankings:
        ids = ranking.chunks.document_ids
        for row, known in zip(ranking.whole.tolist(), found, strict=True):
            for chunk in row:
                if len(known) >= reach:
                    break
                if chunk >= 0:
                    known[ids[chunk]] = None
    return [list(known) for known in found]
