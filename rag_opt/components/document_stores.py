"""Document stores of pipelines of one's own: each index by the name of what is in it, so that no two share documents.

An InMemoryDocumentStore is shared by the whole process under its `index`; a server's collection by everyone. So the
name in a definition is replaced by the hash of the indexing pipeline and the corpus.
"""

from __future__ import annotations

import inspect
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.cache.artifact_files import DamagedError, read_table, write_table
from rag_opt.cache.eviction import IN_STORES, list_artifacts
from rag_opt.cache.leases import lock_artifact
from rag_opt.config.own_pipelines import INIT, STORE_NAMES, TYPE, Definition, is_store, iterate_objects
from rag_opt.config.trust import import_target
from rag_opt.errors import ComponentError
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from rag_opt.cache.store import Store

PLACES = ("index", "_index", "collection_name", "_collection_name")
"""Attributes of stores that name what they keep documents in."""

BESIDE = ("hnsw_index_name", "keyword_index_name")
"""Parameters that name what belongs to the documents' place."""

PREFIX = "rag_opt_"
MEMORY = "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore"
LOOKED_AT = "rag_opt_unused"
"""What the stores of a pipeline are named by that is built to be looked at."""


def find_stores(definition: Definition | None) -> list[Mapping[str, Any]]:
    """The document stores that a definition holds, each once."""
    found = [node for _, node in iterate_objects(definition["components"]) if is_store(node)] if definition else []
    # A writer and a retriever of the same store both write it out in full.
    return list({json.dumps(node, sort_keys=True, default=str): node for node in found}.values())


def check_one_store(named: str, definition: Definition) -> None:
    """Raise ComponentError where a pipeline has several document stores: one index is named and looked after."""
    if len(found := find_stores(definition)) > 1:
        names = ", ".join(f"{str(each[TYPE]).rpartition('.')[2]} {find_name(each)}" for each in found)
        raise ComponentError(
            f"{named}: it has {len(found)} document stores ({names}, or with other parameters), and an index is made "
            "in one; use one, or fill them yourself and leave pipeline.indexing out"
        )


def find_name(node: Mapping[str, Any]) -> str | None:
    """The parameter by which a store names what it keeps documents in; None where it has none."""
    given = node.get(INIT) or {}
    named = next((name for name in STORE_NAMES if name in given), None)
    if named is not None:
        return named
    return next((name for name in STORE_NAMES if name in _get_parameters(node)), None)


