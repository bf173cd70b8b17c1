"""Every metric by its name: which way is better, what it needs, and its values for a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rag_opt.errors import MetricError, nearest
from rag_opt.metrics import answer, retrieval
from rag_opt.records import Dataset, Ints, Qrels, Query, Scores

MAXIMIZE, MINIMIZE = "maximize", "minimize"


@dataclass(frozen=True)
class Observed:
    """What a pipeline gave for a batch of queries; `metrics` names all that will be measured on it."""

    queries: Sequence[Query]
    qrels: Qrels
    rankings: Sequence[Sequence[str]]
    answers: Sequence[str] | None
    tokens: Ints
    seconds: float
    encode: Callable[[list[str]], Any]
    metrics: tuple[str, ...] = ()

    @cached_property
    def ranked(self) -> dict[str, Scores]:
        """The values of all ranking metrics, measured in one go."""
        names = [name for name in self.metrics if name not in OTHERS]
        return retrieval.per_query(names, self.qrels, [query.id for query in self.queries], self.rankings)


@dataclass(frozen=True)
class Metric:
    """One metric: `values(observed)` gives a float64 per query, nan where it can't be measured."""

    name: str
    direction: str
    needs: str
    values: Callable[[Observed], Scores]


def _references(observed: Observed) -> list[tuple[str, ...]]:
    return [query.answers for query in observed.queries]


def _nan(observed: Observed) -> Scores:
    return np.full(len(observed.queries), np.nan)


def _pairwise(name: str) -> Metric:
    def values(observed: Observed) -> Scores:
        if observed.answers is None:
            return _nan(observed)
        return answer.per_query(answer.PAIRWISE[name], observed.answers, _references(observed))

    return Metric(name, MAXIMIZE, "answers", values)


def _similarity(observed: Observed) -> Scores:
    if observed.answers is None:
        return _nan(observed)
    return answer.similarity(observed.encode, observed.answers, _references(observed))


def _ranked(name: str) -> Metric:
    return Metric(name, MAXIMIZE, "qrels", lambda seen: seen.ranked[name])


OTHERS = {metric.name: metric for metric in map(_pairwise, answer.PAIRWISE)} | {
    # Cosine of MiniLM embeddings: the measuring embedder stays the same whatever embedder is searched.
    "similarity": Metric("similarity", MAXIMIZE, "answers", _similarity),
    # Words and punctuation marks of the question and the retrieved chunks: what a reader is given.
    "tokens": Metric("tokens", MINIMIZE, "", lambda seen: seen.tokens.astype(np.float64)),
    # Seconds a query costs, all stages added up as they took when they were computed; the same for a whole batch.
    "latency": Metric("latency", MINIMIZE, "", lambda seen: np.full(len(seen.queries), seen.seconds)),
}


def metric(name: str) -> Metric:
    """The metric of this name; raises MetricError with the nearest one."""
    if name in OTHERS:
        return OTHERS[name]
    if retrieval.measure(name) is not None:
        return _ranked(name)
    known = [*retrieval.MEASURES, *OTHERS]
    raise MetricError(f"objective: '{name}' is no metric; {nearest(name, known)} (also any measure of ir_measures)")


def unmet(chosen: Metric, dataset: Dataset, has_generator: bool) -> str | None:
    """Why this metric can't be measured for a single query; None when it can."""
    if chosen.needs == "qrels" and not any(grade > 0 for grades in dataset.qrels.values() for grade in grades.values()):
        return f"{chosen.name} needs relevant documents, and {dataset.name} names none"
    if chosen.needs == "answers" and not any(query.answers for query in dataset.queries):
        return f"{chosen.name} needs reference answers, and {dataset.name} has none"
    if chosen.needs == "answers" and not has_generator:
        return f"{chosen.name} needs a generator, and generator=none writes no answers"
    return None
