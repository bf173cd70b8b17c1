"""Splitters that follow what is known of a text's structure: its headings, its pages."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from rag_opt.components.splitters.chunkers import OverlappingSplitter
from rag_opt.components.splitters.sentences import get_sentences
from rag_opt.components.splitters.spans import split_recursively
from rag_opt.documents.texts import mark_headings
from rag_opt.records.documents import HEADING, PAGE, Document, Documents
from rag_opt.records.products import Chunks
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import Span


class StructureSplitter(OverlappingSplitter):
    """Common to both: no chunk reaches across a cut; what is longer than `chunk_size` is divided as recursively."""

    def _find_cuts(self, document: Document) -> Iterable[int]:
        """The characters at which a part begins."""
        raise NotImplementedError

    def _split(self, documents: Documents) -> Chunks:
        def spans(row: int, text: str) -> list[Span]:
            # What stands before the first cut is a part, too.
            cuts = sorted({0, *self._find_cuts(documents.items[row]), len(text)})
            sentences, ruler = get_sentences(documents, self.store)[row], self._build_ruler(text)
            return [
                span
                for part in pairwise(cuts)
                for span in split_recursively(ruler, sentences, self.chunk_size, self.overlap, part)
            ]

        return self._build_chunks(documents, spans)


@component
class HeadingSplitter(StructureSplitter):
    """The sections between headings, each with its own: those that a parser found, else Markdown's."""

    algorithm = "rag_opt.components.splitters.HeadingSplitter"

    def _find_cuts(self, document: Document) -> Iterable[int]:
        marks = document.marks or mark_headings(document.text).marks
        headings = [mark for mark in marks if mark.kind == HEADING]
        # A heading right behind another one opens the same chunk: alone it says nothing.
        for before, mark in zip([None, *headings], headings, strict=False):
            if before is None or document.text[before.end : mark.start].strip():
                yield mark.start

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        return {"chunks": self._split(documents)}


@component
class PageSplitter(StructureSplitter):
    """The pages, slides or sheets that a parser found; a document without any is one page."""

    algorithm = "rag_opt.components.splitters.PageSplitter"

    def _find_cuts(self, document: Document) -> Iterable[int]:
        return (mark.start for mark in document.marks if mark.kind == PAGE)

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        return {"chunks": self._split(documents)}
