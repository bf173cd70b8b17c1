"""Which documents of the corpus retrieved ones are, and where in them they stand: relevance belongs to the documents.

A retrieved document is the corpus' own by an id (its own, or one in its meta, which splitters copy from the document
that they split) or by its text. Where in it it stands says `split_idx_start`, or its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rag_opt.components.external.found import Found, FoundDocument
from rag_opt.components.own_documents import Pair
from rag_opt.components.ranking import score_by_rank, stack_rankings
from rag_opt.errors import ComponentError
from rag_opt.records.documents import Document, Documents
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Rankings
from rag_opt.system.haystack import ByteStream
from rag_opt.system.haystack import Document as HaystackDocument

DOCUMENT_ID = "document_id"
"""The field of a document's meta under which the corpus' id is written into pipelines."""

FIELDS = (DOCUMENT_ID, "id", "source_id", "doc_id", "parent_id")
"""Where an id is looked for first; any other field of the meta comes after them, where the text fits, too."""

START = "split_idx_start"
SHOWN = 3
"""Ids, and fields, that are shown where none fits."""

SHORT = 24
"""Characters of each."""


@dataclass(frozen=True)
class Place:
    """Where a retrieved document stands: in document number `row`, characters [start, end); or its text, row -1."""

    row: int
    start: int = 0
    end: int = 0
    text: str = ""
    name: str = ""


class Corpus:
    """The documents by ids and texts; `gold` is the field of a meta that holds the id (None: it is looked for)."""

    def __init__(self, documents: Documents, gold: str | None = None) -> None:
        self.documents = documents
        self.gold = gold
        self.rows = {each.id: row for row, each in enumerate(documents.items)}

    @cached_property
    def _by_text(self) -> dict[str, int]:
        # From the end, so that of equal texts the first is found.
        return {each.text: row for row, each in reversed(list(enumerate(self.documents.items)))}

    def find_place(self, found: FoundDocument) -> Place:
        """Where a retrieved document stands; in no document of the corpus where neither an id nor its text is known."""
        row = self.find_row(found)
        if row is None:
            name = str(found.meta.get(DOCUMENT_ID) or found.id or (found.text or "")[:40])
            return Place(-1, text=found.text or "", name=name)
        whole = self.documents.items[row].text
        # A plain string is both (`parse_found`): where it is the id it stands for the whole document.
        if found.text is None or found.text in (whole, self.documents.items[row].id):
            return Place(row, 0, len(whole))
        start = found.meta.get(START)
        # The number counts only where the text stands there: cleaning may have moved it.
        if not isinstance(start, int) or not whole.startswith(found.text, max(0, start)):
            start = whole.find(found.text)
        # What was cleaned or rewritten is the document's, but stands nowhere in it.
        return Place(row, start, start + len(found.text)) if start >= 0 else Place(row, text=found.text)

    def find_row(self, found: FoundDocument) -> int | None:
        """The number of the document that a retrieved one is, or is a part of; None for none."""
        for value in self._iterate_ids(found):
            if (row := self.rows.get(value)) is not None:
                return row
        # Where a field is named, no text decides.
        if self.gold is not None or not found.text:
            return None
        return self._by_text.get(found.text, None) if found.text in self._by_text else self._find_within(found.text)

    def _iterate_ids(self, found: FoundDocument) -> Iterator[str]:
        if self.gold is not None:
            yield str(found.meta.get(self.gold, ""))
            return
        known: Mapping[str, object] = {"id": found.id, **found.meta}
        for name in dict.fromkeys([*(each for each in FIELDS if each in known), *sorted(known)]):
            value = known[name]
            if isinstance(value, str | int) and not isinstance(value, bool):
                row = self.rows.get(str(value))
                # A page's number may be a document's id by chance: what is called otherwise needs the text as well.
                if name in FIELDS or (row is not None and (found.text or "") in self.documents.items[row].text):
                    yield str(value)

    def _find_within(self, text: str) -> int | None:
        """The only document that a text is a part of."""
        rows = [row for row, each in enumerate(self.documents.items) if text in each.text]
        return rows[0] if len(rows) == 1 else None


def build_rankings(found: Sequence[Found | None], corpus: Corpus, key: str) -> Rankings:
    """The rankings of these results, one a query; a query that failed (None) has none and can't be measured."""
    places = [[corpus.find_place(each) for each in result.documents or ()] if result else [] for result in found]
    # Each once: what several queries find is one chunk, and what one of them finds twice is one hit.
    numbers = {place: number for number, place in enumerate(dict.fromkeys(p for row in places for p in row))}
    chunks = build_chunks(list(numbers), corpus.documents, key)
    pairs = [_rank(result, row, numbers) for result, row in zip(found, places, strict=True)]
    columns = stack_rankings(pairs, max([1, *(len(rows) for rows, _ in pairs)]))
    failed = np.array([result is None for result in found], np.bool_)
    return Rankings(chunks, columns["rows"], columns["scores"], key, failed=failed if failed.any() else None)


