"""Components of a stage that know nothing of this program's records, Haystack's own above all: what stands for them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag_opt.components.external.stages import StockStage
from rag_opt.components.external.stock_indexing import StockChunkEmbedder, StockQueryEmbedder, StockSplitter
from rag_opt.config.own_pipelines import INIT, TYPE
from rag_opt.config.own_trust import check_type
from rag_opt.config.trust import KEYWORDS, import_target, to_plain
from rag_opt.errors import ComponentError, ConfigError
from rag_opt.evaluation.wiring import GIVEN, OFFERED, RESULTS, STANDARD, get_inputs, get_outputs
from rag_opt.records.documents import Record

# With their dots, so that haystack_experimental is none of them.
LIBRARIES = ("haystack.", "haystack_integrations.")
OURS = {*GIVEN, *OFFERED, *RESULTS, *STANDARD} - {"documents"}
"""Names of sockets that this program's records go through."""


def is_stock(target: str) -> bool:
    """Whether a `_target_` is of Haystack or one of its integrations."""
    return target.startswith(LIBRARIES)


def knows_records(component: Any) -> bool:
    """Whether a component takes or gives records of this program."""
    sockets = {**component.__haystack_input__._sockets_dict, **component.__haystack_output__._sockets_dict}
    types = [socket.type for socket in sockets.values()]
    named = {*get_inputs(component), *get_outputs(component)} & OURS
    return bool(named) or any(isinstance(kind, type) and issubclass(kind, Record) for kind in types)


# Splitters and embedders are parts by themselves; all others of a stage run as one, under the first one's name.
def adapt_stage(stage: str, nodes: Mapping[str, Any], trusted: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """(name, component) for the stock components of a stage, in the order of its file.

    Raises ConfigError for what is not trusted, ComponentError for what fits nowhere.
    """
    definitions = {name: to_definition(f"{stage}.{name}", node, trusted) for name, node in nodes.items()}
    if stage == "index":
        raise ComponentError(
            f"index: {', '.join(nodes)}: a document store's index is one of index=pgvector, qdrant, opensearch, "
            "elasticsearch, or comes with a retriever: retriever.components.<name>.document_store"
        )
    if stage not in ("splitter", "embedder"):
        yield next(iter(nodes)), StockStage(stage, {"components": definitions}, trusted)
        return
    for place, (name, node) in enumerate(definitions.items()):
        definition = {"components": {name: node}, "connections": []}
        if stage == "splitter":
            yield name, StockSplitter(stage, name, definition, trusted, first=place == 0)
        else:
            yield name, _adapt_embedder(stage, name, definition, trusted)


def _adapt_embedder(stage: str, name: str, definition: Mapping[str, Any], trusted: Sequence[str]) -> Any:
    kind = import_target(definition["components"][name][TYPE])
    takes = set(inspect.signature(kind.run).parameters)
    for socket, adapter in (("documents", StockChunkEmbedder), ("text", StockQueryEmbedder)):
        if socket in takes:
            return adapter(stage, name, definition, trusted)
    raise ComponentError(
        f"{stage}.{name}: {kind.__name__} takes {', '.join(sorted(takes - {'self'}))}; an embedder takes documents "
        "(list[Document]), or a text"
    )


def to_definition(where: str, node: Mapping[str, Any], trusted: Sequence[str]) -> dict[str, Any]:
    """{_target_, parameters} as Haystack writes it, by the class's own module."""
    plain = to_plain(node)
    target = str(plain["_target_"])
    check_type(where, target, trusted)
    try:
        kind = import_target(target)
    except (AttributeError, ConfigError) as error:
        raise ComponentError(f"{where}: {str(error).removeprefix('_target_: ')}") from error
    given = {key: value for key, value in plain.items() if key not in KEYWORDS}
    parameters = {key: _nest(value) for key, value in given.items() if key != "cache"}
    home = getattr(kind, "__module__", ""), getattr(kind, "__qualname__", "")
    # Haystack's from_dict refuses any other name of a class than its own module's.
    return {TYPE: ".".join(home), INIT: parameters, **({"cache": given["cache"]} if "cache" in given else {})}


def _nest(value: Any) -> Any:
    """A parameter's value; an object in it as Haystack writes one."""
    if isinstance(value, list):
        return [_nest(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if "_target_" in value:
        kind = import_target(str(value["_target_"]))
        inner = {key: _nest(each) for key, each in value.items() if key not in KEYWORDS}
        return {TYPE: f"{kind.__module__}.{kind.__qualname__}", INIT: inner}
    return {key: _nest(each) for key, each in value.items()}
