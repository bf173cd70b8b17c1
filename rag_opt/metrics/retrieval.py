"""Rankings of documents against qrels, by ir_measures (MacAvaney et al. 2022): nDCG@10, RR@10, R@100, P(rel=2)@5.

A document stands where its best chunk stands. A query with nothing retrieved scores the measure's declared default (0).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import ir_measures
import numpy as np

from rag_opt.errors import MetricError
from rag_opt.records import Qrels, Scores

MEASURES = ("nDCG@10", "RR@10", "R@10", "P@10", "AP@10")
"""Those that are measured by default; every measure of ir_measures that needs no other program is known."""


@cache
def measure(name: str) -> ir_measures.Measure | None:
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
    return found


def per_query(
    names: Sequence[str], qrels: Qrels, query_ids: Sequence[str], rankings: Sequence[Sequence[str]]
) -> dict[str, Scores]:
    """By metric one value a query, float64; nan for a query without a relevant document.

    `rankings` are document ids, best first, each document once. Raises MetricError at an unknown metric.
    """
    chosen = {}
    for name in names:
        if (found := measure(name)) is None:
            raise MetricError(f"'{name}' is not a measure of ir_measures")
        chosen[name] = found
    judged = {q: dict(qrels[q]) for q in query_ids if any(grade > 0 for grade in qrels.get(q, {}).values())}
    run = {q: {doc: -float(rank) for rank, doc in enumerate(docs)} for q, docs in zip(query_ids, rankings, strict=True)}
    rows = ir_measures.iter_calc(list(set(chosen.values())), judged, run) if judged and names else ()
    values = {(row.query_id, row.measure): row.value for row in rows}
    return {
        name: np.array([values.get((q, found), np.nan) for q in query_ids], np.float64)
        for name, found in chosen.items()
    }
