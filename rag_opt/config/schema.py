"""Whether a composed configuration has the keys and kinds of values it needs, and builds only what may be built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rag_opt.config.compose import (
    FOLDER,
    NAME,
    Words,
    check_overrides,
    check_search_path,
    check_trust_source,
    compose_hydra,
    get_groups,
    initialize_hydra,
    parse_overrides,
    remove_hydra,
)
from rag_opt.config.stages import STAGES, WHOLE, get_stages
from rag_opt.config.trust import TRUSTED, check_hydra_targets, explain_unresolved, to_plain
from rag_opt.errors import ConfigError, format_hint

BUILT = ("dataset", "sampler", "pruner")
"""The groups whose file names one class or function to build."""


HYDRAS = ("callbacks", "launcher", "sweeper")
"""The parts of Hydra's own configuration from which it builds objects."""


def check_keys(config: DictConfig) -> None:
    """Raise ConfigError at a top-level key that nothing reads, such as +experimnt=msmarco."""
    known = {*_load_defaults(), *get_groups()}
    for key in config:
        if key not in known:
            raise ConfigError(f"'{key!s}' is not a key of the configuration; {format_hint(str(key), map(str, known))}")


def _load_defaults() -> dict[str, Any]:
    """conf/config.yaml without what is Hydra's."""
    whole = yaml.safe_load((FOLDER / f"{NAME}.yaml").read_text("utf-8"))
    return {key: value for key, value in whole.items() if key not in ("defaults", "hydra")}


def check_shape(config: DictConfig) -> None:
    """Raise ConfigError where a key is missing, has no value, or is no mapping or list where one is needed."""
    check_sections(config)
    stages = get_stages(config)
    given = _read_values(config, stages)
    for stage in stages:
        _check_mapping(stage, given.get(stage))
        _check_mapping(f"{stage}.components", given[stage].get("components"))
        for name, node in given[stage]["components"].items():
            _check_buildable(f"{stage}.components.{name}", node)


def check_sections(config: DictConfig) -> None:
    """As `check_shape`, but for the stages, whose prompts are found only inside a Hydra job."""
    given = _read_values(config, [str(key) for key in config if key not in (*STAGES, WHOLE)])
    _check_like(_load_defaults(), given)
    for group in (*BUILT, "objective", "search_space", "storage", "tracking"):
        _check_mapping(group, given.get(group))
    for group in BUILT:
        _check_buildable(group, given[group])


def _read_values(config: DictConfig, keys: Iterable[str]) -> dict[str, Any]:
    """These keys' values as plain containers; raises ConfigError where one has none."""
    try:
        # A key that has no value is among the keys, which `in config` would deny.
        return {key: to_plain(config[key]) for key in keys if key in config.keys()}  # noqa: SIM118
    except OmegaConfBaseException as error:
        raise ConfigError(explain_unresolved(error)) from error


def _check_like(model: Mapping[str, Any], given: Mapping[str, Any], where: str = "") -> None:
    for key, value in model.items():
        if key not in given:
            raise ConfigError(f"{where}{key} is missing: it was removed; leave it, or set it")
        if isinstance(value, Mapping):
            _check_mapping(f"{where}{key}", given[key])
            _check_like(value, given[key], f"{where}{key}.")
        if isinstance(value, list) and not isinstance(given[key], list):
            raise ConfigError(f"{where}{key}={given[key]}: a list is expected, such as {where}{key}=[]")


def _check_mapping(key: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        said = "is missing" if given is None else f"is {given}"
        raise ConfigError(f"{key} {said}: keys with values are expected ({key}.<key>=…)")


def _check_buildable(key: str, given: Any) -> None:
    _check_mapping(key, given)
    if not isinstance(given.get("_target_"), str):
        raise ConfigError(f"{key}._target_={given.get('_target_')}: the dotted name of a class is expected")


def compose_command_line(overrides: Words) -> DictConfig:
    """The configuration of a command line, of its first job where it sweeps.

    Raises ConfigError for the first thing that is wrong; every element of a sweep is looked at, each beside the first
    ones of the others.
    """
    # Before composing, which repeats what it can't read, and imports a module that is a search path.
    check_overrides(overrides)
    check_search_path(overrides)
    options = {str(o.get_key_element()): list(_iterate_elements(o)) for o in parse_overrides(overrides)}
    first = {key: values[0] for key, values in options.items()}
    with initialize_hydra():
        config = compose_hydra(first.values(), with_hydra=True)
        check_hydra(config)
        remove_hydra(config)
        check_keys(config)
        check_trust_source(config, list(first.values()))
        check_sections(config)
        for key, values in options.items():
            for value in values[1:]:
                compose_hydra({**first, key: value}.values())
    return config


def check_hydra(config: DictConfig) -> None:
    """Raise ConfigError where Hydra's own part of a configuration would build or import what is not trusted."""
    trusted = (*TRUSTED, "hydra", "hydra_plugins")
    # Hydra's own list of what it won't build stops os.system, and lets joblib.load, pandas.eval and open pass.
    for part in HYDRAS:
        check_hydra_targets(_resolve_part(config.hydra, part), trusted)
    for part in ("job_logging", "hydra_logging"):
        # What Python's logging builds from a configuration may be anything that can be called.
        if any(config.hydra[part].get(kind) for kind in ("handlers", "formatters", "filters")):
            raise ConfigError(f"hydra.{part}: what it names would be built unchecked; leave hydra/{part}=none")


def _resolve_part(node: DictConfig, part: str) -> Any:
    """A part of Hydra's configuration as plain containers; what only a running job knows stays as it is written."""
    try:
        # Resolved, since a `_target_` may be put together by interpolations that look harmless one by one.
        return OmegaConf.to_container(OmegaConf.select(node, part), resolve=True)
    except OmegaConfBaseException:
        found = OmegaConf.to_container(node._get_node(part), resolve=False)
        if "${" in str(found):
            raise ConfigError(
                f"hydra.{part} holds an interpolation that can't be checked; write what it stands for"
            ) from None
        return found


def _iterate_elements(override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield override.input_line or ""
    elif override.is_discrete_sweep():
        yield from (f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())
    else:
        raise ConfigError(
            f"'{override.input_line}': an interval is for the search space; a multirun needs a choice or range"
        )
