"""The pipeline of one's own that writes documents: run once for the same pipeline and corpus, and never half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_opt.components.document_stores import (
    LOOKED_AT,
    MEMORY,
    check_one_store,
    complete_index,
    compute_index_name,
    count_documents,
    find_stores,
    name_stores,
    open_store,
)
from rag_opt.components.external.calls import Calls
from rag_opt.components.external.code import get_codes
from rag_opt.components.external.definition import build, change_definition, make_definitions
from rag_opt.components.external.found import format_pipeline_error
from rag_opt.components.external.gold import make_document, make_source
from rag_opt.components.external.sockets import find_documents_input
from rag_opt.components.stage import Stage
from rag_opt.config.functions import import_trusted
from rag_opt.config.own_pipelines import INIT, TYPE, Definition
from rag_opt.config.own_trust import check_allowed
from rag_opt.console.screens import mute_screen
from rag_opt.errors import ComponentError, ConfigError
from rag_opt.records.documents import Documents, Record
from rag_opt.records.keys import compute_key
from rag_opt.system.haystack import component

NAMED = "pipeline.indexing"
WRITER = "haystack.components.writers.document_writer.DocumentWriter"


@dataclass(frozen=True, eq=False)
class OwnIndex(Record):
    """The name of an index that is complete, of how many documents it is, and the seconds that its making took.

    `name` "" is that of stores which were filled already.
    """

    name: str
    count: int
    key: str
    seconds: float = 0.0


def resolve_definitions(
    side: str,
    definition: Definition | None,
    values: Mapping[str, Any],
    factory: str | None,
    parameters: Mapping[str, Any],
    trusted: Sequence[str],
) -> Definition | None:
    """The definition of this side ("indexing", "querying") with a trial's values, checked; None where there is none."""
    named = f"pipeline.{side}"
    if factory is not None:
        named = f"pipeline.factory={factory}"
        made = make_definitions(import_trusted("pipeline.factory", factory, trusted), named, parameters)
        # The pair is (indexing, querying).
        definition = made[side == "querying"]
    if definition is None:
        if values:
            key = next(iter(values))
            raise ConfigError(f"{side}.{key} is set, and there is no such pipeline: name its file, {named}=…")
        return None
    changed = change_definition(side, definition, values)
    check_allowed(side, changed, trusted)
    return changed


@component
class OwnIndexing(Stage):
    """Runs an indexing pipeline on the corpus, unless its index is there already.

    Each document goes in with its id, also in its meta (document_id), and its title there, too. The index is named by
    the pipeline and the corpus. Raises ComponentError where nothing is written, or a store can't be reached.
    """

    algorithm = "rag_opt.external.OwnIndexing"

    def __init__(
        self,
        definition: Mapping[str, Any] | None,
        values: Mapping[str, Any],
        factory: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        trusted: Sequence[str] = (),
        uncached: Sequence[str] = (),
        version: str = "",
        querying: Mapping[str, Any] | None = None,
    ) -> None:
        self.querying = querying
        self.definition = definition
        self.values = dict(values)
        self.factory = factory
        self.parameters = dict(parameters or {})
        self.trusted = tuple(trusted)
        self.uncached = tuple(uncached)
        self.version = version
        self._changed = resolve_definitions("indexing", definition, values, factory, self.parameters, self.trusted)
        self._whole = self._changed is None and self._writes_whole()
        if self._changed is not None:
            self._stores = find_stores(self._changed)
            if not self._stores:
                raise ComponentError(f"{NAMED}: no component has a document store; one that writes into it is expected")
            check_one_store(NAMED, self._changed)
            # Built to be looked at: what is wrong is said before trial 0.
            built = build("indexing", name_stores(self._changed, LOOKED_AT), self.trusted)
            self._place, self._files = find_documents_input(NAMED, built)

    def _writes_whole(self) -> bool:
        """Have the documents written as they are, where all that reads them is in memory, and so empty."""
        querying = self.querying
        if self.factory is not None:
            factory = import_trusted("pipeline.factory", self.factory, self.trusted)
            querying = make_definitions(factory, f"pipeline.factory={self.factory}", self.parameters)[1]
        stores = find_stores(querying)
        if not stores or any(node[TYPE] != MEMORY for node in stores):
            return False
        writer = {TYPE: WRITER, INIT: {"document_store": stores[0]}}
        self._changed = {"components": {"writer": writer}, "connections": []}
        return True

    @property
    def fingerprint(self) -> str:
        """The hash of what is indexed how, whatever the stores' documents are kept in."""
        if self._changed is None:
            return compute_key(self.algorithm, self.version)
        return compute_key(self.algorithm, name_stores(self._changed, None), get_codes(self._changed), self.version)

    @property
    def plain(self) -> Definition | None:
        """The pipeline as Haystack's own, with a trial's values: its stores under the names that its author gave."""
        return self._changed

    @property
    def takes(self) -> tuple[str, bool]:
        """Where it takes documents, as component.socket, and whether as files."""
        return str(self._place), self._files

    @component.output_types(own_index=OwnIndex)
    def run(self, documents: Documents) -> dict[str, OwnIndex]:
        if self._changed is None:
            return {"own_index": OwnIndex("", 0, self.fingerprint)}
        if self._whole:
            self.notices.report_once(
                "no pipeline.indexing is named: the documents are written whole into the InMemoryDocumentStore of "
                "pipeline.querying"
            )
        # Whoever keeps artifacts elsewhere makes an index of their own: neither knows which of the other's are whole.
        mine = [get_codes(self._changed), self.version, self.llm.replies.identity]
        name = compute_index_name(self._changed, documents.key, compute_key(mine))
        definition = name_stores(self._changed, name)
        # The only one: more were refused when this was made.
        node = find_stores(definition)[0]
        store = open_store(node)

        count, seconds = complete_index(
            self.store, name, node, store, lambda: self._write(definition, store, documents)
        )
        return {"own_index": OwnIndex(name, count, compute_key(self.algorithm, name), seconds)}

    def _write(self, definition: Definition, store: Any, documents: Documents) -> int:
        """Index the documents, and give how many the store holds then."""
        pipeline = build("indexing", definition, self.trusted)
        Calls(self.resources, self.trusted, frozenset(self.uncached)).attach(pipeline, definition)
        given = [make_source(each) if self._files else make_document(each) for each in documents.items]
        try:
            with mute_screen():
                pipeline.run({self._place.component: {self._place.name: given}})
        except Exception as error:
            raise ComponentError(f"{NAMED}: {format_pipeline_error(error)}") from error
        count = count_documents(store)
        if not count:
            raise ComponentError(
                f"{NAMED}: of {len(given)} documents none was written; look at its cleaners and filters"
            )
        return count
