"""A set of questions as a whole: what repeats, what stands in the documents, how large a difference it can show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.analysis.paired import compute_detectable
from rag_opt.config.trial import compose_trial
from rag_opt.datasets.duplicates import group_repeats
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.questions.flags import REJECTED, REPEATED, Flag, find_flags
from rag_opt.study.power import SHARE

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.records.documents import Dataset, Document, Query

METRIC = "nDCG@10"
SEARCH = ("retriever=bm25", "generator=none", "query=none", "reranker=none", "context=none")
"""What the questions are searched with: words alone."""

FIRST = 10


@dataclass(frozen=True)
class CheckedQuestion:
    """A question, its documents by grade, and what may be wrong with it.

    `rank` is where the first relevant document stands when it is searched by words alone, 0 behind the first ten.
    """

    query: Query
    grades: Mapping[str, int]
    rank: int
    flags: tuple[Flag, ...]

    @property
    def accepted(self) -> bool:
        """Whether it is proposed to be kept."""
        return not any(flag.name in REJECTED for flag in self.flags)

    def to_row(self) -> dict[str, Any]:
        """The question as rag_opt.datasets.jsonl reads it, with its flags, and whether it is accepted."""
        flags = {flag.name: flag.detail for flag in self.flags}
        return {**build_row(self.query, self.grades), "flags": flags, "accept": self.accepted}


@dataclass(frozen=True)
class QuestionCheck:
    """All questions of a data set, checked.

    `covered` is the share of the documents that are relevant to any question; `crowded` the share of the questions that
    ask for the tenth of the documents that is asked for most; `different` how many questions are not repeats; `mean`
    the mean nDCG@10 by words alone; `detectable` the difference of a metric that spreads like it which so many
    questions show in 8 of 10 studies (nan where it can't be told).
    """

    name: str
    documents: int
    questions: tuple[CheckedQuestion, ...]
    covered: float
    crowded: float
    different: int
    mean: float
    detectable: float
    notes: tuple[str, ...]

    @property
    def counts(self) -> Counter[str]:
        """By flag how many questions have it."""
        return Counter(flag.name for each in self.questions for flag in each.flags)

    @property
    def answered(self) -> int:
        """How many questions have a reference answer."""
        return sum(bool(each.query.answers) for each in self.questions)

    @property
    def first(self) -> float:
        """The share of the questions whose relevant document a search by words ranks first."""
        return sum(each.rank == 1 for each in self.questions) / len(self.questions)


def build_row(query: Query, grades: Mapping[str, int]) -> dict[str, Any]:
    """A question as rag_opt.datasets.jsonl reads it: what it has of gold, answers, evidence, split and group."""
    evidence: list[dict[str, Any]] = [
        {"doc_id": e.document_id, "start": e.start, "end": e.end} for e in query.evidence if e.start >= 0
    ]
    evidence += [
        {"doc_id": q.document_id, "quote": q.text, **({"page": q.page} if q.page else {})} for q in query.quotes
    ]
    known = {
        "relevant": dict(grades),
        "answers": list(query.answers),
        "evidence": evidence,
        "split": query.split,
        "group": query.group,
    }
    return {"id": query.id, "question": query.text, **{key: value for key, value in known.items() if value}}


def check_questions(dataset: Dataset, words: Sequence[str], resources: Resources) -> QuestionCheck:
    """Check the questions of a data set, searched by words alone; `words` are the command line that named it."""
    pipeline = build_pipeline(compose_trial([*words, *SEARCH]), resources)
    # In one batch: there is no pruner to look in between.
    questions = Questions.from_dataset(dataset, 1, 0)
    found = evaluate_pipeline(pipeline, questions, [get_metric(METRIC)])
    # As the parser reads them: of a file the data set itself has no text.
    documents = {each.id: each for each in pipeline.parse_documents(questions.documents).items}
    ranked = dict(zip(found.query_ids, found.retrieved, strict=True))
    leaders = group_repeats(dataset.queries, dataset.qrels).tolist()
    checked = []
    for row, query in enumerate(dataset.queries):
        flags = [Flag(REPEATED, f"question {dataset.queries[leaders[row]].id}")] if leaders[row] != row else []
        checked.append(_check_question(query, dataset.qrels[query.id], documents, ranked[query.id][:FIRST], flags))
    scores = found.per_query[METRIC]
    different = len(set(leaders))
    spread = SHARE * float(np.nanstd(scores)) if np.isfinite(scores).any() else float("nan")
    asked = Counter(name for each in checked for name, grade in each.grades.items() if grade > 0)
    most = sum(count for _, count in asked.most_common(max(1, len(documents) // 10)))
    return QuestionCheck(
        name=dataset.name,
        documents=len(documents),
        questions=tuple(checked),
        covered=len(asked) / len(documents),
        crowded=most / max(1, asked.total()),
        different=different,
        mean=found.means[METRIC],
        detectable=compute_detectable(spread, different) if different > 1 else float("nan"),
        notes=dataset.notes,
    )


def _check_question(
    query: Query,
    grades: Mapping[str, int],
    documents: Mapping[str, Document],
    ranked: Sequence[str],
    flags: Sequence[Flag],
) -> CheckedQuestion:
    relevant = [name for name, grade in grades.items() if grade > 0]
    rank = next((place for place, name in enumerate(ranked, 1) if name in relevant), 0)
    # Where none of its own is among the first, all of these stand before.
    before = ranked[: rank - 1] if rank else ranked
    found = find_flags(query, [documents[name] for name in relevant], [documents[name] for name in before])
    return CheckedQuestion(query, grades, rank, (*flags, *found))
