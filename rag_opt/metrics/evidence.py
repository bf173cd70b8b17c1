"""Retrieved chunks against evidence, character by character: the same gold judges any chunking.

The measures of Chroma's chunking evaluation (Smith and Troynikov 2024), on characters instead of tokens, over the
first k chunks of a ranking. Values run from 0 to 1; a query for which nothing was retrieved scores 0, one without
evidence can't be measured: nan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from rag_opt.records.documents import Evidence, Scores

MEASURES = ("evidence_recall", "evidence_precision", "evidence_iou")
NAME = re.compile(rf"({'|'.join(MEASURES)})@([1-9][0-9]{{0,3}})")


class Span(NamedTuple):
    """The characters [start, end) of a document."""

    document_id: str
    start: int
    end: int


def parse_evidence_name(name: str) -> tuple[str, int] | None:
    """The measure and its k: evidence_recall@5 → (evidence_recall, 5); None when it is none of these."""
    found = NAME.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def score_evidence(
    measure: str, k: int, rankings: Sequence[Sequence[Span]], evidence: Sequence[Sequence[Evidence]]
) -> Scores:
    """One value a query, float64.

    recall: the share of the evidence that the first k chunks hold. precision: the share of the retrieved characters
    that are evidence. iou: characters in both over characters in either. Text that two chunks share is retrieved
    twice, so it counts twice among the retrieved.
    """
    pairs = zip(rankings, evidence, strict=True)
    return np.array([_score(measure, spans[:k], gold) if gold else np.nan for spans, gold in pairs], np.float64)


def _score(measure: str, spans: Sequence[Span], gold: Sequence[Evidence]) -> float:
    wanted = merge_spans(Span(each.document_id, each.start, each.end) for each in gold)
    # Merged, or evidence that overlapping chunks share would be found twice, and recall could pass 1.
    found = merge_spans(spans)
    both = sum(
        max(0, min(end, last) - max(start, first))
        for document, ranges in wanted.items()
        for start, end in ranges
        for first, last in found.get(document, ())
    )
    sought = sum(end - start for ranges in wanted.values() for start, end in ranges)
    retrieved = sum(span.end - span.start for span in spans)
    whole = {"evidence_recall": sought, "evidence_precision": retrieved, "evidence_iou": sought + retrieved - both}
    return both / whole[measure] if whole[measure] else 0.0


def merge_spans(spans: Iterable[Span]) -> Mapping[str, list[tuple[int, int]]]:
    """By document the characters that the spans cover, as separate ranges in order."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    for document, start, end in sorted(spans):
        known = ranges.setdefault(document, [])
        # In the order of their beginnings a range can only meet the last one.
        if known and start <= known[-1][1]:
            known[-1] = known[-1][0], max(known[-1][1], end)
        else:
            known.append((start, end))
    return ranges
