"""Chunks and queries → vectors, by one encoder."""

from __future__ import annotations

from haystack import component

from rag_opt.components.encoders import Encoder
from rag_opt.components.shelf import embedded
from rag_opt.components.stage import Stage
from rag_opt.keys import key_of
from rag_opt.records import Chunks, Queries, Vectors


@component
class ChunkEmbedder(Stage):
    """The vectors of all chunks, titles included."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @component.output_types(vectors=Vectors)
    def run(self, chunks: Chunks) -> dict[str, Vectors]:
        key = key_of(self.encoder.fingerprint, chunks.key)
        return {"vectors": self.store.live("vectors", key, lambda: embedded(self.encoder, chunks.contents, self.store))}


@component
class QueryEmbedder(Stage):
    """The vectors of the whole set of queries that the batch is from; `seconds` is the time one query took."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @component.output_types(query_vectors=Vectors)
    def run(self, queries: Queries) -> dict[str, Vectors]:
        texts = queries.whole.texts
        key = key_of(self.encoder.fingerprint, queries.whole.key)
        found = self.store.live("query vectors", key, lambda: embedded(self.encoder, texts, self.store))
        return {"query_vectors": Vectors(found.values, found.key, found.seconds / max(1, len(texts)))}
