"""Every metric by its name: which way is better, what it needs, and its values for a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag_opt.errors import MetricError, format_hint
from rag_opt.metrics import answer, context, evidence, retrieval
from rag_opt.metrics.aspects import FIELDS
from rag_opt.metrics.judges import Verdicts

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.records.documents import Dataset, Ints, Qrels, Query, Scores
    from rag_opt.records.products import Rankings, Usage

MAXIMIZE, MINIMIZE = "maximize", "minimize"
JUDGE = "judge."
"""How the names of judges' metrics begin."""

SPREAD = ".spread"
"""How the name of a judge's own noise ends."""

HANDED = "context."
"""How the name of a ranking's measure begins that is taken on what is handed on alone: context.R@10, context.SetR."""

RANKS, READS, ALL = "ranking", "context", "all"
"""What a metric depends on: the ranking whatever is handed on, what is handed on to a reader, or whatever runs."""


@dataclass(frozen=True)
class BatchResult:
    """What a pipeline gave for a batch of queries; `metrics` names all that will be measured on it.

    `rankings` are documents, as many as the metrics read and at least those that are handed on; `context` the chunks
    that are handed on. An answer is None where the answerer failed. `encode` gives unit vectors of texts, `split` their
    sentences; `latency` is (p50, p95) in seconds where it was timed, `usage` by stage what calls to models cost,
    `index_bytes()` the size of the indexes, `index_recall()` the share of true neighbours that they find; `judging`
    keeps verdicts by aspect, `memory` what is the same for all batches of an evaluation; of queries that `failed`
    nothing can be measured (None: none).
    """

    queries: Sequence[Query]
    qrels: Qrels
    rankings: Sequence[Sequence[str]]
    context: Rankings
    answers: Sequence[str | None] | None
    tokens: Ints
    seconds: float
    resources: Resources
    encode: Callable[[list[str]], Any]
    split: Callable[[list[str]], list[list[str]]]
    metrics: tuple[str, ...] = ()
    latency: tuple[float, float] | None = None
    usage: Mapping[str, Usage] = field(default_factory=dict)
    judging: dict[str, Verdicts] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    # Called without arguments, int and float give 0.
    index_bytes: Callable[[], int] = int
    index_recall: Callable[[], float] = float
    failed: NDArray[np.bool_] | None = None

    @cached_property
    def contexts(self) -> list[list[str]]:
        """Per query the texts of the chunks that are read, in their order."""
        return [self.context.get_texts(row) for row in range(len(self.queries))]

    @cached_property
    def spans(self) -> list[list[evidence.Span]]:
        """Per query where the chunks that are read stand, in their order."""
        chunks = self.context.chunks
        starts, ends = chunks.starts.tolist(), chunks.ends.tolist()
        return [
            [evidence.Span(chunks.document_ids[row], starts[row], ends[row]) for row in rows if row >= 0]
            for rows in self.context.rows.tolist()
        ]

    @cached_property
    def said(self) -> list[str]:
        """Per query the answer, "" where there is none."""
        return [answer or "" for answer in self.answers or [""] * len(self.queries)]

    def mask_unanswered(self, values: Scores) -> Scores:
        """The values, nan where there is no answer to measure."""
        answers: Sequence[str | None] = [None] * len(values) if self.answers is None else self.answers
        return np.where([answer is None for answer in answers], np.nan, values)

    @cached_property
    def handed(self) -> list[list[str]]:
        """Per query the documents that are handed on, in the ranking's order."""
        ids, rows = self.context.chunks.document_ids, self.context.rows.tolist()
        found = []
        for ranking, mine in zip(self.rankings, rows, strict=True):
            read = dict.fromkeys(ids[row] for row in mine if row >= 0)
            # A context component may add documents that were never ranked.
            found.append(list(dict.fromkeys([*(each for each in ranking if each in read), *read])))
        return found

    @cached_property
    def ranked(self) -> dict[str, Scores]:
        """The values of all ranking metrics, measured in one go."""
        names = [name for name in self.metrics if retrieval.find_measure(name) is not None]
        return retrieval.score_rankings(names, self.qrels, [query.id for query in self.queries], self.rankings)

    @cached_property
    def handed_on(self) -> dict[str, Scores]:
        """The values of all metrics `context.<measure>`."""
        names = [name.removeprefix(HANDED) for name in self.metrics if name.startswith(HANDED)]
        ids = [query.id for query in self.queries]
        found = retrieval.score_rankings(names, self.qrels, ids, self.handed, whole=True)
        return {f"{HANDED}{name}": values for name, values in found.items()}


