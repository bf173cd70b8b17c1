"""An index of vectors in a document store of Haystack's integrations: pgvector, Qdrant, OpenSearch, Elasticsearch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.document_stores import (
    PREFIX,
    complete_index,
    count_documents,
    name_stores,
    open_store,
)
from rag_opt.components.retrievers.dense import Nearest, VectorIndex, sort_hits
from rag_opt.components.stage import Stage
from rag_opt.config.own_pipelines import INIT, TYPE
from rag_opt.config.trust import import_target
from rag_opt.errors import ComponentError, ConfigError
from rag_opt.records.documents import Floats
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Vectors
from rag_opt.system.haystack import Document as HaystackDocument
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.components.own_documents import Pair

AT_ONCE = 1000
"""Documents that are written at once."""


@component
class StoreIndexer(Stage):
    """Writes chunks and vectors into a document store, once for the same ones; `definition` is {class, parameters}.

    `retriever`, in the same form, searches it. `dimension` is the store's parameter for the vectors' length, which is
    known only here; `searching` names those of its parameters that change a search and nothing that is written.
    """

    algorithm = "rag_opt.retrievers.StoreIndexer"

    def __init__(
        self,
        definition: Mapping[str, Any],
        retriever: Mapping[str, Any],
        dimension: str | None,
        package: str,
        searching: Sequence[str] = (),
    ) -> None:
        self.definition = definition
        self.retriever = retriever
        self.dimension = dimension
        self.package = package
        self.searching = tuple(searching)
        for node in (definition, retriever):
            _check_installed(str(node["class"]), package)

    @property
    def fingerprint(self) -> str:
        """The hash of what is written and how it is searched, whatever the store is called and where it is."""
        return compute_key(self.algorithm, name_stores(_to_haystack(self.definition), None), self.retriever)

    @component.output_types(vector_index=VectorIndex)
    def run(self, chunks: Chunks, vectors: Vectors) -> dict[str, VectorIndex]:
        # What is null is left to the store's own default.
        given = {key: value for key, value in self.definition["parameters"].items() if value is not None}
        if self.dimension is not None:
            given[self.dimension] = int(vectors.values.shape[1])
        written = {key: value for key, value in given.items() if key not in self.searching}
        plain = {**_to_haystack(self.definition), INIT: written}
        # Whoever keeps artifacts elsewhere makes an index of their own: neither knows which of the other's are whole.
        made = [name_stores(plain, None), vectors.key, chunks.key, self.llm.replies.identity]
        name = PREFIX + compute_key(self.algorithm, made)[:20]
        node = name_stores({**plain, INIT: given}, name)
        store = open_store(node)
        _, seconds = complete_index(self.store, name, node, store, lambda: _write(store, chunks, vectors.values))
        key = compute_key(self.fingerprint, vectors.key, chunks.key)

        def open_index() -> Nearest:
            # With documents missing it would score badly without an error.
            found = count_documents(store)
            if found != len(chunks):
                raise ComponentError(f"{type(store).__name__} holds {found} vectors of {len(chunks)} chunks")
            kind = import_target(str(self.retriever["class"]))
            retriever = kind(document_store=store, **self.retriever["parameters"])
            return lambda queries, depth: [_search(retriever, query, depth, vectors.values) for query in queries]

        return {"vector_index": VectorIndex(chunks, vectors, open_index, lambda: vectors.values.nbytes, key, seconds)}


def _to_haystack(definition: Mapping[str, Any]) -> dict[str, Any]:
    """{class, parameters} as Haystack writes it; it would build the object where a parameter were written so."""
    return {TYPE: definition["class"], INIT: definition["parameters"]}


def _check_installed(kind: str, package: str) -> None:
    try:
        import_target(kind)
    except (ConfigError, ImportError) as error:
        raise ComponentError(
            f"{kind.rpartition('.')[2]} needs the package '{package}': pip install {package}"
        ) from error


def _write(store: Any, chunks: Chunks, values: Floats) -> int:
    contents = chunks.contents
    for start in range(0, len(chunks), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(chunks)))
        store.write_documents(
            [
                HaystackDocument(
                    # The row's number comes back with each hit.
                    id=str(row),
                    content=contents[row],
                    embedding=values[row].tolist(),
                    meta={"document_id": chunks.document_ids[row]},
                )
                for row in rows
            ]
        )
    return count_documents(store)


def _search(retriever: Any, query: Floats, depth: int, values: Floats) -> Pair:
    found = retriever.run(query_embedding=query.tolist(), top_k=depth)["documents"]
    rows = np.array([int(each.id) for each in found], np.int32)
    # Whether a store's score is a distance, or scaled, differs from one to the next; a cosine is the same for all.
    return sort_hits(rows, (values[rows] @ query).astype(np.float32))
