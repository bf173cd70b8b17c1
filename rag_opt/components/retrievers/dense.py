"""Nearest neighbours of query vectors: exact, or by Chroma's HNSW index on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.cache.artifact_files import get_size
from rag_opt.components.ranking import compute_rankings, select_top
from rag_opt.components.retrievers.fusion import fuse_variants
from rag_opt.components.stage import Stage, require_whole
from rag_opt.records.documents import Floats, Queries, Record
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, QueryVectors, Rankings, Vectors
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.components.own_documents import Pair, Search

SCORES = 2**24
"""Scores computed at once (64 MiB), however large the corpus is."""


@dataclass(frozen=True, eq=False)
class VectorIndex(Record):
    """The vectors of chunks, and how Chroma's collection of them is opened (None: exact search); size() in bytes."""

    chunks: Chunks
    vectors: Vectors
    collection: Callable[[], Any] | None
    size: Callable[[], int]
    key: str
    seconds: float = 0.0


@component
class ExactIndexer(Stage):
    """Keeps the vectors as they are: search compares a query with every chunk."""

    algorithm = "rag_opt.components.dense.ExactIndexer"

    @component.output_types(vector_index=VectorIndex)
    def run(self, chunks: Chunks, vectors: Vectors) -> dict[str, VectorIndex]:
        key = compute_key(self.fingerprint, vectors.key, chunks.key)
        return {"vector_index": VectorIndex(chunks, vectors, None, lambda: vectors.values.nbytes, key)}


@component
class ChromaIndexer(Stage):
    """A persistent Chroma collection (HNSW, cosine); greater parameters find more of the true neighbours, slower.

    With Chroma's defaults it found a third of the 50 nearest among 20,000 random vectors: an approximate index is a
    choice to be measured, never the default.
    """

    algorithm = "rag_opt.components.dense.ChromaIndexer"

    def __init__(self, ef_construction: int, ef_search: int, max_neighbors: int) -> None:
        require_whole("ef_construction", ef_construction)
        require_whole("ef_search", ef_search)
        require_whole("max_neighbors", max_neighbors, 2)
        self.ef_construction = ef_construction
        self.ef_search = ef_search
        self.max_neighbors = max_neighbors

    @component.output_types(vector_index=VectorIndex)
    def run(self, chunks: Chunks, vectors: Vectors) -> dict[str, VectorIndex]:
        key = compute_key(self.fingerprint, vectors.key, chunks.key)
        folder = self.store.get_folder("chroma", key, lambda path: self._write_collection(path, vectors.values))

        def collection() -> Any:
            return self.store.get_object("chroma opened", key, lambda: OpenCollection(folder), keep=1).collection

        took = self.store.get_seconds("chroma", key)
        return {"vector_index": VectorIndex(chunks, vectors, collection, lambda: get_size(folder), key, took)}

    def _write_collection(self, path: Path, values: Floats) -> None:
        hnsw = {
            "space": "cosine",
            "ef_construction": self.ef_construction,
            "ef_search": self.ef_search,
            "max_neighbors": self.max_neighbors,
        }
        # Closed at once: the folder is renamed next.
        with closing(_open_client(path)) as client:
            # Without the None Chroma sets up a model of its own, though the vectors are given.
            collection = client.create_collection("chunks", configuration={"hnsw": hnsw}, embedding_function=None)
            step = client.get_max_batch_size()
            for start in range(0, len(values), step):
                rows = range(start, min(start + step, len(values)))
                collection.add(ids=[str(row) for row in rows], embeddings=values[start : rows.stop])


@component
class DenseRetriever(Stage):
    """The `depth` chunks of greatest cosine similarity to each query."""

    algorithm = "rag_opt.components.dense.DenseRetriever"

    def __init__(self, depth: int) -> None:
        require_whole("depth", depth)
        self.depth = depth

    @component.output_types(dense_ranking=Rankings)
    def run(self, query_vectors: QueryVectors, vector_index: VectorIndex) -> dict[str, Rankings]:
        sets = zip(query_vectors.queries, query_vectors.vectors, strict=True)
        found = [self._retrieve(queries, vectors, vector_index) for queries, vectors in sets]
        return {"dense_ranking": fuse_variants(found, self.depth).add_costs(query_vectors.searches)}

    def _retrieve(self, queries: Queries, vectors: Vectors, vector_index: VectorIndex) -> Rankings:
        def prepare(_: Queries) -> Search:
            if vector_index.collection is None:
                return lambda rows, depth: _search_exact(vector_index, vectors.values[rows], depth)
            collection = vector_index.collection()
            # A collection that is empty or cut short would score badly without an error.
            if collection.count() != len(vector_index.chunks):
                raise RuntimeError(f"Chroma: {collection.count()} vectors for {len(vector_index.chunks)} chunks")
            return lambda rows, depth: _search_chroma(collection, vectors.values[rows], depth)

        key = compute_key("dense", vector_index.key, vectors.key)
        costs = {vectors.key: vectors.seconds}
        # HNSW may find other neighbours when it is asked for more of them.
        exact = vector_index.collection is None
        return compute_rankings(
            self.resources, key, queries, vector_index.chunks, self.depth, prepare, costs, exact=exact
        )


def _search_exact(index: VectorIndex, queries: Floats, depth: int) -> list[Pair]:
    found = []
    block = max(1, SCORES // max(1, len(index.chunks)))
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ index.vectors.values.T
        found += [select_top(row, depth) for row in scores]
    return found


def _search_chroma(collection: Any, queries: Floats, depth: int) -> list[Pair]:
    answer = collection.query(query_embeddings=queries, n_results=depth, include=["distances"])
    pairs = zip(answer["ids"], answer["distances"], strict=True)
    # Chroma gives cosine distances, smaller is better; everything here is a similarity, greater is better.
    return [_sort_hits(np.array(ids, np.int32), 1.0 - np.array(distances, np.float32)) for ids, distances in pairs]


class OpenCollection:
    """A kept collection, opened for queries. Chroma writes into what it opens, so it is given a copy."""

    def __init__(self, kept: Path) -> None:
        self._folder = TemporaryDirectory(prefix="rag_opt-chroma-")
        copy = Path(self._folder.name, "copy")
        shutil.copytree(kept, copy)
        self._client = _open_client(copy)
        self.collection = self._client.get_collection("chunks", embedding_function=None)

    def __del__(self) -> None:
        # The copy may have failed before there was a client.
        if hasattr(self, "_client"):
            self._client.close()


def _sort_hits(rows: Any, scores: Any) -> Pair:
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


def _open_client(path: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(path), Settings(anonymized_telemetry=False))
