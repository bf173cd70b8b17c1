"""Where a pipeline takes a question or the corpus, and where documents and an answer come out: by type and name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import networkx as nx

from rag_opt.components.socket_types import format_type
from rag_opt.errors import ComponentError, format_hint
from rag_opt.system.haystack import ByteStream, ChatMessage, ExtractedAnswer, GeneratedAnswer, Pipeline
from rag_opt.system.haystack import Document as HaystackDocument

QUESTIONS = ("query", "question", "user_query", "input", "text", "prompt", "queries", "messages")
"""Names of sockets that take a question, where they need not be fed."""

FREE_NAMES = QUESTIONS[:3]
"""The same of sockets of any type, such as a template's variables."""

ANSWERS = (list[GeneratedAnswer], list[ExtractedAnswer], list[ChatMessage], ChatMessage, list[str], str)
"""Types of outputs that answer, the plainest sign first."""

REPLIES = ("answers", "replies", "reply", "answer", "last_message", "messages")
"""Names of outputs of texts and messages that are answers."""

MARK, QUESTION = "{question}", "question"
"""What stands for the question in a text that a socket is fed with, and for a text that is nothing else."""


@dataclass(frozen=True)
class Socket:
    """A socket of a component, written `component.socket`."""

    component: str
    name: str

    def __str__(self) -> str:
        return f"{self.component}.{self.name}"


