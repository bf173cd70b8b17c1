"""Nearest neighbours of query vectors: exact, or by an index that may miss some (Chroma's here, others beside)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.cache.artifact_files import get_size
from rag_opt.components.checks import require_whole
from rag_opt.components.own_documents import exclude_own
from rag_opt.components.ranking import compute_rankings, select_top
from rag_opt.components.retrievers.fusion import fuse_variants
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Floats, Queries, Record
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, QueryVectors, Rankings, Vectors
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns
    from rag_opt.components.own_documents import Pair, Search

Nearest = Callable[[Floats, int], "list[Pair]"]
"""search(unit vectors [queries, dimensions], depth) → per query the rows and cosines of what it found, best first."""

NEIGHBOURS = 10
"""Nearest neighbours of which an index's recall is measured."""

SCORES = 2**24
"""Scores computed at once (64 MiB), however large the corpus is."""


@dataclass(frozen=True, eq=False)
class VectorIndex(Record):
    """The vectors of chunks, and how an index of them is opened for searches (None: exact search); size() in bytes.

    `measured` is what searches have found out: "recall", the share of the true neighbours that they found.
    """

    chunks: Chunks
    vectors: Vectors
    open: Callable[[], Nearest] | None
    size: Callable[[], int]
    key: str
    seconds: float = 0.0
    measured: dict[str, float] = field(default_factory=dict)


@component
class ExactIndexer(Stage):
    """Keeps the vectors as they are: search compares a query with every chunk."""

    algorithm = "rag_opt.components.dense.ExactIndexer"

    @component.output_types(vector_index=VectorIndex)
    def run(self, chunks: Chunks, vectors: Vectors) -> dict[str, VectorIndex]:
        key = compute_key(self.fingerprint, vectors.key, chunks.key)
        return {
            "vector_index": VectorIndex(
                chunks, vectors, None, lambda: vectors.values.nbytes, key, measured={"recall": 1.0}
            )
        }


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

        def open_index() -> Nearest:
            found = self.store.get_object("chroma opened", key, lambda: OpenCollection(folder), keep=1).collection
            # A collection that is empty or cut short would score badly without an error.
            if found.count() != len(chunks):
                raise RuntimeError(f"Chroma: {found.count()} vectors for {len(chunks)} chunks")
            return partial(_search_chroma, found)

        took = self.store.get_seconds("chroma", key)
        return {"vector_index": VectorIndex(chunks, vectors, open_index, lambda: get_size(folder), key, took)}

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
            # Chroma refuses more at once.
            step = client.get_max_batch_size()
            for start in range(0, len(values), step):
                rows = range(start, min(start + step, len(values)))
                # A row's number, as a text, comes back with each hit.
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
            if vector_index.open is None:
                return lambda rows, depth: _search_exact(vector_index, vectors.values[rows], depth)
            search = vector_index.open()
            return lambda rows, depth: search(vectors.values[rows], depth)

        key = compute_key("dense", vector_index.key, vectors.key)
        costs = {vectors.key: vectors.seconds}
        # HNSW may find other neighbours when it is asked for more of them.
        exact = vector_index.open is None
        found = compute_rankings(
            self.resources, key, queries, vector_index.chunks, self.depth, prepare, costs, exact=exact
        )
        if not exact:
            self._measure_recall(queries, vectors, vector_index, found)
        return found

    def _measure_recall(self, queries: Queries, vectors: Vectors, index: VectorIndex, found: Rankings) -> None:
        """Note which share of the NEIGHBOURS true neighbours of each query, on average, an index has found."""

        def compare() -> Columns:
            near = min(NEIGHBOURS, found.rows.shape[1])
            whole = queries.whole
            search = exclude_own(
                lambda rows, depth: _search_exact(index, vectors.values[rows], depth), whole, index.chunks
            )
            mine = np.arange(len(whole.items), dtype=np.int32) if queries.whole_set is None else queries.rows
            exact = search(mine, near)
            shares = [
                len(np.intersect1d(true, row[row >= 0][:near])) / max(1, len(true))
                for (true, _), row in zip(exact, found.rows, strict=True)
            ]
            return {"recall": np.array(shares, np.float64)}

        key = compute_key("index recall", found.key, queries.key)
        index.measured["recall"] = float(self.store.get_table("index recall", key, compare).columns["recall"].mean())


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
    return [sort_hits(np.array(ids, np.int32), 1.0 - np.array(distances, np.float32)) for ids, distances in pairs]


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


def sort_hits(rows: Any, scores: Any) -> Pair:
    """The rows and scores, best first, equal scores by row."""
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


def _open_client(path: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(path), Settings(anonymized_telemetry=False))
