"""The Hydra edge: composing configurations, explaining what is wrong with them, building only trusted objects."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rag_opt.errors import ConfigError, RagOptError, nearest
from rag_opt.keys import key_of

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"
"""conf/ lies in the package once installed, beside it in a checkout."""

NAME = "config"
STAGES = ("splitter", "embedder", "index", "retriever", "reranker", "generator")
"""The groups that a pipeline is made of, in the order of the data flow."""

TRUSTED = ("rag_opt", "optuna", "haystack", "haystack_integrations")
"""Top-level modules whose classes a `_target_` may name; `trusted_modules` adds the user's own."""

FACTORIES = ("rag_opt.datasets.", "rag_opt.samplers")
"""Where functions, not only classes, may be named."""

Words = Sequence[str]
"""Hydra overrides, such as ["retriever=hybrid", "retriever.top_k=12"]."""


def composed(overrides: Words) -> DictConfig:
    """The configuration of these overrides; of two for the same key the later one counts.

    Inside a Hydra job its own search path is used (--config-dir), elsewhere conf/. Raises ConfigError in one line.
    """
    last = {override.key_or_group: override for override in parse(overrides)}
    values = [override for override in last.values() if not _is_group(override)]
    config = _composed_groups(_group_words(last))[0].copy()
    try:
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        # Hydra knows the reason best.
        with _hydra():
            return _explained([o.input_line or "" for o in last.values()])
    return config


def choices(overrides: Words) -> dict[str, str]:
    """The choice that each group has with these overrides, such as {"retriever": "hybrid"}."""
    last = {override.key_or_group: override for override in parse(overrides)}
    return _composed_groups(_group_words(last))[1]


def _group_words(overrides: Mapping[str, Override]) -> tuple[str, ...]:
    return tuple(override.input_line or "" for override in overrides.values() if _is_group(override))


@lru_cache(maxsize=256)
def _composed_groups(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """The configuration that these choices of files give, and every group's choice."""
    # Composing reads some twenty files; a study composes thousands of configurations from few combinations of groups.
    with _hydra():
        config = _explained(overrides, with_hydra=True)
        chosen = config.hydra.runtime.choices
        known = groups()
    _without_hydra(config)
    return config, {group: str(choice) for group, choice in chosen.items() if group in known}


def _without_hydra(config: DictConfig) -> None:
    with open_dict(config):
        del config["hydra"]


def _is_group(override: Override) -> bool:
    """Whether an override chooses a file, or does anything that only Hydra can do."""
    plain = override.type is not None and override.type.name == "CHANGE" and not override.is_sweep_override()
    key = override.key_or_group
    return not plain or override.package is not None or key in _groups() or key.startswith("hydra.")


@lru_cache(maxsize=1)
def _groups() -> frozenset[str]:
    with _hydra():
        return frozenset(groups())


def groups() -> list[str]:
    """The configuration groups, `experiment` among them."""
    loader = GlobalHydra.instance().config_loader()
    return [group for group in loader.list_groups("") if group != "hydra"]


@contextmanager
def _hydra() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(FOLDER), version_base=None):
            yield


def parse(overrides: Words) -> list[Override]:
    """The parsed overrides; raises ConfigError at one that is not of Hydra's grammar."""
    parser = OverridesParser.create()
    parsed = []
    for given in overrides:
        try:
            parsed.append(parser.parse_override(given))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"'{given}' is not key=value as Hydra reads it: {reason}; quote special characters"
            ) from error
    return parsed


def _explained(overrides: Iterable[str], *, with_hydra: bool = False) -> DictConfig:
    words = list(overrides)
    try:
        config = compose(NAME, overrides=words, return_hydra_config=with_hydra)
    except MissingConfigException as error:
        raise ConfigError(_missing(str(error))) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_composition(str(error), words)) from error
    return config


def _missing(message: str) -> str:
    wanted = re.search(r"Could not find '(.+?)'", message)
    choices = re.findall(r"^\t(?!provider)(\S+)$", message, re.MULTILINE)
    if wanted is None or "/" not in wanted[1]:
        return message.splitlines()[0]
    group, _, choice = wanted[1].rpartition("/")
    return f"{group}={choice}: there is no such choice in conf/{group}/; {nearest(choice, choices)}"


def _composition(message: str, words: Words) -> str:
    """Hydra's message in one line, with the nearest key that these words' files have."""
    first = message.splitlines()[0]
    found = re.search(r"Could not (?:override|delete from config\.|append to config\.) ?'?([^\s'=]+)", message)
    if found is None:
        return first
    key = found[1].rstrip(".")
    if key == "experiment":
        return "experiment is added, not changed: write +experiment=<choice>"
    parent, _, last = key.rpartition(".")
    base = compose(NAME, overrides=[word for word in words if word.startswith("hydra.") or _group_of(word) in groups()])
    node = OmegaConf.select(base, parent, throw_on_missing=False) if parent else base
    names = [*map(str, node), *([] if parent else groups())] if isinstance(node, DictConfig) else []
    where = f" in '{parent}'" if parent else ""
    return f"'{key}' is not a key{where} of this configuration; {nearest(last, names)}".rstrip("; ")