def _get_parameters(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return inspect.signature(import_target(str(node[TYPE])).__init__).parameters


def name_stores(node: Any, name: str | None) -> Any:
    """A definition with what its stores keep documents in called `name` (None: by nothing, as it stands in keys).

    Raises ComponentError for a store that can't be given a name.
    """
    if isinstance(node, list):
        return [name_stores(each, name) for each in node]
    if not isinstance(node, Mapping):
        return node
    if not (isinstance(node.get(TYPE), str) and is_store(node)):
        return {key: name_stores(value, name) for key, value in node.items()}
    field = find_name(node)
    if field is None:
        raise ComponentError(
            f"{node[TYPE]}: none of its parameters ({', '.join(STORE_NAMES)}) names what it keeps documents in, so two "
            "configurations would share them; choose another document store"
        )
    given = {key: value for key, value in (node.get(INIT) or {}).items() if key not in (field, *BESIDE)}
    # PostgreSQL knows each index of a schema by a name of its own.
    beside = {key: f"{name}_{key.partition('_')[0]}" for key in BESIDE if key in _get_parameters(node)}
    return {**node, INIT: given if name is None else {**given, field: name, **beside}}


def compute_index_name(definition: Definition, documents_key: str, code: str) -> str:
    """The name of the index that this indexing pipeline makes of these documents."""
    return PREFIX + compute_key("index", name_stores(definition, None), documents_key, code)[:20]


_open: OrderedDict[str, Any] = OrderedDict()
_whole: dict[str, tuple[int, float]] = {}
"""Indexes that this process knows to be whole: their documents, and the seconds that making them took."""

_guard = threading.Lock()
OPEN = 12
"""Document stores that a process keeps open, or in memory."""


def open_store(node: Mapping[str, Any]) -> Any:
    """The one document store of this definition that this process has; raises ComponentError where it can't be made."""
    # By process and not by study: what Haystack keeps in memory is the whole process' as well.
    # And by what the variables hold that it names: another address is another store.
    held = [os.environ.get(str(name)) for _, each in iterate_objects(node) for name in each.get("env_vars") or ()]
    key = compute_key(node, held)
    with _guard:
        if key not in _open:
            _open[key] = build_store(node)
        _open.move_to_end(key)
        gone = [_open.popitem(last=False)[1] for _ in range(len(_open) - OPEN)]
    for store in gone:
        if get_type(store) == MEMORY and store.index.startswith(PREFIX):
            # Nobody else frees it; who still needs it finds it empty and fills it again.
            store.delete_all_documents()
    # Other threads may have pushed it out since.
    return _open.get(key) or build_store(node)


def get_type(store: Any) -> str:
    """The dotted name of a store's class."""
    return f"{type(store).__module__}.{type(store).__qualname__}"


def build_store(node: Mapping[str, Any]) -> Any:
    """The document store of a definition; raises ComponentError where it can't be reached or made."""
    kind = import_target(str(node[TYPE]))
    try:
        # Secrets, and objects that stand within, are read by from_dict alone.
        return kind.from_dict(dict(node))
    except Exception as error:
        # A driver or a server may fail in any way.
        raise ComponentError(
            f"{kind.__name__}: {type(error).__name__}: {' '.join(str(error).split())}"[:400]
        ) from error


def complete_index(
    cache: Store, name: str, node: Mapping[str, Any], store: Any, write: Callable[[], int]
) -> tuple[int, float]:
    """How many documents an index holds, and the seconds that making it took; `write()` does where it is not whole.

    One process makes it and the others wait. What a killed one has left is removed before it is written again. Raises
    ComponentError where a store can't be reached, or holds another number of documents once it is written again.
    """

    def make() -> int:
        if count_documents(store):
            empty_store(store)
        return write()

    def keep() -> dict[str, Any]:
        return {"count": np.array([make()], np.int64), "store": [json.dumps(node, sort_keys=True, default=str)]}

    if name in _whole and count_documents(store) == _whole[name][0]:
        # Also where another store of artifacts is at work, as while a pipeline is timed with nothing kept.
        return _whole[name]
    kept = cache.get_table(IN_STORES, name, keep)
    count = int(kept.columns["count"][0])
    if count_documents(store) != count:
        # Kept in another process' memory, or removed since.
        with lock_artifact(cache.root, IN_STORES, name) if cache.root is not None else nullcontext():
            # Who had the lock before may just have written it.
            if count_documents(store) != count and (found := make()) != count:
                raise ComponentError(
                    f"{name}: {found} documents were written where there were {count} before: what writes them draws "
                    "at random; give it a seed"
                )
    _whole[name] = count, kept.seconds
    return count, kept.seconds


def count_documents(store: Any) -> int:
    """How many documents a store holds; raises ComponentError where it can't say."""
    try:
        return int(store.count_documents())
    except Exception as error:
        # As in `build_store`: most connect when they are first asked.
        raise ComponentError(
            f"{type(store).__name__} can't be reached: {type(error).__name__}: {' '.join(str(error).split())}"[:400]
        ) from error


def empty_store(store: Any) -> None:
    """Remove all documents that a store holds."""
    if callable(remove := getattr(store, "delete_all_documents", None)):
        remove()
        return
    ids = [document.id for document in store.filter_documents()]
    if ids:
        store.delete_documents(ids)


def drop_index(store: Any) -> None:
    """Remove a store's documents, and what they lie in as far as it can be removed."""
    # The first is pgvector's.
    for name in ("delete_table", "delete_index", "delete_collection"):
        if callable(drop := getattr(store, name, None)):
            drop()
            return
    client = getattr(store, "client", None) or getattr(store, "_client", None)
    named = next((getattr(store, name) for name in PLACES if isinstance(getattr(store, name, None), str)), None)
    # OpenSearch's and Elasticsearch's clients.
    indices = getattr(client, "indices", None)
    if named is not None and indices is not None and callable(getattr(indices, "delete", None)):
        indices.delete(index=named)
        return
    # Qdrant's and Chroma's clients.
    if named is not None and callable(drop := getattr(client, "delete_collection", None)):
        drop(named)
        return
    empty_store(store)


def share_stores(component: Any, stores: Mapping[str, Any]) -> None:
    """Have a component, and what it is made of, use the one store of each definition that this process has."""
    for owner, field, store in _iterate_stores(component, 0):
        known = stores.get(get_identity(store))
        if known is not None and known is not store:
            setattr(owner, field, known)


def get_identity(store: Any) -> str:
    """What stands for a store: its definition."""
    return json.dumps(store.to_dict(), sort_keys=True, default=str)


def _iterate_stores(owner: Any, depth: int) -> Iterator[tuple[Any, str, Any]]:
    """(owner, attribute, store) of a component and what it is made of."""
    values = getattr(owner, "__dict__", {})
    for field, value in list(values.items()):
        # Document stores have no common class: Haystack's is a protocol.
        if callable(getattr(value, "write_documents", None)) and callable(getattr(value, "to_dict", None)):
            yield owner, field, value
        elif depth < 4 and (hasattr(value, "__haystack_input__") or field in ("pipeline", "tools", "_component")):
            for each in value if isinstance(value, list) else [value]:
                yield from _iterate_stores(each, depth + 1)


@dataclass(frozen=True)
class KeptIndex:
    """An index in a document store: its name, the store's definition, its documents; when it was last needed."""

    name: str
    node: Mapping[str, Any]
    count: int
    used: float

    @property
    def kind(self) -> str:
        """The store's class."""
        return str(self.node[TYPE]).rpartition(".")[2]

    def keep(self, path: Path) -> None:
        """Write down again that it is there."""
        write_table(path, {"count": np.array([self.count], np.int64), "store": [json.dumps(self.node)]}, 0.0)

    @property
    def lasts(self) -> bool:
        """Whether it is anywhere but in the memory of the process that made it."""
        given = self.node.get(INIT) or {}
        # Qdrant's name for memory is :memory:.
        return self.node[TYPE] != MEMORY and given.get("location") != ":memory:"

    def drop(self) -> None:
        """Remove it from its store; raises ComponentError where that can't be reached."""
        store = build_store(self.node)
        # Most connect when first asked: a store that is away is said before anything is removed.
        count_documents(store)
        drop_index(store)


def list_indexes(root: Path) -> list[KeptIndex]:
    """The indexes that a store of artifacts knows to be whole in document stores, least recently used first."""
    found = []
    for artifact in list_artifacts(root):
        if artifact.stage == IN_STORES:
            # What can't be read tells of no index that it is whole.
            with suppress(DamagedError, OSError, ValueError):
                columns = read_table(artifact.path).columns
                found.append(
                    KeptIndex(artifact.key, json.loads(columns["store"][0]), int(columns["count"][0]), artifact.used)
                )
    return found
