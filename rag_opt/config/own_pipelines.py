"""Pipelines of one's own as configuration: a file's components with their init parameters as keys, and back again.

A file that Pipeline.dumps() wrote holds {type, init_parameters} for each component, and within these for whatever is an
object itself. Here each such object is {type, **init_parameters}, so that `querying.ranker.top_k` names a parameter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from rag_opt.config.functions import import_trusted
from rag_opt.config.yaml_files import check_yaml
from rag_opt.errors import ConfigError

SIDES = ("indexing", "querying")
PARAMETERS = "parameters"
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
SOCKETS = ("pipeline.inputs", "pipeline.outputs")
FREE = tuple(f"{tree}." for tree in (*SIDES, PARAMETERS, *SOCKETS))
"""How keys begin that no file under conf/ lists."""

TYPE, INIT = "type", "init_parameters"
NONE = "none"
"""The type of a component that is left out."""

STORE_NAMES = ("index", "collection_name", "table_name", "index_name", "collection")
"""The parameters by which document stores name what they keep documents in."""

Definition = Mapping[str, Any]
"""A pipeline as Pipeline.to_dict() gives it: components, connections, metadata, max_runs_per_component."""


class TupleSafeLoader(yaml.CSafeLoader):
    """Plain values, and the tuples that Haystack writes; any other tag is refused, as of what a pickle would hold.

    So is a key that stands twice: of two components of one name YAML would silently drop the first.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node; raises ConstructorError for a key that it has twice."""
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
            # A key that is itself a list or mapping is PyYAML's own to refuse.
            seen.add(getattr(key, "value", "") if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def _construct_tuple(loader: TupleSafeLoader, node: Any) -> list[Any]:
    # A list, as the JSON in which a definition is kept has no tuples.
    return loader.construct_sequence(node)


TupleSafeLoader.add_constructor("tag:yaml.org,2002:python/tuple", _construct_tuple)


def is_free(key: str) -> bool:
    """Whether a key is an init parameter of a pipeline of one's own, or a keyword argument."""
    return key.startswith(FREE) or key in SOCKETS


def mark_free(word: str) -> str:
    """A word as Hydra takes it: to it the keys of a pipeline of one's own are new."""
    return f"++{word}" if is_free(_get_key(word)) else word


def unmark_free(word: str) -> str:
    """The word that `mark_free` was given."""
    plain = word.removeprefix("++")
    return plain if is_free(_get_key(plain)) else word


def _get_key(word: str) -> str:
    return word.partition("=")[0]


def read_definition(key: str, given: Any, trusted: Sequence[str] = ()) -> Definition:
    """The pipeline that a file holds, or that a function or class of a trusted module gives (a Hayhooks wrapper, say).

    Raises ConfigError for what is none, with where and what to do.
    """
    if not isinstance(given, str):
        raise ConfigError(f"{key}={given}: a file is expected, such as {key}=query.yaml")
    path = Path(given).expanduser()
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        # The name of a file that is not there, such as query.yaml, reads like a dotted one as well.
        if DOTTED.fullmatch(given) and path.suffix not in (".yaml", ".yml"):
            return dump_pipeline(f"{key}={given}", import_trusted(key, given, trusted))
        raise ConfigError(f"{key}={given}: there is no such file (looked for {path.absolute()})") from error
    # By its time, too: in a notebook a file may have changed since the last study.
    return json.loads(_read_file(key, path, found.st_mtime_ns))  # type: ignore[no-any-return]


@lru_cache(maxsize=32)
def dump_pipeline(named: str, make: Callable[[], Any]) -> Definition:
    """What a function gives, or a class that makes it in `setup` (Hayhooks'), as it would be written."""
    try:
        return check_definition(named, write_down(make()))
    except ConfigError:
        raise
    except Exception as error:
        # It is the user's, and may fail in any way.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(f"{named}: it gives no Haystack pipeline that can be written down: {reason}") from error


def write_down(made: Any) -> Any:
    """What a pipeline's file would hold: of one, of what a Hayhooks wrapper makes, of a component (an agent) alone."""
    if callable(getattr(made, "setup", None)):
        made.setup()
        # Hayhooks' base class has the first of them as None.
        made = next((found for name in ("pipeline", "agent") if (found := getattr(made, name, None))), made)
    written = made.to_dict()
    if not hasattr(made, "__haystack_input__"):
        return written
    return {"components": {type(made).__name__.lower(): written}, "connections": []}


