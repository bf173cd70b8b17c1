"""The parameters that something of one's own has, with the values at which they stand: of files, of signatures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rag_opt.config.functions import PLAIN, QUESTION, get_defaults, import_trusted
from rag_opt.config.own_pipelines import (
    NONE,
    PARAMETERS,
    SIDES,
    TYPE,
    Definition,
    escape,
    flatten_components,
    read_definition,
)
from rag_opt.config.own_trust import check_type, is_class
from rag_opt.config.trust import import_target
from rag_opt.errors import ConfigError


def fill_parameters(config: DictConfig, given: Mapping[str, Any]) -> None:
    """Give parameters the values that stand in a pipeline's files, or in a signature; raises ConfigError.

    What is set already, as by an experiment's file, stays. `given` are keys of the command line, of which the types of
    components count here: a component of another type has other parameters.
    """
    node, trusted = config.pipeline, list(config.trusted_modules)
    for side in SIDES:
        if node.get(side) is not None:
            definition = read_definition(f"pipeline.{side}", node[side], trusted)
            types = {name: _find_type(config, given, f"{side}.{name}") for name in definition["components"]}
            found = collect_parameters(side, definition, types, trusted)
            # What is set already comes last, and so wins.
            config[side] = OmegaConf.merge(escape(found), config[side])
    for key in ("factory", "function"):
        # One that is missing is refused by what needs it.
        if node.get(key) is not None:
            function = import_trusted(f"pipeline.{key}", node[key], trusted)
            config[PARAMETERS] = OmegaConf.merge(escape(get_defaults(function, [QUESTION])), config[PARAMETERS])


def _find_type(config: DictConfig, given: Mapping[str, Any], component: str) -> Any:
    """The type that the command line, or an experiment, gives a component; None where neither does."""
    found = given.get(f"{component}.{TYPE}")
    return OmegaConf.select(config, f"{component}.{TYPE}", default=None) if found is None else found


def collect_parameters(
    side: str, definition: Definition, types: Mapping[str, Any], trusted: Sequence[str]
) -> dict[str, Any]:
    """By component its type and all parameters: what stands in the file, and the defaults of its class."""
    found = flatten_components(definition)
    for name, values in found.items():
        kind = types.get(name)
        if kind is not None and kind != values[TYPE]:
            known = _get_class_defaults(f"{side}.{name}", str(kind), trusted)
            kept = {key: value for key, value in values.items() if key in _list_parameters(str(kind))}
            found[name] = {**known, **kept, TYPE: kind}
        else:
            found[name] = _complete(f"{side}.{name}", values, trusted)
    return found


def _complete(where: str, values: Any, trusted: Sequence[str]) -> Any:
    """What stands in a file, and beside it the defaults of its class; of the objects that it is made of alike."""
    if not isinstance(values, Mapping):
        return values
    inner = {key: _complete(f"{where}.{key}", value, trusted) for key, value in values.items()}
    kind = str(values.get(TYPE, ""))
    return {**_get_class_defaults(where, kind, trusted), **inner} if is_class(kind) else inner


def _get_class_defaults(where: str, kind: str, trusted: Sequence[str]) -> dict[str, Any]:
    """The plain defaults of a class's constructor; {} where it can't be imported, which is refused when it is built."""
    if kind == NONE:
        return {}
    check_type(where, kind, trusted)
    return dict(_load_defaults(kind))


@lru_cache(maxsize=256)
def _list_parameters(kind: str) -> frozenset[str]:
    """What a class's constructor takes by name; of another class what it shares with this one stays."""
    try:
        return frozenset(inspect.signature(import_target(kind).__init__).parameters) - {"self"}
    # TypeError and ValueError are what inspect raises for a class of C code that tells no signature.
    except (ConfigError, ImportError, TypeError, ValueError):
        return frozenset()


@lru_cache(maxsize=256)
def _load_defaults(kind: str) -> tuple[tuple[str, Any], ...]:
    try:
        parameters = inspect.signature(import_target(kind).__init__).parameters.values()
    except (ConfigError, ImportError, TypeError, ValueError):
        return ()
    # A tuple, since everyone gets the cached one.
    return tuple(
        (each.name, each.default) for each in parameters if isinstance(each.default, PLAIN) and each.name != TYPE
    )