def _group_of(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def check_keys(config: DictConfig) -> None:
    """Raise ConfigError at a top-level key that nothing reads, such as +experimnt=msmarco."""
    known = {*OmegaConf.load(FOLDER / f"{NAME}.yaml"), *groups()} - {"defaults", "hydra"}
    for key in config:
        if key not in known:
            raise ConfigError(f"'{key!s}' is not a key of the configuration; {nearest(str(key), map(str, known))}")


def checked(overrides: Words) -> DictConfig:
    """The configuration of a command line, of its first job where it sweeps.

    Raises ConfigError for the first thing that is wrong; every element of a sweep is looked at.
    """
    options = {str(o.get_key_element()): list(_elements(o)) for o in parse(overrides)}
    first = {key: values[0] for key, values in options.items()}
    with _hydra():
        config = _explained(first.values(), with_hydra=True)
        check_targets(OmegaConf.to_container(config.hydra, resolve=False), (*TRUSTED, "hydra", "hydra_plugins"))
        _without_hydra(config)
        check_keys(config)
        for key, values in options.items():
            for value in values[1:]:
                _explained({**first, key: value}.values())
    return config


def _elements(override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield override.input_line or ""
    elif override.is_discrete_sweep():
        yield from (f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())
    else:
        raise ConfigError(
            f"'{override.input_line}': an interval is for the search space; a multirun needs a choice or range"
        )


def plain(config: Any) -> Any:
    """The configuration as plain containers, interpolations resolved; raises ConfigError where one can't be."""
    try:
        return (
            OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(config)
            else config
        )
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def fingerprint(config: DictConfig, groups: Iterable[str] = STAGES) -> str:
    """The content key of these groups of a configuration."""
    return key_of({group: plain(config[group]) for group in groups})


def build(config: Any, trusted: Iterable[str] = (), **given: Any) -> Any:
    """The object that a configuration with `_target_` describes, nested ones included.

    Raises ConfigError before anything is imported when a `_target_` is not below a trusted module, and when what it
    names turns out to live elsewhere.
    """
    node = {**plain(config), **given}
    roots = (*TRUSTED, *trusted)
    check_targets(node, roots)
    for target in targets(node):
        if any(part.startswith("_") for part in target.split(".")):
            raise ConfigError(f"_target_: {target} is private to its module; name a public class")
        _check_home(target, roots)
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, RagOptError):
            raise error.__cause__ from error
        reason = error.__cause__ or error
        raise ConfigError(f"{str(node.get('_target_', '')).rpartition('.')[2]}: {reason}") from error


def check_targets(node: Any, roots: Iterable[str]) -> None:
    """Raise ConfigError at a `_target_` that is not below one of these modules; nothing is imported."""
    trusted = tuple(roots)
    for target in targets(node):
        if target.partition(".")[0] not in trusted:
            raise ConfigError(
                f"_target_: {target} is not below a trusted module ({', '.join(trusted)}); "
                f"if it is yours, add trusted_modules=[{target.partition('.')[0]}]"
            )


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in plain containers."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def _check_home(target: str, roots: tuple[str, ...]) -> None:
    """Raise ConfigError when there is no such class, or when a trusted module only imported it from elsewhere."""
    module, found, names = _module_of(target)
    for name in names:
        found = getattr(found, name, None)
    if not callable(found):
        raise ConfigError(f"_target_: {target} does not exist: {module} has no '{'.'.join(names)}'")
    home = getattr(found, "__module__", None) or ""
    if home.partition(".")[0] not in roots:
        raise ConfigError(f"_target_: {target} is {home}.{names[-1]}, which is not below a trusted module")
    # A function could do anything with its arguments; of ours only these are made to be named.
    if not isinstance(found, type) and home.partition(".")[0] in TRUSTED and not home.startswith(FACTORIES):
        raise ConfigError(f"_target_: {target} is a function; name a class")


def _module_of(target: str) -> tuple[str, Any, list[str]]:
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            return name, importlib.import_module(name), parts[cut:]
        except ModuleNotFoundError as error:
            if error.name is not None and not name.startswith(error.name):
                raise ConfigError(
                    f"_target_: {target} needs the package '{error.name}', which is not installed"
                ) from error
    raise ConfigError(f"_target_: {target}: there is no module '{parts[0]}'")


def quoted(overrides: Words) -> str:
    """The overrides as they are typed in a shell."""
    return " ".join(map(shlex.quote, overrides))
