"""Which component's output goes to which input, what of all is needed, and what serves nothing.

One rule connects: an input is fed by the last earlier component whose output has its name. What is read is what was
ranked, unless a component of stage `context` gives something else. What the result does not need is not built, so BM25
alone never embeds; but what was chosen to order, assemble or answer has to serve, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_opt.components.socket_types import format_type, is_compatible
from rag_opt.errors import ComponentError, format_hint
from rag_opt.records.documents import Documents, Queries
from rag_opt.records.products import Answers, Rankings, Searches

SEARCHES = ("bm25_queries", "dense_queries", "web_queries")
"""What each retriever searches for: the queries, where stage `query` makes nothing else of them."""

GIVEN: Mapping[str, type] = {"documents": Documents, "queries": Queries, **dict.fromkeys(SEARCHES, Searches)}
"""The sockets that are fed from outside, and with what."""

RESULTS: Mapping[str, type] = {"ranking": Rankings, "context": Rankings, "answers": Answers}
"""What a pipeline is asked for; a context and answers need not be there."""

MAY_REST = ("splitter", "embedder", "index")
"""Stages that a configuration always has, and of which it may need none."""

STANDARD = ("chunks", "vectors", "query_vectors", "vector_index", "bm25_index")
"""What those stages give, whether or not a retriever takes it."""

WANTED: Mapping[str, tuple[str, ...]] = {
    "parser": ("documents",),
    **dict.fromkeys(MAY_REST, STANDARD),
    "query": SEARCHES,
    "retriever": ("ranking",),
    "reranker": ("ranking",),
    "context": ("context",),
    "generator": ("answers",),
}
"""What the components of a stage are there to give."""

OFFERED = ("queries", "chunks", "vectors", "query_vectors", "ranking", "context")
"""What a component may take, as far as there is any before it."""


@dataclass(frozen=True)
class Part:
    """A named component and where each of its inputs comes from: (part, socket), part None for what is given."""

    name: str
    component: Any
    inputs: Mapping[str, tuple[str | None, str]]
    stage: str = ""


def get_inputs(component: Any) -> dict[str, bool]:
    """A component's input sockets, and whether each must be connected."""
    return {name: socket.is_mandatory for name, socket in component.__haystack_input__._sockets_dict.items()}


def get_outputs(component: Any) -> set[str]:
    """A component's output sockets."""
    return set(component.__haystack_output__._sockets_dict)