def read_declared(definition: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, outputs) that a pipeline's file declares itself, as Hayhooks reads them.

    Of several inputs the question is the one that is called so; an output's type tells what it is.
    """
    declared = definition.get("inputs")
    inputs = declared if isinstance(declared, Mapping) else {}
    asked = next((name for name in QUESTIONS if name in inputs), next(iter(inputs), None)) if inputs else None
    fed = inputs.get(asked) if asked is not None else None
    # A component that a trial leaves out stands there all the same.
    known = definition["components"]
    places = [str(each) for each in (fed if isinstance(fed, list) else [fed] if fed else [])]
    places = [place for place in places if place.partition(".")[0] in known]
    declared = definition.get("outputs")
    outputs = declared if isinstance(declared, Mapping) else {}
    found: dict[str, Any] = {}
    for given in outputs.values():
        place = str(given[0] if isinstance(given, list) and given else given)
        if place.partition(".")[0] in known:
            found.setdefault("documents" if place.endswith(".documents") else "answer", place)
    return dict.fromkeys(places, QUESTION), found


def parse_socket(key: str, given: Any, known: Mapping[str, Iterable[str]]) -> Socket:
    """The socket of this name; raises ComponentError where the pipeline has none such."""
    owner, _, name = str(given).partition(".")
    if owner not in known:
        raise ComponentError(f"{key}: {given}: there is no component '{owner}'; {format_hint(owner, known)}")
    if name not in set(known[owner]):
        raise ComponentError(f"{key}: {given}: {owner} has no such socket; {format_hint(name, known[owner])}")
    return Socket(owner, name)


def _collect(pipeline: Pipeline, side: str) -> dict[str, dict[str, Any]]:
    """By component its sockets by name."""
    return {name: dict(data[side]) for name, data in pipeline.graph.nodes(data=True)}


def find_inputs(named: str, pipeline: Pipeline, given: Mapping[str, Any]) -> dict[Socket, str]:
    """What each open socket is fed with, a text with {question} in it; `given` says it of some.

    Raises ComponentError for a socket that has to be fed and takes no text.
    """
    known = _collect(pipeline, "input_sockets")
    found = {
        parse_socket(f"{named}: pipeline.inputs", key, known): MARK if text == QUESTION else str(text)
        for key, text in _flatten(given).items()
    }
    for owner, sockets in known.items():
        for name, socket in sockets.items():
            place = Socket(owner, name)
            if place in found or socket.senders:
                continue
            if takes_question(name, socket):
                found[place] = MARK
            elif socket.is_mandatory:
                raise ComponentError(
                    f"{named}: nothing feeds {place} ({format_type(socket.type)}), which it needs; connect it, or say "
                    f"what it takes: pipeline.inputs.{place}={QUESTION}"
                )
    if not any(MARK in text for text in found.values()):
        raise ComponentError(
            f"{named}: nothing takes the question: no open input is called {', '.join(FREE_NAMES)} or has to be "
            f"given a text; say which one: pipeline.inputs.component.socket={QUESTION}"
        )
    return found


def _flatten(given: Mapping[str, Any]) -> dict[str, Any]:
    """{component.socket: …} of what is written so, or as {component: {socket: …}}."""
    found = {}
    for key, value in given.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        found.update({f"{key}.{name}": text for name, text in inner} or {key: value})
    return found


def takes_question(name: str, socket: Any) -> bool:
    """Whether an input is fed with the question: one that has to be given a text, or is called so."""
    if socket.type is Any:
        # A template's variable may be anything: one that is not called so is a connection that was forgotten.
        return not socket.senders and name in FREE_NAMES
    textual = make_input(socket.type, "") is not None
    if socket.is_mandatory and not socket.senders:
        return textual
    return not socket.senders and textual and name in FREE_NAMES


def make_input(kind: Any, text: str) -> Any:
    """A text as a socket of this type takes it; None where it takes none."""
    # Of a union its members; list[str] has arguments, too, and is one type.
    kinds = get_args(kind) if get_args(kind) and not _is_list(kind) else (kind,)
    if str in kinds or Any in kinds:
        return text
    if list[str] in kinds:
        return [text]
    if list[ChatMessage] in kinds:
        return [ChatMessage.from_user(text)]
    return ChatMessage.from_user(text) if ChatMessage in kinds else None


def holds_documents(kind: Any) -> bool:
    """Whether a type is a list of documents, possibly among others."""
    return _holds(kind, HaystackDocument)


def list_sockets(pipeline: Pipeline, side: str) -> list[tuple[Socket, Any]]:
    """The sockets of all components on a side ("input_sockets", "output_sockets"), with their types."""
    found = _collect(pipeline, side).items()
    return [(Socket(owner, name), socket.type) for owner, sockets in found for name, socket in sockets.items()]


def _is_list(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is list


def find_documents_input(named: str, pipeline: Pipeline) -> tuple[Socket, bool]:
    """Where an indexing pipeline takes documents, and whether as files (ByteStreams); raises ComponentError."""
    open_ = [
        (Socket(owner, name), socket)
        for owner, sockets in _collect(pipeline, "input_sockets").items()
        for name, socket in sockets.items()
        if not socket.senders
    ]
    for place, socket in open_:
        if _holds(socket.type, HaystackDocument):
            return place, False
    for place, socket in open_:
        # A Path alone may be anything; converters call theirs `sources`.
        if _holds(socket.type, ByteStream) or (place.name == "sources" and _holds(socket.type, Path)):
            return place, True
    raise ComponentError(
        f"{named}: nothing takes documents: an open input of list[Document], or of sources, is expected; it has "
        f"{', '.join(str(place) for place, _ in open_) or 'none'}"
    )


def _holds(kind: Any, item: type) -> bool:
    """Whether a type is a list of these, possibly among others."""
    return kind is item or any(_holds(each, item) for each in get_args(kind))


def find_outputs(named: str, pipeline: Pipeline, given: Mapping[str, Any]) -> tuple[Socket | None, Socket | None]:
    """(documents, answer): the outputs that are the result, the last ones in the flow of data; None: there is none.

    `given` names some. Raises ComponentError where two of them could be meant, or where there is neither.
    """
    known = _collect(pipeline, "output_sockets")
    for key in given:
        if key not in ("documents", "answer"):
            raise ComponentError(f"{named}: pipeline.outputs.{key}: {format_hint(str(key), ('documents', 'answer'))}")
    found: list[Socket | None] = []
    for key, kinds in (("documents", (list[HaystackDocument],)), ("answer", ANSWERS)):
        if given.get(key) is not None:
            found.append(parse_socket(f"{named}: pipeline.outputs.{key}", given[key], known))
        else:
            found.append(_find_last(named, key, pipeline, known, kinds))
    if found == [None, None]:
        raise ComponentError(
            f"{named}: it gives neither documents nor an answer that types or names tell; name them: "
            "pipeline.outputs.documents=component.socket pipeline.outputs.answer=component.socket"
        )
    return found[0], found[1]


def _find_last(
    named: str, key: str, pipeline: Pipeline, known: Mapping[str, Mapping[str, Any]], kinds: Sequence[Any]
) -> Socket | None:
    """The output of the first of these kinds that no other one of that kind comes after."""
    for kind in kinds:
        places = [
            Socket(owner, name)
            for owner, sockets in known.items()
            for name, socket in sockets.items()
            if socket.type == kind and (key == "documents" or not _is_plain(kind) or name in REPLIES)
        ]
        # In a loop each is reached from the other, which puts neither behind.
        last = [
            place
            for place in places
            if not any(
                other.component != place.component
                and nx.has_path(pipeline.graph, place.component, other.component)
                and not nx.has_path(pipeline.graph, other.component, place.component)
                for other in places
            )
        ]
        owners = {place.component for place in last}
        if len(owners) > 1:
            raise ComponentError(
                f"{named}: {' and '.join(map(str, last))} could both be its {'answer' if key == 'answer' else key}; "
                f"say which: pipeline.outputs.{key}={last[0]}"
            )
        if last:
            # One component may give several: the plainest name counts.
            return min(last, key=lambda place: REPLIES.index(place.name) if place.name in REPLIES else len(REPLIES))
    return None


def _is_plain(kind: Any) -> bool:
    """Whether a type is no sign of an answer by itself."""
    return kind not in (list[GeneratedAnswer], list[ExtractedAnswer])


def read_answer(value: Any) -> str | None:
    """The text of an answer, of the first one of several; None where there is none."""
    if isinstance(value, list):
        # Of a conversation the last word counts, of several answers the first.
        chosen = value[-1:] if value and isinstance(value[-1], ChatMessage) and len(value) > 1 else value[:1]
        return read_answer(chosen[0]) if chosen else None
    if isinstance(value, ChatMessage):
        return value.text
    if isinstance(value, GeneratedAnswer | ExtractedAnswer):
        return value.data
    return value if isinstance(value, str) else None
