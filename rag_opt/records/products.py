"""What the stages of a pipeline give each other: chunks, vectors, rankings, answers, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag_opt.records.documents import (
    HEADING,
    Document,
    Documents,
    Floats,
    Ints,
    Queries,
    Record,
    Scores,
    find_headings,
    find_page,
)
from rag_opt.records.keys import compute_key

Costs = Mapping[str, float]
"""Seconds by the piece of work that they were spent on, so that what two results share is counted once."""


# eq=False here and below: arrays that are compared give an array, which has no truth of its own.
@dataclass(frozen=True, eq=False)
class Usage(Record):
    """What the calls of one stage to a model cost, one number a query; `usd` is nan where a price is not known.

    `broken` are the calls that failed or gave what could not be read; `asked` counts what was wanted of the model,
    whatever number of calls that took, `lost` how much of it never came.
    """

    stage: str
    calls: Ints
    tokens_in: Ints
    tokens_out: Ints
    usd: Scores
    broken: Ints
    asked: Ints | int = 0
    lost: Ints | int = 0


SPENT = ("calls", "tokens_in", "tokens_out", "usd", "broken")
"""The columns of a Usage that are told."""


Usages = Mapping[str, Usage]
"""By the piece of work that it was spent on, as with `Costs`."""


def sum_by_stage(spent: Iterable[Usage]) -> dict[str, Usage]:
    """What each stage's calls cost in all, still one number a query; {} for none."""
    found: dict[str, Usage] = {}
    for each in spent:
        # None for a stage's first, whose columns then count as 0.
        same = found.get(each.stage)
        columns = {name: getattr(each, name) + getattr(same, name, 0) for name in (*SPENT, "asked", "lost")}
        found[each.stage] = Usage(each.stage, **columns)
    return found


def sum_tokens(usage: Usages, count: int) -> Ints:
    """What all these calls have read and written, int32 [count], for each of `count` queries; zeros for none."""
    total = np.zeros(count, np.int32)
    for each in usage.values():
        total += each.tokens_in + each.tokens_out
    return total


@dataclass(frozen=True, eq=False)
class Searches(Record):
    """What is searched for in place of the queries: `variants`, each with one text a query, in the queries' order.

    The vectors of all variants are averaged to one (`averaged`), or each is searched for and the rankings are fused.
    """

    variants: tuple[Queries, ...]
    averaged: bool = False
    costs: Costs = field(default_factory=dict)
    usage: Usages = field(default_factory=dict)

    @property
    def key(self) -> str:
        return compute_key("searches", [variant.key for variant in self.variants], self.averaged)


@dataclass(frozen=True, eq=False)
class Chunks(Record):
    """Spans of documents: chunk i is characters [starts[i], ends[i]) of document number document_rows[i].

    `base` are the chunks that these begin with, where more were added for a question. With `headed` the headings above
    a chunk are read in front of it.
    """

    documents: Documents
    document_rows: Ints
    starts: Ints
    ends: Ints
    key: str
    seconds: float = 0.0
    base: Chunks | None = None
    headed: bool = False

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def texts(self) -> list[str]:
        """Each chunk's own characters."""
        items, known = self.documents.items, self.base.texts if self.base else []
        columns = (column[len(known) :].tolist() for column in (self.document_rows, self.starts, self.ends))
        return known + [items[row].text[start:end] for row, start, end in zip(*columns, strict=True)]

    @cached_property
    def contents(self) -> list[str]:
        """What is indexed: the document's title, where it has one, then the chunk."""
        known = self.base.contents if self.base else []
        new = slice(len(known), None)
        texts = zip(self._get_titles(self.document_rows[new]), self.texts[new], strict=True)
        return known + [f"{title}\n{text}" if title else text for title, text in texts]

    @cached_property
    def readings(self) -> list[str]:
        """What is read of each chunk."""
        if not self.headed:
            return self.texts
        return [self._put_headings(row, text) for row, text in enumerate(self.texts)]

    def _put_headings(self, row: int, text: str) -> str:
        document, start = self.documents.items[self.document_rows[row]], int(self.starts[row])
        headings = find_headings(document, start)
        # A chunk that begins with the last of them says that itself.
        begins = any(mark.kind == HEADING and mark.start == start for mark in document.marks)
        above = headings[:-1] if begins else headings
        return f"{' > '.join(above)}\n{text}" if above else text

    def get_metadata(self, row: int) -> dict[str, Any]:
        """What is known of a chunk beside its text: its `document_id`, and `title`, `page`, `headings` if any."""
        document = self.documents.items[self.document_rows[row]]
        start = int(self.starts[row])
        known = {
            "title": document.title,
            "page": find_page(document, start),
            "headings": list(find_headings(document, start)),
        }
        return {"document_id": document.id, **{key: value for key, value in known.items() if value}}

    def format_place(self, row: int) -> str:
        """Where a chunk stands, for people: its document, its page and the headings above it."""
        about = self.get_metadata(row)
        page = f", page {about['page']}" if "page" in about else ""
        return f"{about['document_id']}{page}{''.join(f' > {heading}' for heading in about.get('headings', ()))}"

    @property
    def titles(self) -> list[str]:
        """Each chunk's document's title, "" where it has none."""
        return self._get_titles(self.document_rows)

    def _get_titles(self, rows: Ints) -> list[str]:
        return [self.documents.items[row].title for row in rows.tolist()]

    @cached_property
    def document_ids(self) -> list[str]:
        known = self.base.document_ids if self.base else []
        return known + [self.documents.items[row].id for row in self.document_rows[len(known) :].tolist()]

    def append_documents(self, documents: tuple[Document, ...]) -> Chunks:
        """These chunks, then each of more documents as one chunk."""
        whole = Documents(
            (*self.documents.items, *documents), compute_key(self.documents.key, [each.content for each in documents])
        )
        first, count = len(self.documents.items), len(documents)
        rows = np.concatenate([self.document_rows, np.arange(first, first + count, dtype=np.int32)])
        starts = np.concatenate([self.starts, np.zeros(count, np.int32)])
        ends = np.concatenate([self.ends, np.array([len(each.text) for each in documents], np.int32)])
        return Chunks(whole, rows, starts, ends, compute_key(self.key, whole.key), self.seconds, self)


