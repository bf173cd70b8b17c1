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

from rag_opt.records.keys import compute_key

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
                # In place, not a copy: whoever made the array can't write to it any more either.
                value.flags.writeable = False


HEADING, PAGE, TABLE = "heading", "page", "table"
"""What a part of a text may be."""


@dataclass(frozen=True)
class Mark(Record):
    """The characters [start, end) of a text that are a part of this kind.

    `name` is a heading's words, a page's number as it is printed, a table's name; `level` a heading's, 1 the highest.
    """

    kind: str
    start: int
    end: int
    name: str = ""
    level: int = 0


@dataclass(frozen=True)
class Document(Record):
    """One text of the corpus; character spans refer to `text`, never to the title.

    `marks` are the headings, pages and tables that are known of it, by their beginnings.
    """

    id: str
    text: str
    title: str = ""
    marks: tuple[Mark, ...] = ()

    @property
    def content(self) -> tuple[str, ...]:
        """What stands for the document in keys."""
        return self.id, self.title, self.text

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The document that `dataclasses.asdict` made such a row of, also by way of JSON."""
        return cls(**{**row, "marks": tuple(Mark(**each) for each in row["marks"])})


def find_page(document: Document, place: int) -> str:
    """The name of the page on which a character stands; "" where no pages are known."""
    pages = (mark.name for mark in document.marks if mark.kind == PAGE and mark.start <= place < mark.end)
    return next(pages, "")


def find_headings(document: Document, place: int) -> tuple[str, ...]:
    """The headings above a character, the highest first; () where there is none.

    A heading is above what follows it up to the next one of its level or a higher one.
    """
    path: list[Mark] = []
    for mark in document.marks:
        if mark.start > place:
            break
        if mark.kind == HEADING:
            path = [*(above for above in path if above.level < mark.level), mark]
    return tuple(mark.name for mark in path)


@dataclass(frozen=True)
class SourceFile(Document):
    """A document that no parser has read yet: where its bytes lie, and their SHA-256; its text is empty."""

    path: str = ""
    digest: str = ""

    @property
    def content(self) -> tuple[str, ...]:
        return self.id, self.digest


@dataclass(frozen=True)
class Evidence(Record):
    """The characters [start, end) of a document's text that answer a query."""

    document_id: str
    start: int
    end: int

    @property
    def place(self) -> tuple[str, int, int]:
        """What stands for it in keys."""
        return self.document_id, self.start, self.end


@dataclass(frozen=True)
class Quote(Record):
    """Words of a document that answer a query, wherever they stand in its text; on this `page`, where one is named."""

    document_id: str
    text: str
    page: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """What stands for it in keys."""
        return self.document_id, self.text, self.page


@dataclass(frozen=True)
class Query(Record):
    """One question, with what is known of its answer.

    `quotes` are evidence that is not found yet: which characters they are depends on how a file is read. `own` is the
    document that it is itself, `split` the one of the data set's own that it is of, `group` what it has in common with
    others, so that they are one observation; "" for none.
    """

    id: str
    text: str
    answers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    own: str = ""
    split: str = ""
    group: str = ""
    quotes: tuple[Quote, ...] = ()

    @property
    def evidence_documents(self) -> list[str]:
        """The documents of its evidence, found or not yet."""
        spans, quotes = (each.document_id for each in self.evidence), (each.document_id for each in self.quotes)
        return list(dict.fromkeys((*spans, *quotes)))


Qrels = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, eq=False)
class Documents(Record):
    """The corpus as pipelines see it; `seconds` are those that reading its files took."""

    items: tuple[Document, ...]
    key: str
    seconds: float = 0.0


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
    def from_items(cls, items: tuple[Query, ...]) -> Queries:
        """The set of these queries; its key depends on their texts, and on the documents that they are themselves."""
        # Left out where there are none: what stores hold of such queries keeps its key.
        own = [query.own for query in items]
        return cls(items, compute_key("queries", [query.text for query in items], *([own] if any(own) else [])))

    @property
    def whole(self) -> Queries:
        return self.whole_set or self

    @cached_property
    def texts(self) -> list[str]:
        return [query.text for query in self.items]

    def take_rows(self, of_set: NDArray[Any]) -> NDArray[Any]:
        """The rows of this batch out of an array with one row for each query of the whole set; a set takes them all."""
        return of_set if self.whole_set is None else of_set[self.rows]

    def make_batch(self, rows: Ints) -> Queries:
        """The batch made of these rows of this set."""
        chosen = tuple(self.items[row] for row in rows)
        return Queries(chosen, compute_key("batch", self.key, rows.tolist()), self, rows)


@dataclass(frozen=True)
class Dataset(Record):
    """Documents, queries, graded qrels; `notes` says in plain words what was dropped or clipped.

    `confirming` are the ids of the queries that the data set itself keeps to confirm; none: they are cut at random.
    """

    name: str
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: Qrels
    notes: tuple[str, ...] = ()
    confirming: frozenset[str] = frozenset()

    @cached_property
    def fingerprint(self) -> str:
        """The content key: equal exactly when documents, queries, answers, evidence and qrels are."""
        documents = [d.content for d in self.documents]
        evidence = [[*(e.place for e in q.evidence), *(e.place for e in q.quotes)] for q in self.queries]
        # Left out where there is none: earlier studies keep their fingerprints.
        queries = [(q.id, q.text, q.answers, *([q.own] if q.own else [])) for q in self.queries]
        # As a dict: another Mapping would stand in the key as its repr.
        qrels = {query: dict(grades) for query, grades in self.qrels.items()}
        return compute_key("dataset", documents, queries, evidence, qrels)
