"""A pipeline × queries × metrics → Evaluation, batch by batch, so that a trial can be pruned."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag_opt.components.embedders.embedding_cache import get_embeddings
from rag_opt.components.embedders.encoders import MiniLM
from rag_opt.components.generators.extractive import count_context_tokens
from rag_opt.components.splitters.sentences import segment_texts
from rag_opt.datasets.checks import get_corpus
from rag_opt.datasets.duplicates import group_repeats
from rag_opt.documents.quotes import find_evidence
from rag_opt.evaluation.coverage import compute_coverage, compute_served
from rag_opt.evaluation.depth import rank_documents
from rag_opt.metrics.catalogue import BatchResult, Metric
from rag_opt.records.documents import Dataset, Documents, Ints, Queries, Scores
from rag_opt.records.keys import compute_key
from rag_opt.records.products import SPENT, Rankings, sum_by_stage, sum_tokens
from rag_opt.records.scores import Evaluation

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.evaluation.pipelines import Products, RagPipeline

Report = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """What is known after a batch: the scores of all queries so far, in the order in which they are asked."""

    batch: int
    scores: Mapping[str, Scores]
    new: int
    retrieved: tuple[tuple[str, ...], ...] = ()
    answers: tuple[str | None, ...] = ()

    def get_mean(self, name: str) -> float:
        """The mean over the queries so far (nan before the first measurable one)."""
        return compute_mean(self.scores[name])


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

    @property
    def groups(self) -> Ints:
        """Which of the queries repeat each other: equal numbers."""
        return group_repeats(self.queries.items, self.dataset.qrels)

    @property
    def grouped(self) -> bool:
        """Whether some of them were told to belong together."""
        return any(query.group for query in self.queries.items)

    def read_as(self, documents: Documents, resources: Resources) -> Questions:
        """The same about these texts of the documents: quotes are the characters where they stand in them."""
        # The very same object where nothing is parsed.
        if documents is self.documents:
            return self
        key = compute_key(documents.key, self.dataset.fingerprint, [query.id for query in self.queries.items])
        found = resources.store.get_object("quotes", key, lambda: find_evidence(self.queries.items, documents.items))
        if found.missing:
            resources.notices.report_once(found.format_missing(), about=f"quotes {documents.key}")
        return replace(self, documents=documents, queries=replace(self.queries, items=found.queries))

    @classmethod
    def from_dataset(cls, dataset: Dataset, batches: int, seed: int) -> Questions:
        """The queries are cut into `batches` batches of nearly equal size (fewer when there are fewer queries)."""
        queries = list(dataset.queries)
        # Pruners judge by the first batches, so these have to be a fair sample, and the same one for every trial.
        random.Random(seed).shuffle(queries)
        cuts = np.array_split(np.arange(len(queries), dtype=np.int32), min(batches, len(queries)))
        return cls(dataset, get_corpus(dataset), Queries.from_items(tuple(queries)), tuple(cuts))


def evaluate_pipeline(
    pipeline: RagPipeline,
    questions: Questions,
    metrics: Sequence[Metric],
    report: Report | None = None,
    latency: tuple[float, float] | None = None,
) -> Evaluation:
    """The scores of a pipeline; `latency` is its (p50, p95) in seconds where a metric asks for it.

    Its rankings are made as far as the metrics read. `report` is told after every batch; what it raises ends the
    evaluation.
    """
    # However much is handed on: a ranking that ended with top_k would score by top_k.
    reach = max((metric.reach for metric in metrics), default=0)
    pipeline = pipeline.use_resources(replace(pipeline.resources, reach=reach))
    index = pipeline.index_documents(questions.documents)
    questions = questions.read_as(pipeline.find_documents(questions.documents, index), pipeline.resources)
    measuring = Measuring(pipeline, questions, tuple(metrics), index, latency)
    start = time.perf_counter()
    parts: list[BatchResult] = []
    scores: dict[str, Scores] = {}
    for number, (rows, observed, values) in enumerate(measuring.iterate_batches(), 1):
        parts += [observed] if observed is not None else []
        scores = {name: np.concatenate([scores[name], new]) if scores else new for name, new in values.items()}
        if report is not None:
            report(_build_progress(number, scores, len(rows), parts))
    items = questions.queries.items
    # Few needs, many metrics.
    gold = {m.needs: m for m in metrics}
    applicable = {needs: m.find_applicable(items, questions.dataset.qrels) for needs, m in gold.items()}
    for each in metrics:
        if each.single:
            # A batch of few questions may hold what happens once.
            scores[each.name] = np.full(len(items), np.median(scores[each.name]))
    return Evaluation(
        query_ids=tuple(query.id for query in items),
        per_query=scores,
        means={name: compute_mean(values) for name, values in scores.items()},
        seconds={**_compute_seconds(parts, measuring.index), "evaluation": time.perf_counter() - start},
        answers=_collect_answers(parts),
        usage=_sum_usage(parts),
        retrieved=_collect_retrieved(parts),
        coverage={m.name: compute_coverage(scores[m.name], applicable[m.needs]) for m in metrics},
        served=compute_served(parts),
    )


def _build_progress(number: int, scores: Mapping[str, Scores], new: int, parts: Sequence[BatchResult]) -> Progress:
    # All questions may have been asked at once, with the first batch.
    count = len(next(iter(scores.values()), ()))
    return Progress(number, scores, new, _collect_retrieved(parts)[:count], _collect_answers(parts)[:count])


def _collect_retrieved(parts: Sequence[BatchResult]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(ids) for part in parts for ids in part.rankings)


def _collect_answers(parts: Sequence[BatchResult]) -> tuple[str | None, ...]:
    """What was answered; () without a generator."""
    return tuple(answer for part in parts for answer in part.answers or ())


@dataclass(frozen=True)
class Measuring:
    """A pipeline with its index made, about to be asked; `memory` is what its metrics keep from batch to batch."""

    pipeline: RagPipeline
    questions: Questions
    metrics: tuple[Metric, ...]
    index: Products
    latency: tuple[float, float] | None
    memory: dict[str, Any] = field(default_factory=dict)

    def iterate_batches(self) -> Iterator[tuple[Ints, BatchResult | None, dict[str, Scores]]]:
        """Per batch its rows, what was observed and the scores.

        A pipeline that does not pay per query answers all of them at once, with the first batch; the batches then only
        say when a trial can be pruned.
        """
        # Only what is paid for is worth asking in parts; the rest is fastest in one call.
        if self.pipeline.pays_per_query or any(metric.pays for metric in self.metrics):
            for rows in self.questions.batches:
                observed = self._observe(self.questions.queries.make_batch(rows))
                yield rows, observed, _measure(self.metrics, observed)
            return
        observed = self._observe(self.questions.queries)
        values = _measure(self.metrics, observed)
        for number, rows in enumerate(self.questions.batches):
            yield rows, None if number else observed, {name: scores[rows] for name, scores in values.items()}

    def _observe(self, queries: Queries) -> BatchResult:
        documents, resources = self.questions.documents, self.pipeline.resources
        found = self.pipeline.ask(queries, documents, self.index)
        context, answers = found["context"], found.get("answers")
        rankings = rank_documents(found["rankings"], resources.reach)
        self._report_short(found["rankings"][-1], rankings)
        # Costs add up on the way, so the last product has those of all before it.
        last = context if answers is None else answers
        return BatchResult(
            queries=queries.items,
            qrels=self.questions.dataset.qrels,
            rankings=rankings,
            context=context,
            answers=None if answers is None else answers.texts,
            tokens=count_context_tokens(context, queries, resources.store)
            + sum_tokens(context.usage, len(queries.items))
            if answers is None
            else answers.tokens,
            seconds=sum(last.costs.values()),
            usage=sum_by_stage(last.usage.values()),
            resources=resources,
            memory=self.memory,
            encode=lambda texts: _encode_texts(resources, texts),
            split=lambda texts: segment_texts(texts, documents, resources.store),
            metrics=tuple(metric.name for metric in self.metrics),
            latency=self.latency,
            index_bytes=lambda: sum(
                each.size() for each in self.index.values() if callable(getattr(each, "size", None))
            ),
            failed=_find_failed([*found["rankings"], context]),
            index_recall=lambda: next(
                (each.measured["recall"] for each in self.index.values() if getattr(each, "measured", None)), math.nan
            ),
        )

    def _report_short(self, retrieved: Rankings, rankings: Sequence[Sequence[str]]) -> None:
        """Say where a retriever of someone's own, or the web, ranks fewer documents than metrics read."""
        deep = retrieved.rows.shape[1]
        # A corpus of fewer documents can't be ranked any deeper.
        reach = min(self.pipeline.resources.reach, len(self.questions.documents.items))
        # A row that ends in -1 had nothing more to rank; only a full one may have been cut short.
        full = retrieved.rows[:, -1] >= 0 if deep and retrieved.rest is None else np.zeros(len(rankings), bool)
        short = sum(1 for at_end, ranking in zip(full, rankings, strict=True) if at_end and len(ranking) < reach)
        if short:
            self.pipeline.resources.notices.report_once(
                f"{short} of {len(rankings)} questions are measured on fewer than {reach} documents: the retriever "
                f"ranks only {deep} chunks; have it rank more",
                about="short rankings",
            )


