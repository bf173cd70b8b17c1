"""Rankings of documents against qrels, by ir_measures (MacAvaney et al. 2022): nDCG@10, RR@10, R@100, P(rel=2)@5.

A document stands where its best chunk stands. A query with nothing retrieved scores the measure's declared default (0).
A measure without a cutoff reads the first UNCUT documents, for every configuration alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import ir_measures
import numpy as np

from rag_opt.errors import MetricError

if TYPE_CHECKING:
    from rag_opt.records.documents import Qrels, Scores

MEASURES = ("nDCG@10", "RR@10", "R@10", "P@10", "AP@10")
"""Those that are measured by default; every measure of ir_measures that needs no other program is known."""

UNCUT = 100
"""Documents that a measure without a cutoff reads (AP, RR), or one that leaves out unjudged ones."""

OF_SETS = ("SetP", "SetR", "SetF", "SetAP", "NumRet")
"""Measures that ask which documents are there, not in which order: of a ranking they say nothing."""


@cache
def find_measure(name: str) -> ir_measures.Measure | None:
    """The measure of this name; None when ir_measures can't compute one here."""
    try:
        found = ir_measures.parse_measure(name)
        if found.params.get("cutoff", 1) < 1:
            # pytrec_eval would crash the process.
            return None
        # Some parse, but need another program or more than qrels and a ranking.
        list(ir_measures.iter_calc([found], {"q": {"d": 1}}, {"q": {"d": 1.0}}))
    except Exception:
        # Its parser and its many providers raise all kinds; whichever it is, this name can't be measured here.
        return None
    return _keep_text(found)


def _keep_text(found: ir_measures.Measure) -> ir_measures.Measure:
    """The same measure: its text, made anew for each hash, took ten times as long as measuring."""
    text, kind = repr(found), type(found)
    members = {"__repr__": lambda _: text, "__hash__": lambda _: hash(text)}
    kept: ir_measures.Measure = type(kind.__name__, (kind,), members)(**found.params)
    return kept


def is_set_measure(found: ir_measures.Measure) -> bool:
    """Whether the order of the documents has no influence on this measure."""
    return found.NAME in OF_SETS


def get_reach(found: ir_measures.Measure) -> int:
    """How many documents of a ranking this measure reads: its cutoff, or at least UNCUT where that does not end it."""
    cutoff = int(found.params.get("cutoff", 0))
    return cutoff if _has_cutoff(found) else max(cutoff, UNCUT)


def _has_cutoff(found: ir_measures.Measure) -> bool:
    """Whether the measure itself reads no further than its cutoff."""
    return "cutoff" in found.params and not found.params.get("judged_only")


def score_rankings(
    names: Sequence[str],
    qrels: Qrels,
    query_ids: Sequence[str],
    rankings: Sequence[Sequence[str]],
    *,
    whole: bool = False,
) -> dict[str, Scores]:
    """By metric one value a query, float64; nan for a query without a relevant document.

    `rankings` are document ids, best first, each document once; a measure without a cutoff reads the first UNCUT of
    them, or all (`whole`). Raises MetricError at an unknown metric.
    """
    chosen = {}
    for name in names:
        if (found := find_measure(name)) is None:
            raise MetricError(f"'{name}' is not a measure of ir_measures")
        chosen[name] = found
    judged = {q: dict(qrels[q]) for q in query_ids if any(grade > 0 for grade in qrels.get(q, {}).values())}
    # A measure without a cutoff would reward whoever ranks deeper, so its run is cut; the others cut their own.
    groups: dict[int | None, set[ir_measures.Measure]] = {}
    for found in chosen.values():
        groups.setdefault(None if whole or _has_cutoff(found) else get_reach(found), set()).add(found)
    values: dict[tuple[str, ir_measures.Measure], float] = {}
    for deep, measures in groups.items() if judged else ():
        run = {
            # No two scores are equal, since trec_eval would order equal ones by the documents' ids.
            query: {document: -float(rank) for rank, document in enumerate(documents[:deep])}
            for query, documents in zip(query_ids, rankings, strict=True)
        }
        values |= {(row.query_id, row.measure): row.value for row in ir_measures.iter_calc(list(measures), judged, run)}
    return {
        name: np.array([values.get((q, found), np.nan) for q in query_ids], np.float64)
        for name, found in chosen.items()
    }
