"""How the components of one stage are connected, in their order and by type, and what is left open is fed with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import UnionType
from typing import Any, Union, get_args, get_origin

import networkx as nx

from rag_opt.components.document_stores import LOOKED_AT, name_stores
from rag_opt.components.external.definition import build
from rag_opt.components.external.sockets import MARK, Socket, find_outputs, holds_documents, takes_question
from rag_opt.components.socket_types import format_type
from rag_opt.config.own_pipelines import Definition
from rag_opt.errors import ComponentError
from rag_opt.system.haystack import Pipeline, PipelineConnectError

READ = {"reranker": "ranking", "context": "context", "generator": "context"}
"""What of a pipeline a stage reads as retrieved documents."""

VECTOR = "query_embedding"
SAME = {"messages": "prompt"}
"""What an input of a model takes, by what a builder of prompts calls it."""


def connect_in_order(stage: str, definition: Definition, trusted: Sequence[str]) -> Definition:
    """The components connected in their order: an open input takes the last earlier output of its very type.

    Texts are taken only by an input of the same name: a prompt is no query.
    """
    built = build(stage, name_stores(definition, LOOKED_AT), trusted)
    connections: list[dict[str, str]] = []
    names = list(definition["components"])
    for place, taker in enumerate(names):
        for name, socket in built.graph.nodes[taker]["input_sockets"].items():
            # Rankers take what stands before them; of anything else the type says enough, wherever it stands.
            later = [] if holds_documents(socket.type) else names[place + 1 :]
            for giver in [*reversed(names[:place]), *later]:
                # A connection against the flow would close a circle.
                if nx.has_path(built.graph, taker, giver):
                    continue
                outputs = built.graph.nodes[giver]["output_sockets"]
                other = next((each for each in outputs.values() if _suits(name, socket.type, each)), None)
                if other is None:
                    continue
                # What Haystack refuses after all is left, and the next giver is tried.
                with suppress(PipelineConnectError):
                    built.connect(f"{giver}.{other.name}", f"{taker}.{name}")
                    connections.append({"sender": f"{giver}.{other.name}", "receiver": f"{taker}.{name}"})
                    break
    return {**definition, "connections": connections}


def _suits(name: str, kind: Any, output: Any) -> bool:
    kinds = (kind,) if get_origin(kind) not in (Union, UnionType) else get_args(kind)
    same = output.name in (name, SAME.get(name))
    return bool(same if output.type is str or kind is Any else same or output.type in kinds)


def find_feeds(stage: str, pipeline: Pipeline) -> tuple[dict[Socket, str], dict[Socket, Any]]:
    """What each open input is fed with ("documents", "query_embedding", the question), and its type.

    Raises ComponentError for one that has to be fed and takes none of these.
    """
    feeds: dict[Socket, str] = {}
    types: dict[Socket, Any] = {}
    for owner, data in pipeline.graph.nodes(data=True):
        for name, socket in data["input_sockets"].items():
            place = Socket(owner, name)
            types[place] = socket.type
            if socket.senders:
                continue
            if stage in READ and (holds_documents(socket.type) or (socket.type is Any and name == "documents")):
                feeds[place] = "documents"
            elif name == VECTOR and stage == "retriever":
                feeds[place] = VECTOR
            elif takes_question(name, socket):
                feeds[place] = MARK
            elif socket.is_mandatory:
                known = "the question, its vector" if stage == "retriever" else "the question, retrieved documents"
                raise ComponentError(
                    f"{stage}: nothing gives {place} ({format_type(socket.type)}); there is: {known}, and what the "
                    "components before it in this file give"
                )
    return feeds, types


def find_results(stage: str, pipeline: Pipeline) -> tuple[Socket | None, Socket | None]:
    try:
        return find_outputs(stage, pipeline, {})
    except ComponentError as error:
        # Which of two is meant only the author can say; that there is none the stage says better.
        if "could both be" in str(error):
            raise
        return None, None
