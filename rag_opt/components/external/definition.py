"""A pipeline's definition, changed by a trial's values and checked, then built: what may run, what is left out."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rag_opt.config.own_pipelines import (
    INIT,
    NONE,
    TYPE,
    Definition,
    change_component,
    check_definition,
    write_down,
)
from rag_opt.config.trust import import_target
from rag_opt.errors import ComponentError, ConfigError, RagOptError, format_hint
from rag_opt.system.haystack import Pipeline

UNTRUSTED = re.compile(r"Refusing to deserialize a class from module '([\w.]+)'")
"""How Haystack's loader refuses a name that stands where no parameter tells that it is one."""


def change_definition(named: str, definition: Definition, values: Mapping[str, Any]) -> Definition:
    """The pipeline with a trial's values; raises ComponentError for a component that it does not have."""
    # A study prints nothing that streams.
    known: Mapping[str, Any] = _silence(definition["components"])
    for name in values:
        if name not in known:
            raise ComponentError(f"{named}: there is no component '{name}'; {format_hint(name, known)}")
    components: dict[str, dict[str, Any]] = {}
    for name, node in known.items():
        given = values.get(name, {})
        if not isinstance(given, Mapping):
            raise ComponentError(
                f"{named}.{name}={given}: a parameter is expected, such as {named}.{name}.type={given}"
            )
        components[name] = change_component(node, given)
    changed: Definition = {**definition, "components": components}
    for name, node in components.items():
        if node[TYPE] == NONE:
            changed = drop_component(named, changed, name)
    return changed


def _silence(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: None if key == "streaming_callback" else _silence(value) for key, value in node.items()}
    return [_silence(value) for value in node] if isinstance(node, list) else node


def drop_component(named: str, definition: Definition, name: str) -> Definition:
    """The pipeline without a component: what came in goes on where its output of the same name went.

    Raises ComponentError where none of its inputs stands for an output that others take.
    """
    connections = definition.get("connections") or []
    before = {_socket(each["receiver"]): each["sender"] for each in connections if _owner(each["receiver"]) == name}
    taken = [_socket(each["receiver"]) for each in connections if _owner(each["receiver"]) == name]
    if len(set(taken)) < len(taken):
        raise ComponentError(
            f"{named}.{name}.type={NONE}: it takes from several components, and what is behind it would have one of "
            "them alone; leave it in"
        )
    kept = [each for each in connections if name not in (_owner(each["receiver"]), _owner(each["sender"]))]
    for each in connections:
        if _owner(each["sender"]) == name:
            socket = _socket(each["sender"])
            sender = before.get(socket) or (next(iter(before.values())) if len(before) == 1 else None)
            # Fed from outside, or with nothing that could stand for its output: the one behind it is left open.
            kept += [{"sender": sender, "receiver": each["receiver"]}] if sender else []
    components = {other: node for other, node in definition["components"].items() if other != name}
    if not components:
        raise ComponentError(f"{named}.{name}.type={NONE}: it is the pipeline's only component; leave it in")
    return {**definition, "components": components, "connections": kept}


def _owner(end: str) -> str:
    return end.partition(".")[0]


def _socket(end: str) -> str:
    return end.partition(".")[2]


def build(named: str, definition: Definition, trusted: Sequence[str]) -> Pipeline:
    """The Haystack pipeline of a definition that is allowed.

    Raises ComponentError for a component, a parameter or a connection that can't be, with what Haystack says of it.
    """
    for name, node in definition["components"].items():
        _check_parameters(f"{named}.{name}", node)
    try:
        return Pipeline.from_dict(dict(definition), allowed_modules=[f"{each}.*" for each in trusted])
    except RagOptError:
        raise
    except Exception as error:
        # Haystack, an integration, or a constructor may refuse in any way.
        raise ComponentError(f"{named}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """What a loader says of a fault, without the component's whole definition, which stands in the file."""
    text = " ".join(str(error).split())
    if refused := UNTRUSTED.search(text):
        root = refused[1].partition(".")[0]
        text = (
            f"{text.partition(' of class ')[0]} Original error: it names {refused[1]}, which is not trusted and not "
            f"imported; if it is yours, add trusted_modules=[{root}] to the command line"
        )
    cause = text.rpartition("Original error: ")[2]
    found = text.partition(" of class ")[0].removeprefix("Couldn't deserialize component ")
    return f"component {found}: {cause}"[:400] if cause != text else text[:400]


def _check_parameters(named: str, node: Mapping[str, Any]) -> None:
    """Raise ComponentError for a class that is not there, or does not know a parameter."""
    kind = str(node[TYPE])
    try:
        found = import_target(kind)
    except ConfigError as error:
        raise ComponentError(f"{named}: {str(error).removeprefix('_target_: ')}; install what it is from") from error
    except Exception as error:
        # A module may fail in any way when it is imported.
        raise ComponentError(f"{named}: {kind} can't be imported: {type(error).__name__}: {error}"[:400]) from error
    if not isinstance(found, type) or (not hasattr(found, "run") and not hasattr(found, "run_async")):
        raise ComponentError(f"{named}: {kind} is no component: a class with a `run` method is expected")
    parameters = inspect.signature(found.__init__).parameters  # type: ignore[misc]
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()) or hasattr(
        found, "__haystack_supercomponent__"
    ):
        return
    for given in node.get(INIT) or {}:
        if given not in parameters:
            raise ComponentError(
                f"{named}: {kind.rpartition('.')[2]} has no parameter '{given}'; "
                f"{format_hint(given, [each for each in parameters if each != 'self'])}"
            )


def make_definitions(factory: Any, key: str, parameters: Mapping[str, Any]) -> tuple[Definition | None, Definition]:
    """(indexing, querying) of what a factory builds; raises ComponentError where that is no pipeline."""
    # As a text, since lru_cache takes only what can be hashed.
    return _make_once(factory, key, json.dumps(parameters, sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _make_once(factory: Any, key: str, given: str) -> tuple[Definition | None, Definition]:
    # Once for both sides: a store in memory is named at random each time that one is made.
    parameters = json.loads(given)
    try:
        built = factory(**parameters)
    except Exception as error:
        # It is the user's, and may fail in any way.
        raise ComponentError(
            f"{key}: it failed with {dict(parameters)}: {type(error).__name__}: {error}"[:400]
        ) from error
    pair = built if isinstance(built, tuple) else (None, built)
    if len(pair) != 2 or not (hasattr(pair[1], "to_dict") or hasattr(pair[1], "setup")):
        raise ComponentError(
            f"{key}: it gave {type(built).__name__}; a haystack.Pipeline is expected, or an indexing and a querying one"
        )
    try:
        dumped = [None if each is None else write_down(each) for each in pair]
    except Exception as error:
        raise ComponentError(
            f"{key}: what it builds can't be written down: {error}; give it a to_dict"[:400]
        ) from error
    indexing, querying = dumped
    assert querying is not None
    return None if indexing is None else check_definition(key, indexing), check_definition(key, querying)