@dataclass(frozen=True, eq=False)
class Vectors(Record):
    """Unit vectors, float32 [n, dimensions], one a chunk or a query; `seconds` is the time they took."""

    values: Floats
    key: str
    seconds: float = 0.0


def normalize_vectors(vectors: Floats) -> Floats:
    """The vectors at length 1; those of length 0 stay."""
    # 1e-12 as in torch.nn.functional.normalize; a float32, so that the vectors stay float32.
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return scaled


@dataclass(frozen=True, eq=False)
class QueryVectors(Record):
    """What is searched for as vectors: sets of texts, each with the vectors of its whole set."""

    searches: Searches
    queries: tuple[Queries, ...]
    vectors: tuple[Vectors, ...]

    @property
    def own(self) -> Floats:
        """The vectors that stand for the queries themselves, one a query of the batch."""
        return self.queries[0].take_rows(self.vectors[0].values)


@dataclass(frozen=True, eq=False)
class Rankings(Record):
    """Per query the rows of the chunks that are handed on, best first, with their scores (greater is better).

    `rows` and `scores` are [queries, chunks]; a query with fewer hits ends in row -1, score -inf. `rest` are the rows
    that are ranked behind them, [queries, any], -1 where there is none: they are measured, and read by no stage.
    `costs` is what one query has cost so far, every stage before included; `usage` the same of calls to models.
    `failed` are the queries, bool [queries], of which nothing can be measured (None: none).
    """

    chunks: Chunks
    rows: Ints
    scores: Floats
    key: str
    costs: Costs = field(default_factory=dict)
    usage: Usages = field(default_factory=dict)
    rest: Ints | None = None
    failed: NDArray[np.bool_] | None = None

    @property
    def whole(self) -> Ints:
        """All that is ranked, what is handed on and the rest: [queries, any], -1 where there is none."""
        return self.rows if self.rest is None else np.concatenate([self.rows, self.rest], axis=1)

    def take(self, rows: Ints) -> Rankings:
        """The rankings of these queries."""
        # Costs are one query's, and so the same for a part of the queries.
        key, rest = compute_key(self.key, rows.tolist()), None if self.rest is None else self.rest[rows]
        failed = None if self.failed is None else self.failed[rows]
        return Rankings(self.chunks, self.rows[rows], self.scores[rows], key, self.costs, self.usage, rest, failed)

    def add_costs(self, *causes: Searches | Rankings) -> Rankings:
        """The same, with what these have cost before."""
        # By piece of work and not added up: two rankings of one search have both paid for it, and it counts once.
        costs = {key: cost for each in (*causes, self) for key, cost in each.costs.items()}
        usage = {key: spent for each in (*causes, self) for key, spent in each.usage.items()}
        return replace(self, costs=costs, usage=usage)

    def get_texts(self, query: int) -> list[str]:
        """The texts of the chunks found for one query, best first."""
        texts = self.chunks.readings
        return [texts[row] for row in self.rows[query].tolist() if row >= 0]

    def get_hits(self, query: int) -> list[tuple[int, float]]:
        """(chunk row, score) of one query, best first."""
        found = zip(self.rows[query].tolist(), self.scores[query].tolist(), strict=True)
        return [(row, score) for row, score in found if row >= 0]


@dataclass(frozen=True, eq=False)
class Answers(Record):
    """One answer a query, and the tokens read and written for it.

    A text is "" where there was nothing to answer from, None where the answerer failed: that is not measurable.
    """

    texts: tuple[str | None, ...]
    tokens: Ints
    key: str
    costs: Costs = field(default_factory=dict)
    usage: Usages = field(default_factory=dict)