@dataclass(frozen=True)
class Metric:
    """One metric: `values(observed)` gives a float64 per query, nan where it can't be measured.

    One that `pays` calls models, so queries come in batches, and pruning a trial spares some. `reads` is what it
    depends on: RANKS, READS, ALL. One of a ranking reads its first `reach` documents. A `single` one is one figure for
    all questions.
    """

    name: str
    direction: str
    needs: str
    values: Callable[[BatchResult], Scores]
    version: str = ""
    pays: bool = False
    reads: str = ALL
    reach: int = 0
    single: bool = False

    def find_applicable(self, queries: Sequence[Query], qrels: Qrels) -> NDArray[np.bool_]:
        """Per query whether the dataset has what this metric needs; where it has and the value is nan: unmeasured."""
        return np.array([_has_gold(self.needs, query, qrels) for query in queries], bool)


def _has_gold(needs: str, query: Query, qrels: Qrels) -> bool:
    if needs == "qrels":
        return any(grade > 0 for grade in qrels.get(query.id, {}).values())
    # A quote counts: it becomes evidence once its document is parsed.
    return bool({"answers": query.answers, "evidence": query.evidence or query.quotes}.get(needs, True))


def _get_references(observed: BatchResult) -> list[tuple[str, ...]]:
    return [query.answers for query in observed.queries]


def _build_pairwise(name: str) -> Metric:
    def values(observed: BatchResult) -> Scores:
        return observed.mask_unanswered(
            answer.score_answers(answer.PAIRWISE[name], observed.said, _get_references(observed))
        )

    return Metric(name, MAXIMIZE, "answers", values)


def _compute_similarity(observed: BatchResult) -> Scores:
    if observed.answers is None:
        return np.full(len(observed.queries), np.nan)
    return observed.mask_unanswered(answer.similarity(observed.encode, observed.said, _get_references(observed)))


def _build_ranked(name: str, measure: Any) -> Metric:
    if retrieval.is_set_measure(measure):
        raise MetricError(
            f"objective: {name} asks what is there, and a ranking goes on to its end: write {HANDED}{name}, "
            "which measures what is handed on"
        )
    reach = retrieval.get_reach(measure)
    return Metric(name, MAXIMIZE, "qrels", lambda seen: seen.ranked[name], reads=RANKS, reach=reach)


def _build_handed(name: str) -> Metric:
    return Metric(name, MAXIMIZE, "qrels", lambda seen: seen.handed_on[name], reads=READS)


def _build_evidence(name: str, measure: str, k: int) -> Metric:
    def values(observed: BatchResult) -> Scores:
        return evidence.score_evidence(measure, k, observed.spans, [query.evidence for query in observed.queries])

    return Metric(name, MAXIMIZE, "evidence", values, reads=READS)


def _build_grounded(name: str, measure: Callable[[BatchResult, Sequence[str]], Scores]) -> Metric:
    """A metric of an answer and the chunks that it was made from; it needs no reference."""

    def values(observed: BatchResult) -> Scores:
        if observed.answers is None:
            return np.full(len(observed.queries), np.nan)
        return observed.mask_unanswered(measure(observed, observed.said))

    return Metric(name, MAXIMIZE, "generator", values)


def _build_constant(name: str, value: Callable[[BatchResult], float]) -> Metric:
    return Metric(name, MINIMIZE, "", lambda seen: np.full(len(seen.queries), value(seen)), single=True)


def _compute_tokens(observed: BatchResult) -> Scores:
    values = observed.tokens.astype(np.float64)
    # An answer that failed would count as cheap.
    return values if observed.answers is None else observed.mask_unanswered(values)


def _build_usage(name: str) -> Metric:
    """What all stages' calls to models cost a query; 0 where none is called."""

    def values(observed: BatchResult) -> Scores:
        spent = [getattr(usage, name).astype(np.float64) for usage in observed.usage.values()]
        return np.sum(spent, axis=0) if spent else np.zeros(len(observed.queries))

    return Metric(name, MINIMIZE, "", values)


