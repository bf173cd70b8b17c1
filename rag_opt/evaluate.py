"""A pipeline × queries × metrics → Evaluation, batch by batch, so that a trial can be pruned."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag_opt.components.encoders import MiniLM
from rag_opt.components.generators import context_tokens
from rag_opt.components.shelf import embedded
from rag_opt.datasets.checks import documents_of
from rag_opt.metrics.catalogue import Metric, Observed
from rag_opt.pipelines import Products, RagPipeline
from rag_opt.records import Dataset, Documents, Evaluation, Ints, Queries, Rankings, Scores
from rag_opt.store import Store

Report = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """What is known after a batch: the scores of all queries so far, in the order in which they are asked."""

    batch: int
    scores: Mapping[str, Scores]
    new: int

    def mean(self, name: str) -> float:
        """The mean over the queries so far (nan before the first measurable one)."""
        return mean(self.scores[name])


@dataclass(frozen=True)
class Questions:
    """One side of a dataset's split, made ready once: its documents, and its queries in a fixed shuffled order."""

    dataset: Dataset
    documents: Documents
    queries: Queries
    batches: tuple[Ints, ...]

    @property
    def count(self) -> int:
        return len(self.queries.items)

    @classmethod
    def of(cls, dataset: Dataset, batches: int, seed: int) -> Questions:
        """The queries are cut into `batches` batches of nearly equal size (fewer when there are fewer queries)."""
        queries = list(dataset.queries)
        random.Random(seed).shuffle(queries)
        cuts = np.array_split(np.arange(len(queries), dtype=np.int32), min(batches, len(queries)))
        return cls(dataset, documents_of(dataset), Queries.of(tuple(queries)), tuple(cuts))


def evaluated(
    pipeline: RagPipeline, questions: Questions, metrics: Sequence[Metric], store: Store, report: Report | None = None
) -> Evaluation:
    """The scores of a pipeline. `report` is told after every batch; what it raises ends the evaluation."""
    index = pipeline.index(questions.documents)
    scores: dict[str, list[Scores]] = {metric.name: [] for metric in metrics}
    texts: list[str] = []
    retrieved: list[tuple[str, ...]] = []
    seconds = {"indexing": sum(getattr(product, "seconds", 0.0) for product in index.values()), "query": 0.0}
    for number, rows in enumerate(questions.batches, 1):
        observed = _observed(pipeline, questions, questions.queries.batch(rows), index, store)
        for metric in metrics:
            scores[metric.name].append(metric.values(observed))
        texts += observed.answers or ()
        retrieved += [tuple(ids) for ids in observed.rankings]
        seconds["query"] += observed.seconds * len(rows)
        if report is not None:
            report(Progress(number, {name: np.concatenate(parts) for name, parts in scores.items()}, len(rows)))
    per_query = {name: np.concatenate(parts) for name, parts in scores.items()}
    seconds["query"] /= len(questions.queries.items)
    ids = tuple(query.id for query in questions.queries.items)
    means = {name: mean(values) for name, values in per_query.items()}
    return Evaluation(ids, per_query, means, seconds, tuple(texts), tuple(retrieved))


def _observed(pipeline: RagPipeline, questions: Questions, queries: Queries, index: Products, store: Store) -> Observed:
    ranking, answers = pipeline.ask(queries, questions.documents, index)
    return Observed(
        queries=queries.items,
        qrels=questions.dataset.qrels,
        rankings=[list(documents) for documents in document_rankings(ranking)],
        answers=None if answers is None else answers.texts,
        tokens=context_tokens(ranking, queries, store) if answers is None else answers.tokens,
        seconds=sum((ranking if answers is None else answers).costs.values()),
        encode=lambda texts: _measuring(store, texts),
    )


def document_rankings(ranking: Rankings) -> Iterator[tuple[str, ...]]:
    """Per query the documents of its chunks, each where its best chunk stands."""
    ids = ranking.chunks.document_ids
    for query in range(len(ranking.rows)):
        yield tuple(dict.fromkeys(ids[row] for row, _ in ranking.hits(query)))


def mean(values: Scores) -> float:
    """The mean of the measured values; nan when there are none."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")


def _measuring(store: Store, texts: list[str]) -> Any:
    encoder = store.live("measuring encoder", "minilm", MiniLM)
    encoder.use(store)
    return embedded(encoder, texts, store).values