def _rank(found: Found | None, places: Sequence[Place], numbers: Mapping[Place, int]) -> Pair:
    """A result's chunks in its order, with its own scores where these are in that order, else 1 / rank."""
    scores: dict[int, float | None] = {}
    for place, document in zip(places, (found.documents or ()) if found else (), strict=True):
        scores.setdefault(numbers[place], document.score)
    rows, given = np.array(list(scores), np.int32), list(scores.values())
    known = [score for score in given if score is not None]
    if len(known) < len(given) or known != sorted(known, reverse=True):
        return score_by_rank(rows)
    return rows, np.array(known, np.float32)


def build_chunks(places: Sequence[Place], documents: Documents, key: str, seconds: float = 0.0) -> Chunks:
    """A chunk for each place; texts that stand nowhere in the corpus are documents behind it."""
    more: list[Document] = []
    rows, starts, ends = (np.zeros(len(places), np.int32) for _ in range(3))
    for number, place in enumerate(places):
        rows[number], starts[number], ends[number] = place.row, place.start, place.end
        if place.row < 0 or place.text:
            known = documents.items[place.row] if place.row >= 0 else None
            # Behind the document's own text: no evidence in it is mistaken for this.
            before = known.text if known else ""
            name = known.id if known else f"not in the corpus: {place.name}"
            rows[number] = len(documents.items) + len(more)
            starts[number], ends[number] = len(before), len(before) + len(place.text)
            more.append(Document(name, before + place.text, ""))
    whole = Documents((*documents.items, *more), compute_key(documents.key, key)) if more else documents
    return Chunks(whole, rows, starts, ends, key, seconds)


def check_gold(found: Sequence[Found | None], corpus: Corpus, gold_ids: Sequence[str], named: str) -> None:
    """Raise ComponentError where documents were found and none of them is one of the corpus'."""
    documents = [each for result in found if result for each in result.documents or ()]
    if not documents or any(corpus.find_row(each) is not None for each in documents):
        return
    shown = "; ".join(_format_document(each) for each in documents[:SHOWN])
    wanted = ", ".join(repr(each) for each in gold_ids[:SHOWN])
    told = f"no meta.{corpus.gold} is an id" if corpus.gold else "no id, no field of a meta and no text fits"
    raise ComponentError(
        f"{named}: no document that it finds is one of the corpus' ({told})\n  found: {shown}\n  the corpus: {wanted}\n"
        f"  have it keep {DOCUMENT_ID} in the meta, or name the field that holds the id: pipeline.gold=…"
    )


def _format_document(found: FoundDocument) -> str:
    meta = [(key, str(value)[:SHORT]) for key, value in found.meta.items() if isinstance(value, str | int)]
    told = "".join(f", meta.{key} {value!r}" for key, value in meta[:SHOWN])
    return f"id {str(found.id)[:SHORT]!r}{told}"


def make_hit(chunks: Chunks, row: int, score: float | None = None, values: Any = None) -> HaystackDocument:
    """A chunk as Haystack's document: by its number, with its document's id and title, its page and headings."""
    meta = chunks.get_metadata(row)
    embedding = None if values is None else values[row].tolist()
    content = chunks.texts[row] if values is None else chunks.contents[row]
    return HaystackDocument(id=str(row), content=content, meta=meta, score=score, embedding=embedding)


def make_document(document: Document) -> HaystackDocument:
    """A document of the corpus as Haystack's."""
    meta = {DOCUMENT_ID: document.id, **({"title": document.title} if document.title else {})}
    return HaystackDocument(id=document.id, content=document.text, meta=meta)


def make_source(document: Document) -> ByteStream:
    """A document of the corpus as a file's content, with its id beside it."""
    made = make_document(document)
    return replace(
        ByteStream.from_string(document.text, mime_type="text/plain"),
        meta={**made.meta, "file_path": f"{document.id}.txt"},
    )