def _find_failed(rankings: Sequence[Rankings]) -> NDArray[np.bool_] | None:
    """The queries that failed at any step, whatever the steps behind it made of that; None for none."""
    masks = [each.failed for each in rankings if each.failed is not None]
    return np.logical_or.reduce(masks) if masks else None


def _measure(metrics: Sequence[Metric], observed: BatchResult) -> dict[str, Scores]:
    """By metric its values; nan for queries that failed, whatever a metric makes of an empty ranking."""
    values = {metric.name: metric.values(observed) for metric in metrics}
    failed = observed.failed
    return values if failed is None else {name: np.where(failed, np.nan, each) for name, each in values.items()}


def _compute_seconds(parts: Sequence[BatchResult], index: Products) -> dict[str, float]:
    """Seconds that indexing took when it was done, and that a query takes, by the median, whatever came from the store.

    "evaluation", beside them, is what asking and judging all queries took this time, less what the store had.
    """
    # A batch during which a model loads or a server starts says nothing of the others, hence the median.
    spent = [part.seconds for part in parts for _ in part.queries]
    return {
        "indexing": sum(getattr(product, "seconds", 0.0) for product in index.values()),
        "query": float(np.median(spent)) if spent else 0.0,
    }


def _sum_usage(parts: Sequence[BatchResult]) -> dict[str, dict[str, float]]:
    """By stage what all calls of this evaluation cost."""
    found: dict[str, dict[str, float]] = {}
    for part in parts:
        judging = {verdicts.usage.stage: verdicts.usage for verdicts in part.judging.values()}
        for name, spent in {**part.usage, **judging}.items():
            total = found.setdefault(name, dict.fromkeys(SPENT, 0.0))
            for column in SPENT:
                total[column] += float(getattr(spent, column).sum())
    return found


def compute_mean(values: Scores) -> float:
    """The mean of the measured values; nan when there are none."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")


def _encode_texts(resources: Resources, texts: list[str]) -> Any:
    encoder = resources.store.get_object("measuring encoder", "minilm", MiniLM)
    # The encoder outlives an evaluation, whose resources are its own.
    encoder.use(resources)
    return get_embeddings(encoder, texts, resources.store)
