"""Office Open XML: documents, presentations, workbooks."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from rag_opt.documents.archives import check_archive
from rag_opt.documents.parsed import Parsed, Writer
from rag_opt.documents.texts import write_rows

HEADING = re.compile(r"(?i)heading (\d)$")


def parse_docx(data: bytes) -> Parsed:
    """A document: paragraphs and tables in their order, headings by their styles, footnotes left out."""
    # Before python-docx, which unpacks whatever it is given.
    check_archive(data)
    from docx import Document
    from docx.table import Table

    document, writer = Document(io.BytesIO(data)), Writer()
    writer.title = document.core_properties.title or ""
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            writer.add_table([[cell.text for cell in row.cells] for row in block.rows])
        else:
            style = (block.style.name or "") if block.style is not None else ""
            level = HEADING.search(style)
            if level or style == "Title":
                writer.add_heading(block.text, int(level[1]) if level else 1)
            else:
                writer.add(block.text)
    return writer.finish()


def parse_pptx(data: bytes) -> Parsed:
    """A presentation: a page a slide, its title as heading, then texts, tables and notes."""
    check_archive(data)
    from pptx import Presentation

    slides, writer = Presentation(io.BytesIO(data)), Writer()
    writer.title = slides.core_properties.title or ""
    for number, slide in enumerate(slides.slides, 1):
        writer.begin_page(str(number))
        title = slide.shapes.title
        if title is not None:
            writer.add_heading(title.text_frame.text, 1)
        for shape in _iterate_shapes(slide.shapes):
            # It is among the shapes as well, and stands there already as the heading.
            if title is not None and shape.shape_id == title.shape_id:
                continue
            if getattr(shape, "has_table", False):
                writer.add_table([[cell.text for cell in row.cells] for row in shape.table.rows])
            elif shape.has_text_frame:
                writer.add(shape.text_frame.text)
        # Asked first, since python-pptx makes a slide of notes where there is none.
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            writer.add(slide.notes_slide.notes_text_frame.text)
    return writer.finish()


def _iterate_shapes(shapes: Any) -> Iterator[Any]:
    """The shapes of a slide, those within groups too."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _iterate_shapes(shape.shapes)
        else:
            yield shape


def parse_xlsx(data: bytes) -> Parsed:
    """A workbook: a page and a heading a sheet, a line a row, each cell after its column's name; formulas as values."""
    check_archive(data)
    from openpyxl import load_workbook

    # Read-only: openpyxl would otherwise make an object of every cell of the workbook.
    book, writer = load_workbook(io.BytesIO(data), read_only=True, data_only=True), Writer()
    writer.title = book.properties.title or ""
    for sheet in book.worksheets:
        rows = [["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
        filled = [row for row in rows if any(cell.strip() for cell in row)]
        if filled:
            writer.begin_page(sheet.title)
            writer.add_heading(sheet.title, 1)
            write_rows(writer, filled, sheet.title)
    return writer.finish()