@lru_cache(maxsize=32)
def _read_file(key: str, path: Path, changed: int) -> str:
    del changed
    try:
        check_yaml(path)
        found = yaml.load(path.read_text("utf-8"), TupleSafeLoader)  # noqa: S506 (a CSafeLoader that knows tuples)
        # Kept as text, so that every reader gets containers of its own and none can change what is cached.
        return json.dumps(check_definition(f"{key}={path}", found))
    except (yaml.YAMLError, UnicodeError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{key}={path}: can't be read as a pipeline: {' '.join(str(error).split())[:300]}") from error


def check_definition(named: str, found: Any) -> Definition:
    """What a file holds, if it has the shape of a pipeline; raises ConfigError."""
    if not isinstance(found, Mapping) or not isinstance(found.get("components"), Mapping) or not found["components"]:
        raise ConfigError(f"{named}: no pipeline: `components` are expected, as Pipeline.dumps() writes them")
    for name, each in found["components"].items():
        if not isinstance(each, Mapping) or not isinstance(each.get(TYPE), str):
            raise ConfigError(f"{named}: component '{name}' has no `type`: the dotted name of its class is expected")
        if not isinstance(each.get(INIT, {}), Mapping):
            raise ConfigError(f"{named}: component '{name}': `init_parameters` must be keys with values")
        if "." in str(name):
            raise ConfigError(f"{named}: component '{name}': a dot in a name would divide a key; rename it")
    for each in found.get("connections") or ():
        if not isinstance(each, Mapping) or not all(isinstance(each.get(end), str) for end in ("sender", "receiver")):
            raise ConfigError(f"{named}: connection {each}: a sender and a receiver are expected, as component.socket")
    return found


def flatten_components(definition: Definition) -> dict[str, Any]:
    """By component its type and init parameters, nested objects alike."""
    return {str(name): _flatten(each) for name, each in definition["components"].items()}


def _flatten(node: Any) -> Any:
    if isinstance(node, list):
        return [_flatten(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    inner = node.get(INIT)
    if isinstance(inner, Mapping) and TYPE in node:
        return {TYPE: node[TYPE], **{str(key): _flatten(value) for key, value in inner.items() if key != TYPE}}
    return {str(key): _flatten(value) for key, value in node.items()}


def change_component(node: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A component with these values of its parameters; of another type it has none but these."""
    own = dict(node.get(INIT) or {})
    kind = values.get(TYPE, node[TYPE])
    given = {key: value for key, value in values.items() if key != TYPE}
    if kind != node[TYPE]:
        return {**node, TYPE: kind, INIT: {key: _nest(value) for key, value in given.items()}}
    return {**node, INIT: {**own, **{key: _change(own.get(key), value) for key, value in given.items()}}}


def _nest(value: Any) -> Any:
    """A value as Haystack writes it: an object has its parameters below a key of their own."""
    if isinstance(value, list):
        return [_nest(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _nest(each) for key, each in value.items()}
    # Without a dot a `type` names no class, such as env_var; with init_parameters it is in Haystack's form already.
    if "." not in str(value.get(TYPE, "")) or INIT in value:
        return made
    return {TYPE: made.pop(TYPE), INIT: made}


def _change(node: Any, value: Any) -> Any:
    if isinstance(node, Mapping) and isinstance(value, Mapping):
        if isinstance(node.get(INIT), Mapping) and TYPE in node:
            own = _flatten(node)
            if value.get(TYPE, node[TYPE]) != node[TYPE]:
                # What still stands there as in the file was the other class'.
                value = {key: each for key, each in value.items() if key == TYPE or own.get(key, own) != each}
            return change_component(node, value)
        return {key: _change(node.get(key), each) for key, each in value.items()}
    # Of lists of different lengths nobody knows which items belong together: the given one replaces the other.
    if isinstance(node, list) and isinstance(value, list) and len(node) == len(value):
        return [_change(*pair) for pair in zip(node, value, strict=True)]
    return value


def is_store(node: Mapping[str, Any]) -> bool:
    """Whether an object of a definition is a document store, by where its class lives."""
    kind = str(node.get(TYPE, ""))
    return ".document_stores." in kind or kind.endswith("DocumentStore")


def strip_name(node: Mapping[str, Any]) -> dict[str, Any]:
    """A document store without what it names its documents' place by: each index is given a name of its own."""
    inner = node.get(INIT)
    kept = {key: value for key, value in node.items() if key not in STORE_NAMES}
    return (
        {**kept, INIT: {k: v for k, v in inner.items() if k not in STORE_NAMES}} if isinstance(inner, Mapping) else kept
    )


def iterate_objects(node: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every {type, …} in a definition, with the key that leads there, outer ones first."""
    if isinstance(node, Mapping):
        if isinstance(node.get(TYPE), str):
            yield where, node
        for key, value in node.items():
            # As in a key of the configuration, where `init_parameters` does not appear.
            yield from iterate_objects(value, where if key == INIT else f"{where}.{key}".lstrip("."))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from iterate_objects(value, f"{where}[{place}]")


def escape(node: Any) -> Any:
    """Plain containers whose texts OmegaConf gives back as they are: a brace after a dollar sign means nothing."""
    if isinstance(node, str):
        return node.replace("${", "\\${")
    if isinstance(node, Mapping):
        return {key: escape(value) for key, value in node.items()}
    return [escape(value) for value in node] if isinstance(node, list) else node


def _resolve_file(given: Any, *, _root_: Any) -> Any:
    return None if given is None else escape(read_definition("pipeline", given, list(_root_.trusted_modules)))


# Of a store that is a server, or in memory where no address is given; and of a key that may not be needed.
OmegaConf.register_new_resolver("own_place", lambda url: ":memory:" if url is None else None, replace=True)
OmegaConf.register_new_resolver(
    "own_secret",
    lambda name: None if name is None else {TYPE: "env_var", "env_vars": [name], "strict": True},
    replace=True,
)
OmegaConf.register_new_resolver("pipeline_file", _resolve_file, replace=True)
