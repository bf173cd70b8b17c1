"""Chunks and queries → vectors, by one encoder."""

from __future__ import annotations

import numpy as np

from rag_opt.components.embedders.embedding_cache import embed_texts
from rag_opt.components.embedders.encoder import Encoder
from rag_opt.components.embedders.truncation import report_unembedded
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, QueryVectors, Searches, Vectors, normalize_vectors
from rag_opt.system.haystack import component


@component
class ChunkEmbedder(Stage):
    """The vectors of all chunks, titles included."""

    algorithm = "rag_opt.components.embedders.ChunkEmbedder"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @component.output_types(vectors=Vectors)
    def run(self, chunks: Chunks) -> dict[str, Vectors]:
        encoder = self.encoder.for_documents
        report_unembedded(encoder, chunks, self.resources)
        key = compute_key(encoder.fingerprint, chunks.key)
        return {
            "vectors": self.store.get_object("vectors", key, lambda: embed_texts(encoder, chunks.contents, self.store))
        }


@component
class QueryEmbedder(Stage):
    """The vectors of what is searched for; of each variant those of the whole set that its batch is from.

    `seconds` is the time one query took.
    """

    algorithm = "rag_opt.components.embedders.QueryEmbedder"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @component.output_types(query_vectors=QueryVectors)
    def run(self, dense_queries: Searches) -> dict[str, QueryVectors]:
        found = tuple(map(self._embed_queries, dense_queries.variants))
        if not dense_queries.averaged:
            return {"query_vectors": QueryVectors(dense_queries, dense_queries.variants, found)}
        variants = zip(dense_queries.variants, found, strict=True)
        # A mean of unit vectors is shorter than 1: its products would be no cosines.
        mean = normalize_vectors(np.mean([variant.take_rows(vectors.values) for variant, vectors in variants], axis=0))
        # The first variant is the question itself; the key tells it from a plain search for that.
        whole = Queries(dense_queries.variants[0].items, dense_queries.key)
        seconds = sum(vectors.seconds for vectors in found)
        averaged = Vectors(mean, compute_key("averaged", [vectors.key for vectors in found]), seconds)
        return {"query_vectors": QueryVectors(dense_queries, (whole,), (averaged,))}

    def _embed_queries(self, queries: Queries) -> Vectors:
        # Of the whole set, so that its batches share one artifact.
        texts, encoder = queries.whole.texts, self.encoder.for_queries
        key = compute_key(encoder.fingerprint, queries.whole.key)
        found = self.store.get_object("query vectors", key, lambda: embed_texts(encoder, texts, self.store))
        return Vectors(found.values, found.key, found.seconds / max(1, len(texts)))