def order_components(components: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The components of one stage, givers before takers, whatever order their files list them in."""
    waiting = dict(components)
    while waiting:
        free = [
            name
            for name in waiting
            if not any(
                get_outputs(waiting[other]) & set(get_inputs(waiting[name])) for other in waiting if other != name
            )
        ]
        if not free:
            raise ComponentError(f"{', '.join(waiting)}: each of these components waits for another")
        # One at a time: those that wait for nothing stay in the order of their file.
        yield free[0], waiting.pop(free[0])


def wire_components(components: Iterable[tuple[str, str, Any]]) -> list[Part]:
    """The parts made of (stage, name, component); raises ComponentError for an input that nothing feeds."""
    sources: dict[str, tuple[str | None, str]] = {socket: (None, socket) for socket in GIVEN}
    parts: list[Part] = []
    for stage, name, component in components:
        wanted = get_inputs(component)
        missing = [socket for socket, mandatory in wanted.items() if mandatory and socket not in sources]
        if missing:
            raise ComponentError(
                f"{name}: nothing before it gives '{missing[0]}' (there is: {', '.join(sources)}); "
                f"{_format_socket_hint(missing[0], sources)}choose another component, or one for an earlier stage "
                "that gives it"
            )
        parts.append(Part(name, component, {socket: sources[socket] for socket in wanted if socket in sources}, stage))
        given = get_outputs(component)
        sources |= {socket: (name, socket) for socket in given}
        # Whoever ranks last decides what is read, until a component of stage `context` gives something else.
        if "ranking" in given:
            sources["context"] = (name, "ranking")
    if "ranking" not in sources:
        raise ComponentError("retriever: no component gives a 'ranking'")
    return parts


def find_results(parts: Iterable[Part]) -> dict[str, str]:
    """By result the part that gives it."""
    # Of several the last, as for every input.
    return {socket: part.name for part in parts for socket in RESULTS if socket in get_outputs(part.component)}


def find_upstream(parts: Sequence[Part], names: Iterable[str]) -> set[str]:
    """The parts of these names, and all whose products reach them; `parts` in their order."""
    wanted = set(names)
    # One pass from the end finds them all, since a part takes from earlier ones alone.
    for part in reversed(parts):
        if part.name in wanted:
            wanted |= {sender for sender, _ in part.inputs.values() if sender}
    return wanted


def select_needed(parts: Sequence[Part]) -> list[Part]:
    """The parts that the results depend on, in order.

    Raises ComponentError for one that serves nothing though it was chosen to, or is fed with what it does not take.
    """
    wanted = find_upstream(parts, find_results(parts).values())
    # The last one is the cause: what feeds it alone is unused because of it.
    for place, part in reversed(list(enumerate(parts))):
        if part.name not in wanted and _should_serve(part, parts, wanted):
            raise ComponentError(_explain_unused(part, parts, place))
    kept = [part for part in parts if part.name in wanted]
    for part in kept:
        _check_types(part, kept)
    return kept


def _should_serve(part: Part, parts: Sequence[Part], wanted: set[str]) -> bool:
    """Whether it is a mistake that nothing needs this part."""
    if part.stage not in MAY_REST:
        return True
    beside = [other for other in parts if other.stage == part.stage and other is not part]
    given = get_outputs(part.component)
    # A stage may rest as a whole, and where it serves, give more than is taken: but what it gives has a taker's name.
    replaced = any(given <= get_outputs(other.component) for other in beside)
    return any(other.name in wanted for other in beside) and (replaced or not given & set(STANDARD))


def _explain_unused(part: Part, parts: Sequence[Part], place: int) -> str:
    """Why a part serves nothing, and what could be meant."""
    given, wanted = sorted(get_outputs(part.component)), WANTED.get(part.stage, tuple(RESULTS))
    before = {*GIVEN, *(socket for other in parts[:place] for socket in get_outputs(other.component))}
    offered = [each for each in OFFERED if each in before or (each == "context" and "ranking" in before)]
    told = f"{part.name}: it gives {', '.join(given)}, which nothing here takes"
    instead = [other for other in parts[place + 1 :] if set(given) & get_outputs(other.component)]
    if instead:
        last = instead[-1]
        return (
            f"{told}: {last.name} gives another and takes {', '.join(last.inputs) or 'nothing'}; have it take this one"
        )
    # A socket of a right name is what the others here, such as a retriever, have no use for.
    meant = "".join(_format_socket_hint(socket, wanted) for socket in given if socket not in wanted)
    other = "query=none, or a retriever that searches for it" if part.stage == "query" else f"{part.stage}=none"
    return (
        f"{told}; {meant}what serves in {part.stage} gives {' or '.join(wanted)}, and may take {', '.join(offered)}: "
        f"change {type(part.component).__name__}, or {'leave it out' if part.stage in MAY_REST else f'choose {other}'}"
    )


def _format_socket_hint(socket: str, known: Iterable[str]) -> str:
    """The advice for a misspelt socket, "" where none is near."""
    found = format_hint(socket, known)
    return f"{found} " if found.startswith("did you mean") else ""


# ---- what is fed and what is taken


def _check_types(part: Part, parts: Sequence[Part]) -> None:
    """Raise ComponentError where a component is fed with, or gives as a result, what is of another kind."""
    for socket, (sender, output) in part.inputs.items():
        takes = part.component.__haystack_input__._sockets_dict[socket].type
        gives = GIVEN[output] if sender is None else _get_output_type(sender, output, parts)
        # Haystack's own components call what was retrieved `documents`; here that name is the whole corpus.
        corpus = output == socket == "documents" and part.stage in ("reranker", "context", "generator")
        if not is_compatible(takes, gives) or (corpus and takes is not Documents):
            about = f"{sender} gives it as {format_type(gives)}" if sender else f"it is given as {format_type(gives)}"
            about = "that is the whole corpus; what was retrieved is ranking or context" if corpus else about
            raise ComponentError(
                f"{part.name}: it takes '{socket}' as {format_type(takes)}, and {about}: "
                f"{type(part.component).__name__} "
                "needs a component around it that takes and gives records of rag_opt"
            )
    for socket, wanted in RESULTS.items():
        if socket in get_outputs(part.component):
            gives = _get_output_type(part.name, socket, parts)
            if not is_compatible(wanted, gives):
                raise ComponentError(
                    f"{part.name}: it gives '{socket}' as {format_type(gives)}, not as {format_type(wanted)}"
                )


def _get_output_type(name: str, socket: str, parts: Sequence[Part]) -> Any:
    giver = next(part.component for part in parts if part.name == name)
    return giver.__haystack_output__._sockets_dict[socket].type
