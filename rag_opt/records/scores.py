"""What was measured of a configuration: its scores, and what a question takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rag_opt.records.documents import Record, Scores


@dataclass(frozen=True, eq=False)
class Evaluation(Record):
    """What a pipeline scored: per query (nan: not measurable for that query) and as means over the measured ones.

    `per_query` has by metric float64 [queries]; `answers` and `retrieved` (ids, best first) have a row a query or none.
    `seconds`: what "indexing" took whenever it was done, what a "query" takes on average, and how long the "evaluation"
    itself took, with whatever came from the store. `coverage` is the share of the measurable queries that was measured,
    `served` by stage the share of what it asked a model for that came; `usage` by stage the calls to models, their
    tokens and dollars, stored replies counted like paid ones.
    """

    query_ids: tuple[str, ...]
    per_query: Mapping[str, Scores]
    means: Mapping[str, float]
    seconds: Mapping[str, float]
    answers: tuple[str | None, ...] = ()
    retrieved: tuple[tuple[str, ...], ...] = ()
    coverage: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    served: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Seconds that a question takes from text to answer, by percentile, over so many questions."""

    p50: float
    p95: float
    questions: int

    def __str__(self) -> str:
        return f"p50 {1000 * self.p50:,.1f} ms, p95 {1000 * self.p95:,.1f} ms"
