"""Where the words of a quote stand in a text, however a parser has broken its lines."""

from __future__ import annotations

import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rag_opt.console.terminal import format_names, sanitize_line
from rag_opt.records.documents import PAGE, Document, Evidence, Query, Quote

SHOWN = 60
"""Characters of a quote that are shown."""

LIGHT = frozenset("-\u00ad\u2010\u2011\u200b\ufeff*_`#|\\")
"""What parsers add or leave away: hyphens at line ends, Markdown's marks, a table's bars."""


@dataclass(frozen=True)
class FoundEvidence:
    """Queries whose quotes have become evidence, and the quotes that stand nowhere in their documents."""

    queries: tuple[Query, ...]
    missing: tuple[Quote, ...]
    total: int

    def format_missing(self) -> str:
        """How many quotes were not found, and the first ones."""
        named = format_names([f"{each.document_id}: {sanitize_line(each.text)[:SHOWN]}" for each in self.missing])
        return f"{len(self.missing)} of {self.total} quotes are not in their documents as they were read: {named}"


def find_evidence(queries: Sequence[Query], documents: Iterable[Document]) -> FoundEvidence:
    """The queries with each quote as the characters where it stands.

    A quote that is not found becomes evidence that nothing can retrieve: a parser that loses it must not score better
    for that. Queries without quotes stay as they are.
    """
    by_id = {document.id: document for document in documents}
    missing: list[Quote] = []
    made = []
    for query in queries:
        before = len(missing)
        places = tuple(_place(quote, by_id, missing, before) for quote in query.quotes)
        made.append(replace(query, evidence=(*query.evidence, *places), quotes=()) if places else query)
    return FoundEvidence(tuple(made), tuple(missing), sum(len(query.quotes) for query in queries))


def _place(quote: Quote, documents: dict[str, Document], missing: list[Quote], before: int) -> Evidence:
    """Where a quote stands; of missing ones those behind `before` are the same query's."""
    document = documents.get(quote.document_id)
    span = None if document is None else find_quote(document, quote)
    if span is None:
        # Characters in front of the text, as many as the quote has: in no chunk, and in no other missing quote's.
        end = -sum(len(each.text) + 1 for each in missing[before:])
        missing.append(quote)
        span = end - len(quote.text), end
    return Evidence(quote.document_id, *span)


def find_quote(document: Document, quote: Quote) -> tuple[int, int] | None:
    """The characters of a document that are the quote; None where it stands nowhere in it.

    Exactly, else without regard to case, accents, spaces, hyphens, ligatures and marks of Markdown; on its page first.
    """
    pages = [mark for mark in document.marks if mark.kind == PAGE and mark.name == quote.page] if quote.page else []
    # Then anywhere: a quote may run on to the next page.
    ranges = [*((page.start, page.end) for page in pages), (0, len(document.text))]
    found = (_find_in_range(document.text, quote.text, *each) for each in ranges)
    return next((span for span in found if span is not None), None)


def _find_in_range(text: str, quote: str, start: int, end: int) -> tuple[int, int] | None:
    place = text.find(quote, start, end)
    if place >= 0:
        return place, place + len(quote)
    wanted, (folded, places) = _fold(quote)[0], _fold(text)
    hit = folded.find(wanted, bisect_left(places, start), bisect_left(places, end)) if wanted else -1
    return None if hit < 0 else (places[hit], places[hit + len(wanted) - 1] + 1)


@lru_cache(maxsize=4_096)
def _fold(text: str) -> tuple[str, Sequence[int]]:
    """The letters of a text as they are compared, and from which of its characters each comes."""
    letters: list[str] = []
    # Four bytes a letter: whole corpora stay in memory while quotes are looked for.
    places = array("I")
    for place, letter in enumerate(text):
        if letter.isspace() or letter in LIGHT:
            continue
        for plain in unicodedata.normalize("NFKD", letter.casefold()):
            # Accents may be letters of their own in one text and not in the other.
            if not plain.isspace() and not unicodedata.combining(plain):
                letters.append(plain)
                places.append(place)
    return "".join(letters), places