def _build_percentile(name: str, place: int) -> Metric:
    return _build_constant(name, lambda seen: np.nan if seen.latency is None else seen.latency[place])


LATENCY = "latency"
TIMED = ("latency_p50", "latency_p95")
"""Metrics for which every trial's pipeline is timed one question at a time."""

OTHERS = {metric.name: metric for metric in map(_build_pairwise, answer.PAIRWISE)} | {
    # Cosines of MiniLM embeddings: the measuring embedder stays the same whatever embedder is searched.
    "similarity": Metric("similarity", MAXIMIZE, "answers", _compute_similarity),
    "coherence": _build_grounded("coherence", lambda seen, said: context.coherence(seen.encode, said, seen.contexts)),
    "faithfulness": _build_grounded(
        "faithfulness", lambda seen, said: context.faithfulness(seen.encode, seen.split, said, seen.contexts)
    ),
    "diversity": Metric(
        "diversity", MAXIMIZE, "", lambda seen: context.diversity(seen.encode, seen.contexts), reads=READS
    ),
    # What a reader is given (the question and the chunks, in words and marks; a model's own count where one reads), and
    # what the calls before it read and wrote.
    "tokens": Metric("tokens", MINIMIZE, "", _compute_tokens),
    # Calls to language models a query, what they read and write, and dollars; stored replies count like paid ones.
    **{name: _build_usage(name) for name in ("calls", "tokens_in", "tokens_out", "usd")},
    # Seconds a query costs: all stages added up as they took when they were computed, or, where the pipeline is timed
    # apart because latency decides, the median.
    LATENCY: _build_constant(LATENCY, lambda seen: seen.seconds if seen.latency is None else seen.latency[0]),
    # Seconds from question to answer, one question at a time, nothing cached.
    **{name: _build_percentile(name, place) for place, name in enumerate(TIMED)},
    # Bytes of what is searched: vectors, word counts, Chroma's files.
    "index_size": _build_constant("index_size", lambda seen: float(seen.index_bytes())),
    # The share of a query's ten true nearest neighbours that the index finds; 1 where every chunk is compared.
    "index_recall": replace(
        _build_constant("index_recall", lambda seen: seen.index_recall()), direction=MAXIMIZE, reads=ALL
    ),
}


MEASURED_ONCE = ("latency", *TIMED, "index_size", "index_recall")
"""Metrics with one value for all questions: nothing between questions says how sure it is."""


def get_metric(name: str) -> Metric:
    """The metric of this name; raises MetricError with the nearest one."""
    if name in OTHERS:
        return OTHERS[name]
    if (found := evidence.parse_evidence_name(name)) is not None:
        return _build_evidence(name, *found)
    if (measure := retrieval.find_measure(name)) is not None:
        return _build_ranked(name, measure)
    if name.startswith(HANDED) and retrieval.find_measure(name.removeprefix(HANDED)) is not None:
        return _build_handed(name)
    judges = [f"{JUDGE}{aspect}" for aspect in FIELDS]
    handed = [f"{HANDED}{measure}" for measure in (*retrieval.MEASURES, "SetR", "SetP")]
    known = [*retrieval.MEASURES, *handed, *judges, *(f"{measure}@5" for measure in evidence.MEASURES), *OTHERS]
    raise MetricError(f"objective: '{name}' is no metric; {format_hint(name, known)} (also any measure of ir_measures)")


def explain_unmet(chosen: Metric, dataset: Dataset, has_generator: bool) -> str | None:
    """Why this metric can't be measured for a single query; None when it can."""
    lacks = not chosen.find_applicable(dataset.queries, dataset.qrels).any()
    if chosen.needs == "qrels" and lacks:
        return f"{chosen.name} needs relevant documents, and {dataset.name} names none"
    if chosen.needs == "evidence" and lacks:
        return f"{chosen.name} needs evidence (character spans), and {dataset.name} has none"
    if chosen.needs == "answers" and lacks:
        return f"{chosen.name} needs reference answers, and {dataset.name} has none"
    if chosen.needs in ("answers", "generator") and not has_generator:
        return f"{chosen.name} needs a generator, and generator=none writes no answers"
    return None
