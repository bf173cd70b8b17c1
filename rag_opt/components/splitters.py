"""Splitters: documents → chunks, each of which knows its document and its characters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from haystack import component

from rag_opt.artifacts import Columns
from rag_opt.components.encoders import Encoder
from rag_opt.components.sentences import sentences_of
from rag_opt.components.shelf import embedded
from rag_opt.components.spans import Span, at_breaks, by_sentence, recursive, trimmed, windows, words
from rag_opt.components.stage import Stage, require, require_whole
from rag_opt.keys import key_of
from rag_opt.records import Chunks, Documents


def _check(chunk_size: int, overlap: int = 0) -> None:
    require_whole("chunk_size", chunk_size)
    require_whole("overlap", overlap, 0)
    require(0 <= overlap < chunk_size, f"overlap must be from 0 to chunk_size - 1 = {chunk_size - 1}, not {overlap}")


class Splitter(Stage):
    """Common to all splitters: spans are computed once and kept as three columns of numbers."""

    def _chunks(self, documents: Documents, spans: Callable[[int, str], list[Span]]) -> Chunks:
        key = key_of(self.fingerprint, documents.key)
        table = self.store.table("chunks", key, lambda: _columns(documents, spans))
        columns = table.columns
        return Chunks(documents, columns["rows"], columns["starts"], columns["ends"], key, table.seconds)


class OverlappingSplitter(Splitter):
    """Common to those whose chunks have up to `chunk_size` words and may repeat up to `overlap` of the one before."""

    def __init__(self, chunk_size: int, overlap: int) -> None:
        _check(chunk_size, overlap)
        self.chunk_size = chunk_size
        self.overlap = overlap


def _columns(documents: Documents, spans: Callable[[int, str], list[Span]]) -> Columns:
    found = [(row, *span) for row, document in enumerate(documents.items) for span in spans(row, document.text)]
    columns = np.array(found, np.int32).reshape(-1, 3)
    return {name: np.ascontiguousarray(columns[:, i]) for i, name in enumerate(("rows", "starts", "ends"))}


@component
class NoSplitter(Splitter):
    """Every document is one chunk."""

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        return {"chunks": self._chunks(documents, lambda _, text: [trimmed(text, (0, len(text)))])}


@component
class WordSplitter(Splitter):
    """Chunks of `chunk_size` words, side by side."""

    def __init__(self, chunk_size: int) -> None:
        _check(chunk_size)
        self.chunk_size = chunk_size

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        return {
            "chunks": self._chunks(documents, lambda _, text: windows(words(text, (0, len(text))), self.chunk_size))
        }


@component
class SlidingWindowSplitter(OverlappingSplitter):
    """Chunks of `chunk_size` words; each repeats the last `overlap` words of the one before."""

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(_: int, text: str) -> list[Span]:
            return windows(words(text, (0, len(text))), self.chunk_size, self.overlap)

        return {"chunks": self._chunks(documents, spans)}


@component
class SentenceSplitter(OverlappingSplitter):
    """Whole sentences up to `chunk_size` words; each chunk repeats last sentences of up to `overlap` words."""

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(row: int, text: str) -> list[Span]:
            return by_sentence(text, sentences_of(documents, self.store)[row], self.chunk_size, self.overlap)

        return {"chunks": self._chunks(documents, spans)}


@component
class RecursiveSplitter(OverlappingSplitter):
    """Paragraphs of up to `chunk_size` words, else their lines, sentences or words; small neighbours are joined."""

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(row: int, text: str) -> list[Span]:
            return recursive(text, sentences_of(documents, self.store)[row], self.chunk_size, self.overlap)

        return {"chunks": self._chunks(documents, spans)}


@component
class SemanticSplitter(Splitter):
    """Sentences up to `chunk_size` words, cut where the text changes its subject.

    A cut stands between neighbouring sentences whose cosine similarity is among the lowest `cut_share` of the corpus.
    """

    def __init__(self, chunk_size: int, cut_share: float, encoder: Encoder) -> None:
        _check(chunk_size)
        require(0.0 <= cut_share <= 1.0, f"cut_share must be from 0 to 1, not {cut_share}")
        self.chunk_size = chunk_size
        self.cut_share = cut_share
        self.encoder = encoder

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(row: int, text: str) -> list[Span]:
            breaks = self.store.live("breaks", key_of(self.fingerprint, documents.key), lambda: self._breaks(documents))
            return at_breaks(text, sentences_of(documents, self.store)[row], breaks[row], self.chunk_size)

        return {"chunks": self._chunks(documents, spans)}

    def _breaks(self, documents: Documents) -> list[list[bool]]:
        sentences = sentences_of(documents, self.store)
        items = zip(documents.items, sentences, strict=True)
        texts = [document.text[start:end] for document, spans in items for start, end in spans]
        vectors = embedded(self.encoder, texts, self.store).values
        similarity = np.einsum("nd,nd->n", vectors[:-1], vectors[1:])
        ends = np.cumsum([len(spans) for spans in sentences])
        inside = np.ones(len(similarity), bool)
        inside[ends[ends < len(vectors)] - 1] = False
        limit = np.quantile(similarity[inside], self.cut_share) if inside.any() else -np.inf
        low = np.append(similarity < limit, False)
        return [low[end - len(spans) : end].tolist() for end, spans in zip(ends, sentences, strict=True)]
