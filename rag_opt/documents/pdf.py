"""PDF, read by pypdf in the order in which it was drawn, or by pdfminer.six by its layout."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

from rag_opt.documents.parsed import Parsed, UnreadableFileError, Writer

HYPHENATED = re.compile(r"(?<=[^\W\d_])[-\u00ad]\n(?=[^\W\d_])")
"""A word that was divided at the end of a line."""

NEEDS_OCR = "its pages are pictures: it needs OCR (ocrmypdf makes a copy with text)"

WORD_GAP = 3.0
"""Widths of a character between words of one line: of justified columns pdfminer's own 2 loses 7 % of the lines.

Columns stay apart that lie 4 mm from each other, measured by studies/documents/make.py.
"""


def parse_by_pypdf(data: bytes) -> Parsed:
    """The pages' texts as they were drawn, headings from the outline."""
    _check_beginning(data)
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    # It warns of flaws in files that it reads all the same.
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = PdfReader(io.BytesIO(data))
        # Many files are encrypted with an empty password, which only forbids printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFileError("it is encrypted, and needs a password")
        title = str((reader.metadata and reader.metadata.title) or "")
        # Pages by their labels, as people name them: iv, 12, A-3.
        labels, headings = reader.page_labels, _read_outline(reader, reader.outline)
        pages = (
            (labels[number], page.extract_text(), headings.get(number, [])) for number, page in enumerate(reader.pages)
        )
        # Within the try: pages are read only as they are written, and damage shows then.
        return _write_pages(pages, title)
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # What damaged files make pypdf raise.
        raise UnreadableFileError(f"it is damaged: {type(error).__name__}: {error}") from error


def parse_by_pdfminer(data: bytes) -> Parsed:
    """The pages' texts by their layout: columns one after the other, lines joined to paragraphs."""
    _check_beginning(data)
    from pdfminer.high_level import extract_pages
    from pdfminer.layout import LAParams, LTTextContainer
    from pdfminer.pdfdocument import PDFPasswordIncorrect
    from pdfminer.pdfexceptions import PDFException
    from pdfminer.psparser import PSException

    logging.getLogger("pdfminer").setLevel(logging.ERROR)

    def read_page(page: Any) -> str:
        return "\n\n".join(box.get_text().strip() for box in page if isinstance(box, LTTextContainer))

    try:
        pages = extract_pages(io.BytesIO(data), laparams=LAParams(char_margin=WORD_GAP))
        return _write_pages((str(page.pageid), read_page(page), []) for page in pages)
    except PDFPasswordIncorrect as error:
        raise UnreadableFileError("it is encrypted, and needs a password") from error
    except (PDFException, PSException, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UnreadableFileError(f"it is damaged: {type(error).__name__}: {error}") from error


def _check_beginning(data: bytes) -> None:
    # Readers look for it so far, since mail programs have put lines in front.
    if b"%PDF-" not in data[:1024]:
        raise UnreadableFileError("it is no PDF, whatever its ending says")


Headings = list[tuple[str, int]]
"""The words of a page's headings, and their levels."""


def _read_outline(reader: Any, items: list[Any], level: int = 1) -> dict[int, Headings]:
    """By page number the headings that the outline (the bookmarks) names."""
    found: dict[int, Headings] = {}
    for item in items:
        # A list holds what is below the item before it.
        below = _read_outline(reader, item, level + 1) if isinstance(item, list) else {}
        page = None if isinstance(item, list) else reader.get_destination_page_number(item)
        for number, headings in {**below, **({} if page is None else {page: [(str(item.title), level)]})}.items():
            found.setdefault(number, []).extend(headings)
    return found


def _write_pages(pages: Iterator[tuple[str, str, Headings]], title: str = "") -> Parsed:
    """One text of the pages (label, text, headings); a heading is marked where its words stand on its page."""
    writer, count, empty = Writer(), 0, 0
    writer.title = title
    for label, text, headings in pages:
        count += 1
        empty += not text.strip()
        writer.begin_page(label)
        writer.add(HYPHENATED.sub("", text), headings)
    if count and empty == count:
        raise UnreadableFileError(NEEDS_OCR)
    if empty:
        writer.notes.append(f"{empty} of {count} pages have no text: if they are pictures, they need OCR")
    return writer.finish()
