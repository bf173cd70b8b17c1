"""Nearest neighbours of query vectors: exact, or by Chroma's HNSW index on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from haystack import component

from rag_opt.artifacts import Columns
from rag_opt.components.ranking import Pair, best, ranked, stacked
from rag_opt.components.stage import Stage, require_whole
from rag_opt.keys import key_of
from rag_opt.records import Chunks, Floats, Queries, Rankings, Record, Vectors

BLOCK = 256
"""Queries scored at once, so that the score matrix stays small."""


@dataclass(frozen=True, eq=False)
class VectorIndex(Record):
    """The vectors of chunks, and where Chroma's index of them lies (None: exact search)."""

    chunks: Chunks
    vectors: Vectors
    chroma: Path | None
    key: str
    seconds: float = 0.0


@component
class ExactIndexer(Stage):
    """Keeps the vectors as they are: search compares a query with every chunk."""

    @component.output_types(vector_index=VectorIndex)
    def run(self, chunks: Chunks, vectors: Vectors) -> dict[str, VectorIndex]:
        return {"vector_index": VectorIndex(chunks, vectors, None, key_of(self.fingerprint, vectors.key, chunks.key))}


@component
class ChromaIndexer(Stage):
    """A persistent Chroma collection (HNSW, cosine); greater parameters find more of the true neighbours, slower."""

    def __init__(self, ef_construction: int, ef_search: int, max_neighbors: int) -> None:
        require_whole("ef_construction", ef_construction)
        require_whole("ef_search", ef_search)
        require_whole("max_neighbors", max_neighbors, 2)
        self.ef_construction = ef_construction
        self.ef_search = ef_search
        self.max_neighbors = max_neighbors

    @component.output_types(vector_index=VectorIndex)
    def run(self, chunks: Chunks, vectors: Vectors) -> dict[str, VectorIndex]:
        key = key_of(self.fingerprint, vectors.key, chunks.key)
        folder = self.store.folder("chroma", key, lambda path: self._write(path, vectors.values))
        return {"vector_index": VectorIndex(chunks, vectors, folder, key, self.store.seconds("chroma", key))}

    def _write(self, path: Path, values: Floats) -> None:
        hnsw = {
            "space": "cosine",
            "ef_construction": self.ef_construction,
            "ef_search": self.ef_search,
            "max_neighbors": self.max_neighbors,
        }
        with _client(path) as client:
            collection = client.create_collection("chunks", configuration={"hnsw": hnsw}, embedding_function=None)
            step = client.get_max_batch_size()
            for start in range(0, len(values), step):
                rows = range(start, min(start + step, len(values)))
                collection.add(ids=[str(row) for row in rows], embeddings=values[start : rows.stop])


@component
class DenseRetriever(Stage):
    """The `depth` chunks of greatest cosine similarity to each query."""

    def __init__(self, depth: int) -> None:
        require_whole("depth", depth)
        self.depth = depth

    @component.output_types(dense_ranking=Rankings)
    def run(self, queries: Queries, query_vectors: Vectors, vector_index: VectorIndex) -> dict[str, Rankings]:
        rank = _exact if vector_index.chroma is None else _approximate

        def columns(_: Queries, depth: int) -> Columns:
            return stacked(rank(vector_index, query_vectors.values, depth), depth)

        key = key_of("dense", vector_index.key, query_vectors.key)
        costs = {query_vectors.key: query_vectors.seconds}
        exact = vector_index.chroma is None
        found = ranked(self.store, key, queries, vector_index.chunks, self.depth, columns, costs, exact=exact)
        return {"dense_ranking": found}


def _exact(index: VectorIndex, queries: Floats, depth: int) -> list[Pair]:
    found = []
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ index.vectors.values.T
        found += [best(row, depth) for row in scores]
    return found


def _approximate(index: VectorIndex, queries: Floats, depth: int) -> list[Pair]:
    assert index.chroma is not None
    with _opened(index.chroma) as client:
        collection = client.get_collection("chunks", embedding_function=None)
        if collection.count() != len(index.chunks):
            raise RuntimeError(f"{index.chroma}: {collection.count()} vectors for {len(index.chunks)} chunks")
        answer = collection.query(query_embeddings=queries, n_results=depth, include=["distances"])
    pairs = zip(answer["ids"], answer["distances"], strict=True)
    # Chroma gives cosine distances, smaller is better; everything here is a similarity, greater is better.
    return [_ordered(np.array(ids, np.int32), 1.0 - np.array(distances, np.float32)) for ids, distances in pairs]


def _ordered(rows: Any, scores: Any) -> Pair:
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


@contextmanager
def _opened(kept: Path) -> Iterator[Any]:
    # Chroma writes into what it opens, so it is given a copy.
    with TemporaryDirectory(prefix="rag_opt-chroma-") as folder:
        copy = Path(folder, "copy")
        shutil.copytree(kept, copy)
        with _client(copy) as client:
            yield client


def _client(path: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(path), Settings(anonymized_telemetry=False))
    # Closed at once: the folder may be renamed or removed next.
    return closing(client)
