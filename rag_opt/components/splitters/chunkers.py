"""Splitters: documents → chunks, each of which knows its document and its characters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.components.checks import require, require_number, require_whole
from rag_opt.components.embedders.embedding_cache import embed_texts
from rag_opt.components.splitters.sentences import get_sentences
from rag_opt.components.splitters.spans import (
    Ruler,
    pack_sentences,
    pack_windows,
    split_at_breaks,
    split_recursively,
    trim_span,
)
from rag_opt.components.stage import Stage, get_identity, get_parameter_names
from rag_opt.records.documents import Documents
from rag_opt.records.keys import compute_key, get_algorithm
from rag_opt.records.products import Chunks
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import READING, Span

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns
    from rag_opt.components.embedders.encoder import Encoder

UNITS = ("words", "characters", "tokens")
OURS = "rag_opt.components.splitters."
"""What the keys of our splitters leave out of their algorithms."""


class Splitter(Stage):
    """Common to all splitters: spans are computed once and kept as three columns of numbers."""

    def _build_chunks(self, documents: Documents, spans: Callable[[int, str], list[Span]]) -> Chunks:
        key = compute_key(self.fingerprint, READING, documents.key)
        table = self.store.get_table("chunks", key, lambda: _build_columns(documents, spans))
        columns = table.columns
        return Chunks(documents, columns["rows"], columns["starts"], columns["ends"], key, table.seconds)


class SizedSplitter(Splitter):
    """Common to those whose chunks have up to `chunk_size` units and may repeat up to `overlap` of the one before.

    Units are words (in scripts without spaces: characters), characters, or the tokens of `encoder`.
    """

    chunk_size: int
    unit: str
    encoder: Encoder | None

    def _set_size(self, chunk_size: int, overlap: int, unit: str, encoder: Encoder | None) -> None:
        require_whole("chunk_size", chunk_size)
        require_whole("overlap", overlap, 0)
        # With an overlap of a whole chunk nothing would ever advance.
        most = chunk_size - 1
        require(0 <= overlap <= most, f"overlap must be from 0 to chunk_size - 1 = {most}, not {overlap}")
        require(unit in UNITS, f"unit must be one of {', '.join(UNITS)}, not {unit}")
        require(
            unit != "tokens" or encoder is not None, "unit: tokens are an embedder's; give the splitter its encoder"
        )
        self.chunk_size = chunk_size
        self.unit = unit
        self.encoder = encoder

    @property
    def fingerprint(self) -> str:
        values = {
            name: get_identity(getattr(self, name)) for name in get_parameter_names(type(self)) if name != "encoder"
        }
        # By the bare name, as before classes had algorithms: what older stores hold stays valid.
        return compute_key("splitter", get_algorithm(type(self)).removeprefix(OURS), values, self._of_encoder)

    @property
    def _of_encoder(self) -> str | None:
        """What the chunks owe to the encoder: other embedders cut alike, unless their tokens are counted."""
        return self.encoder.vocabulary if self.unit == "tokens" and self.encoder is not None else None

    def _build_ruler(self, text: str) -> Ruler:
        if self.unit == "tokens" and self.encoder is not None:
            return Ruler.from_tokens(text, self.encoder.tokenize(text))
        return Ruler.from_characters(text) if self.unit == "characters" else Ruler.from_words(text)


class OverlappingSplitter(SizedSplitter):
    """A sized splitter whose chunks may overlap."""

    def __init__(self, chunk_size: int, overlap: int, unit: str = "words", encoder: Encoder | None = None) -> None:
        self._set_size(chunk_size, overlap, unit, encoder)
        self.overlap = overlap


def _build_columns(documents: Documents, spans: Callable[[int, str], list[Span]]) -> Columns:
    found = [(row, *span) for row, document in enumerate(documents.items) for span in spans(row, document.text)]
    columns = np.array(found, np.int32).reshape(-1, 3)
    return {name: np.ascontiguousarray(columns[:, i]) for i, name in enumerate(("rows", "starts", "ends"))}


@component
class NoSplitter(Splitter):
    """Every document is one chunk."""

    algorithm = "rag_opt.components.splitters.NoSplitter"

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        return {"chunks": self._build_chunks(documents, lambda _, text: [trim_span(text, (0, len(text)))])}


@component
class WordSplitter(SizedSplitter):
    """Chunks of `chunk_size`, side by side, cut between words."""

    algorithm = "rag_opt.components.splitters.WordSplitter"

    def __init__(self, chunk_size: int, unit: str = "words", encoder: Encoder | None = None) -> None:
        self._set_size(chunk_size, 0, unit, encoder)

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(_: int, text: str) -> list[Span]:
            return pack_windows(self._build_ruler(text), (0, len(text)), self.chunk_size)

        return {"chunks": self._build_chunks(documents, spans)}


@component
class SlidingWindowSplitter(OverlappingSplitter):
    """Chunks of `chunk_size`, cut between words; each repeats the last words of the one before, up to `overlap`."""

    algorithm = "rag_opt.components.splitters.SlidingWindowSplitter"

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(_: int, text: str) -> list[Span]:
            return pack_windows(self._build_ruler(text), (0, len(text)), self.chunk_size, self.overlap)

        return {"chunks": self._build_chunks(documents, spans)}


@component
class SentenceSplitter(OverlappingSplitter):
    """Whole sentences up to `chunk_size`; each chunk repeats the last sentences of the one before, up to `overlap`."""

    algorithm = "rag_opt.components.splitters.SentenceSplitter"

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(row: int, text: str) -> list[Span]:
            sentences = get_sentences(documents, self.store)[row]
            return pack_sentences(self._build_ruler(text), sentences, self.chunk_size, self.overlap)

        return {"chunks": self._build_chunks(documents, spans)}


@component
class RecursiveSplitter(OverlappingSplitter):
    """Paragraphs of up to `chunk_size`, else their lines, sentences or words; small neighbours are joined."""

    algorithm = "rag_opt.components.splitters.RecursiveSplitter"

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(row: int, text: str) -> list[Span]:
            sentences = get_sentences(documents, self.store)[row]
            return split_recursively(self._build_ruler(text), sentences, self.chunk_size, self.overlap)

        return {"chunks": self._build_chunks(documents, spans)}


@component
class SemanticSplitter(SizedSplitter):
    """Sentences up to `chunk_size`, cut where the text changes its subject.

    A cut stands between neighbouring sentences whose cosine similarity is among the lowest `cut_share` of the corpus.
    """

    algorithm = "rag_opt.components.splitters.SemanticSplitter"

    encoder: Encoder

    def __init__(self, chunk_size: int, cut_share: float, encoder: Encoder, unit: str = "words") -> None:
        self._set_size(chunk_size, 0, unit, encoder)
        require_number("cut_share", cut_share, 0, 1)
        self.cut_share = cut_share

    @property
    def _of_encoder(self) -> str:
        return self.encoder.fingerprint

    @component.output_types(chunks=Chunks)
    def run(self, documents: Documents) -> dict[str, Chunks]:
        def spans(row: int, text: str) -> list[Span]:
            # Once for the corpus, not for each document: the limit is a share of all its neighbours.
            breaks = self.store.get_object(
                "breaks", compute_key(self.fingerprint, documents.key), lambda: self._find_breaks(documents)
            )
            return split_at_breaks(
                self._build_ruler(text), get_sentences(documents, self.store)[row], breaks[row], self.chunk_size
            )

        return {"chunks": self._build_chunks(documents, spans)}

    def _find_breaks(self, documents: Documents) -> list[list[bool]]:
        sentences = get_sentences(documents, self.store)
        items = zip(documents.items, sentences, strict=True)
        texts = [document.text[start:end] for document, spans in items for start, end in spans]
        vectors = embed_texts(self.encoder, texts, self.store).values
        # Vectors have length 1, so these are cosines.
        similarity = np.einsum("nd,nd->n", vectors[:-1], vectors[1:])
        ends = np.cumsum([len(spans) for spans in sentences])
        inside = np.ones(len(similarity), bool)
        # The last sentence of a document and the first of the next say nothing of a change of subject.
        inside[ends[ends < len(vectors)] - 1] = False
        limit = np.quantile(similarity[inside], self.cut_share) if inside.any() else -np.inf
        # Strictly below, so that a share of 0 cuts nowhere; behind the very last sentence there is no cut.
        low = np.append(similarity < limit, False)
        return [low[end - len(spans) : end].tolist() for end, spans in zip(ends, sentences, strict=True)]
