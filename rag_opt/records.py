"""The frozen records that travel between all parts.

Haystack copies every input of every component deeply. A record answers `copy.deepcopy` with itself, which is
right because nothing changes it: arrays are made read-only on the way in. A record that is the product of a stage
carries `key`, the hash of how it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rag_opt.keys import key_of

Costs = Mapping[str, float]
"""Seconds by the piece of work that they were spent on, so that what two results share is counted once."""

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Scores = NDArray[np.float64]


class Record:
    """A value that nothing changes, so that a copy of it is itself."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False


@dataclass(frozen=True)
class Document(Record):
    """One text of the corpus; character spans refer to `text`, never to the title."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Evidence(Record):
    """The characters [start, end) of a document's text that answer a query."""

    document_id: str
    start: int
    end: int


@dataclass(frozen=True)
class Query(Record):
    """One question, with what is known of its answer."""

    id: str
    text: str
    answers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


Qrels = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, eq=False)
class Documents(Record):
    """The corpus as pipelines see it."""

    items: tuple[Document, ...]
    key: str


@dataclass(frozen=True, eq=False)
class Queries(Record):
    """A batch of queries: rows `rows` of the set `whole_set` (None: the batch is a set of its own).

    Stages that cost little per query but have a fixed price per call work on the whole set once and hand out rows.
    """

    items: tuple[Query, ...]
    key: str
    whole_set: Queries | None = None
    rows: Ints = field(default_factory=lambda: np.zeros(0, np.int32))

    @classmethod
    def of(cls, items: tuple[Query, ...]) -> Queries:
        """The set of these queries; its key depends on their texts alone."""
        return cls(items, key_of("queries", [query.text for query in items]))

    @property
    def whole(self) -> Queries:
        return self.whole_set or self

    @cached_property
    def texts(self) -> list[str]:
        return [query.text for query in self.items]

    def of_batch(self, of_set: NDArray[Any]) -> NDArray[Any]:
        """The rows of this batch out of an array with one row for each query of the whole set."""
        return of_set if self.whole_set is None else of_set[self.rows]

    def batch(self, rows: Ints) -> Queries:
        """The batch made of these rows of this set."""
        chosen = tuple(self.items[row] for row in rows)
        return Queries(chosen, key_of("batch", self.key, rows.tolist()), self, rows)


@dataclass(frozen=True, eq=False)
class Chunks(Record):
    """Spans of documents: chunk i is characters [starts[i], ends[i]) of document number document_rows[i]."""

    documents: Documents
    document_rows: Ints
    starts: Ints
    ends: Ints
    key: str
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def texts(self) -> list[str]:
        """Each chunk's own characters."""
        items = self.documents.items
        spans = zip(self.document_rows.tolist(), self.starts.tolist(), self.ends.tolist(), strict=True)
        return [items[row].text[start:end] for row, start, end in spans]

    @cached_property
    def contents(self) -> list[str]:
        """What is indexed: the document's title, where it has one, then the chunk."""
        titles = (self.documents.items[row].title for row in self.document_rows.tolist())
        return [f"{title}\n{text}" if title else text for title, text in zip(titles, self.texts, strict=True)]

    @cached_property
    def document_ids(self) -> list[str]:
        return [self.documents.items[row].id for row in self.document_rows.tolist()]


@dataclass(frozen=True, eq=False)
class Vectors(Record):
    """Unit vectors, float32 [n, dimensions], one a chunk or a query; `seconds` is the time they took."""

    values: Floats
    key: str
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Rankings(Record):
    """Per query the rows of the chunks found, best first, with their scores (greater is better).

    `rows` and `scores` are [queries, depth]; a query with fewer hits ends in row -1, score -inf.
    `costs` is what one query has cost so far, every stage before included.
    """

    chunks: Chunks
    rows: Ints
    scores: Floats
    key: str
    costs: Costs = field(default_factory=dict)

    def take(self, rows: Ints) -> Rankings:
        """The rankings of these queries."""
        return Rankings(self.chunks, self.rows[rows], self.scores[rows], key_of(self.key, rows.tolist()), self.costs)

    def hits(self, query: int) -> list[tuple[int, float]]:
        """(chunk row, score) of one query, best first."""
        found = zip(self.rows[query].tolist(), self.scores[query].tolist(), strict=True)
        return [(row, score) for row, score in found if row >= 0]


@dataclass(frozen=True, eq=False)
class Answers(Record):
    """One answer a query ("" where there was nothing to answer from), and the tokens read and written for it."""

    texts: tuple[str, ...]
    tokens: Ints
    key: str
    costs: Costs = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset(Record):
    """Documents, queries, graded qrels; `notes` says in plain words what was dropped or clipped."""

    name: str
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: Qrels
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """The content key: equal exactly when documents, queries, answers, evidence and qrels are."""
        documents = [(d.id, d.title, d.text) for d in self.documents]
        evidence = [[(e.document_id, e.start, e.end) for e in q.evidence] for q in self.queries]
        queries = [(q.id, q.text, q.answers) for q in self.queries]
        qrels = {query: dict(grades) for query, grades in self.qrels.items()}
        return key_of("dataset", documents, queries, evidence, qrels)


@dataclass(frozen=True, eq=False)
class Evaluation(Record):
    """What a pipeline scored: per query (nan: not measurable for that query) and as means over the measured ones.

    `seconds`: what "indexing" took whenever it was done, what a "query" takes on average, and how long the "evaluation"
    itself took, with whatever came from the store. `coverage` is the share of the measurable queries that was measured.
    """

    query_ids: tuple[str, ...]
    per_query: Mapping[str, Scores]
    means: Mapping[str, float]
    seconds: Mapping[str, float]
    answers: tuple[str, ...] = ()
    retrieved: tuple[tuple[str, ...], ...] = ()
    coverage: Mapping[str, float] = field(default_factory=dict)
