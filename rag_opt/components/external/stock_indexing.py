"""Haystack's own cleaners, splitters, converters and embedders as stages: of all documents at once, of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from rag_opt.cache.artifact_files import Columns, Table
from rag_opt.components.external.calls import Calls, is_uncached
from rag_opt.components.external.code import get_codes
from rag_opt.components.external.definition import build
from rag_opt.components.external.found import FoundDocument, format_pipeline_error
from rag_opt.components.external.gold import Corpus, Place, build_chunks, make_document, make_hit, make_source
from rag_opt.components.external.sockets import find_documents_input, find_outputs
from rag_opt.components.stage import Stage
from rag_opt.config.own_pipelines import Definition
from rag_opt.config.own_trust import check_allowed
from rag_opt.console.screens import mute_screen
from rag_opt.errors import ComponentError
from rag_opt.records.documents import Documents, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, QueryVectors, Searches, Vectors, normalize_vectors
from rag_opt.system.haystack import component


class _One(Stage):
    """One stock component, by its definition."""

    def __init__(self, stage: str, name: str, definition: Definition, trusted: Sequence[str] = ()) -> None:
        self.stage = stage
        self.name = name
        self.definition = definition
        self.trusted = tuple(trusted)
        check_allowed(stage, definition, self.trusted)
        self._built = build(stage, definition, self.trusted)

    @property
    def fingerprint(self) -> str:
        """The hash of the component and its code."""
        return compute_key(type(self).__name__, self.definition, get_codes(self.definition))

    @cached_property
    def _instance(self) -> Any:
        """The component, its calls kept."""
        # Not in the constructor: `use` hands over the resources only later.
        built = build(self.stage, self.definition, self.trusted)
        Calls(self.resources, self.trusted).attach(built, self.definition)
        return built.get_component(self.name)

    def _keep(self, stage: str, key: str, make: Callable[[], Columns]) -> tuple[Table, str]:
        """What `make` gives, and its key: kept, or made each time and known by what it is, where it is to be so."""
        if not is_uncached(self.definition["components"][self.name]):
            return self.store.get_table(stage, key, make), key
        made = make()
        return Table(made, 0.0), compute_key(key, {name: np.asarray(each).tolist() for name, each in made.items()})

    def _run(self, **inputs: Any) -> Any:
        try:
            with mute_screen():
                return self._instance.run(**inputs)
        except Exception as error:
            # It is not ours, and may fail in any way.
            raise ComponentError(f"{self.stage}.{self.name}: {format_pipeline_error(error)}") from error


@component
class StockSplitter(_One):
    """A cleaner, splitter or converter: documents, or what an earlier one made of them, into chunks."""

    algorithm = "rag_opt.external.StockSplitter"

    def __init__(
        self, stage: str, name: str, definition: Definition, trusted: Sequence[str] = (), *, first: bool = True
    ) -> None:
        # Haystack's decorator makes another class of this one, which super() would not know.
        _One.__init__(self, stage, name, definition, trusted)
        self.first = first
        self._place, self._files = find_documents_input(f"{stage}.{name}", self._built)
        self._gives, _ = find_outputs(f"{stage}.{name}", self._built, {})
        if self._gives is None:
            raise ComponentError(f"{stage}.{name}: it gives no documents, list[Document]")
        component.set_input_types(self, **({"documents": Documents} if first else {"chunks": Chunks}))
        component.set_output_types(self, chunks=Chunks)

    def run(self, **given: Any) -> dict[str, Chunks]:
        """The chunks, each where it stands in its document; what stands nowhere in it has a text of its own."""
        source = given.get("documents") or given["chunks"]
        documents = source if isinstance(source, Documents) else source.documents
        key = compute_key(self.fingerprint, source.key)
        kept, key = self._keep("chunks", key, lambda: self._split(source, documents))
        columns = kept.columns
        places = [
            Place(int(row), int(start), int(end), text)
            for row, start, end, text in zip(
                columns["row"], columns["start"], columns["end"], columns["text"], strict=True
            )
        ]
        return {"chunks": build_chunks(places, documents, key, kept.seconds)}

    def _split(self, source: Any, documents: Documents) -> dict[str, Any]:
        if isinstance(source, Documents):
            given = [make_source(each) if self._files else make_document(each) for each in source.items]
        else:
            given = [make_hit(source, row) for row in range(len(source))]
        assert self._gives is not None
        found, corpus = self._run(**{self._place.name: given})[self._gives.name], Corpus(documents)
        places = [corpus.find_place(FoundDocument(None, each.content or "", meta=each.meta)) for each in found]
        if not any(place.row >= 0 for place in places):
            raise ComponentError(
                f"{self.stage}.{self.name}: nothing that it gives is of a document ({len(found)} given)"
            )
        columns = {
            name: np.array([getattr(place, name) for place in places], np.int32) for name in ("row", "start", "end")
        }
        return {**columns, "text": [place.text for place in places]}


@component
class StockChunkEmbedder(_One):
    """An embedder of documents: unit vectors of all chunks, titles included, each text's kept by itself."""

    algorithm = "rag_opt.external.StockChunkEmbedder"

    @component.output_types(vectors=Vectors)
    def run(self, chunks: Chunks) -> dict[str, Vectors]:
        key = compute_key(self.fingerprint, chunks.key)

        def embed() -> dict[str, Any]:
            given = [make_hit(chunks, row) for row in range(len(chunks))]
            # With the title, as our own embedders read a chunk.
            given = [
                replace(document, content=content) for document, content in zip(given, chunks.contents, strict=True)
            ]
            found = self._run(documents=given)["documents"]
            return {"values": np.array([each.embedding for each in found], np.float32)}

        kept, key = self._keep("stock vectors", key, embed)
        return {"vectors": Vectors(normalize_vectors(kept.columns["values"]), key, kept.seconds)}


@component
class StockQueryEmbedder(_One):
    """An embedder of texts: unit vectors of what is searched for, each text's kept by itself."""

    algorithm = "rag_opt.external.StockQueryEmbedder"

    @component.output_types(query_vectors=QueryVectors)
    def run(self, dense_queries: Searches) -> dict[str, QueryVectors]:
        found = tuple(map(self._embed, dense_queries.variants))
        return {"query_vectors": QueryVectors(dense_queries, dense_queries.variants, found)}

    def _embed(self, queries: Queries) -> Vectors:
        texts = queries.whole.texts
        key = compute_key(self.fingerprint, queries.whole.key)

        def embed() -> dict[str, Any]:
            # Haystack's text embedders take one text a call.
            return {"values": np.array([self._run(text=text)["embedding"] for text in texts], np.float32)}

        kept, key = self._keep("stock query vectors", key, embed)
        return Vectors(normalize_vectors(kept.columns["values"]), key, kept.seconds / max(1, len(texts)))
