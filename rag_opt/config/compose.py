"""The Hydra edge: composing configurations, and explaining in one line what is wrong with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rag_opt.config import yaml_files
from rag_opt.config.fingerprints import described
from rag_opt.config.trust import SECRET, TRUSTED, check_field, check_hydras, check_secret, plain, unresolved
from rag_opt.config.typed import plainly
from rag_opt.errors import ConfigError, nearest
from rag_opt.records.keys import key_of

HERE = Path(__file__).resolve().parent.parent
FOLDER = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"
"""conf/ lies in the package once installed, beside it in a checkout."""

NAME = "config"
STAGES = ("splitter", "query", "embedder", "index", "retriever", "reranker", "context", "generator")
"""The groups that a pipeline is made of, in the order of the data flow."""

BUILT = ("dataset", "sampler", "pruner")
"""The groups whose file names one class or function to build."""

HYDRAS = ("callbacks", "launcher", "sweeper")
"""The parts of Hydra's own configuration from which it builds objects."""

FOUND = ("file://", "pkg://hydra", "structured://")
"""Where configuration files may lie: any other search path would import a module."""

UNREADABLE = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, TypeError, RecursionError)
"""What Hydra lets through when files or overrides can't be composed."""

PROMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

Words = Sequence[str]
"""Hydra overrides, such as ["retriever=hybrid", "retriever.top_k=12"]."""


def composed(overrides: Words) -> DictConfig:
    """The configuration of these overrides, read-only; of two for the same key the later one counts.

    Inside a Hydra job its own search path is used (--config-dir), elsewhere conf/. Raises ConfigError in one line.
    """
    check_words(overrides)
    check_search_path([word for word in overrides if word.startswith("hydra.searchpath")])
    config = _merged(overrides)
    _check_whose_trust(config, overrides)
    OmegaConf.set_readonly(config, True)
    return config


def check_words(overrides: Words) -> None:
    """Raise ConfigError at the first word that holds what looks like a key; it is not repeated."""
    for word in overrides:
        key, _, value = word.partition("=")
        check_secret(SECRET.sub("…", key).lstrip("+~"), word)
        check_field(key.lstrip("+~"), value.strip("'\""))


def _check_whose_trust(config: DictConfig, overrides: Words) -> None:
    """Raise ConfigError where a file, not the command line, says which modules are trusted."""
    # Parsing takes longer than composing; most configurations trust nobody.
    given = plain(config.get("trusted_modules"))
    if given and all(override.key_or_group != "trusted_modules" for override in parse(overrides)):
        raise ConfigError(
            f"trusted_modules={given} is set by a configuration file; whom you trust is said "
            "on the command line: trusted_modules=[…]"
        )


def _merged(overrides: Words) -> DictConfig:
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
    return [_parsed(given) for given in overrides]


@lru_cache(maxsize=4096)
def _parsed(given: str) -> Override:
    # Hydra's grammar takes a millisecond a word, and a study composes thousands of configurations from few words.
    try:
        return OverridesParser.create().parse_override(given)
    except (HydraException, RecursionError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ConfigError(
            f"'{given[:300]}' is not key=value as Hydra reads it: {reason}; quote special characters"
        ) from error


def _explained(overrides: Iterable[str], *, with_hydra: bool = False) -> DictConfig:
    words = list(overrides)
    try:
        config = compose(NAME, overrides=words, return_hydra_config=with_hydra)
    except MissingConfigException as error:
        raise ConfigError(_missing(str(error))) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_composition(unresolved(error), words)) from error
    except HydraException as error:
        raise ConfigError(_composition(str(error), words)) from error
    except UNREADABLE as error:
        raise ConfigError(_unreadable(error, words)) from error
    return config


def _unreadable(error: Exception, words: Words) -> str:
    """Why the files or the words can't be composed, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{mark.name}:{mark.line + 1}: not YAML ({getattr(error, 'problem', error)}); mend this line"
    text = " ".join(str(error).split())
    # LibYAML decodes by itself, and has an error of its own for that.
    if isinstance(error, UnicodeError) or "invalid UTF-8" in text or "incomplete UTF-8" in text:
        return f"a file of the configuration is not UTF-8 text ({text}); look at those in --config-dir"
    if isinstance(error, OSError | yaml.YAMLError):
        return f"a file of the configuration can't be read: {text}"
    return f"{quoted(words)}: can't be composed: {text[:300]}"


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
    try:
        base = compose(
            NAME, overrides=[word for word in words if word.startswith("hydra.") or _group_of(word) in groups()]
        )
    except UNREADABLE:
        # The key is a group's, and no choice of it was named.
        return f"{first} {key}=<choice> is expected, or keys in it: {key}.<key>=…"
    node = OmegaConf.select(base, parent, throw_on_missing=False) if parent else base
    names = (
        [*(str(name) for name in node if name != "components"), *([] if parent else groups())]
        if isinstance(node, DictConfig)
        else []
    )
    where = f" in '{parent}'" if parent else ""
    return f"'{key}' is not a key{where} of this configuration; {nearest(last, names)}".rstrip("; ")


def _group_of(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def check_keys(config: DictConfig) -> None:
    """Raise ConfigError at a top-level key that nothing reads, such as +experimnt=msmarco."""
    known = {*_defaults(), *groups()}
    for key in config:
        if key not in known:
            raise ConfigError(f"'{key!s}' is not a key of the configuration; {nearest(str(key), map(str, known))}")


def _defaults() -> dict[str, Any]:
    """conf/config.yaml without what is Hydra's."""
    whole = yaml.safe_load((FOLDER / f"{NAME}.yaml").read_text("utf-8"))
    return {key: value for key, value in whole.items() if key not in ("defaults", "hydra")}


def check_shape(config: DictConfig) -> None:
    """Raise ConfigError where a key is missing, has no value, or is no mapping or list where one is needed."""
    check_sections(config)
    given = _values(config, STAGES)
    for stage in STAGES:
        _check_mapping(stage, given.get(stage))
        _check_mapping(f"{stage}.components", given[stage].get("components"))
        for name, node in given[stage]["components"].items():
            _check_buildable(f"{stage}.components.{name}", node)


def check_sections(config: DictConfig) -> None:
    """As `check_shape`, but for the stages, whose prompts are found only inside a Hydra job."""
    given = _values(config, [str(key) for key in config if key not in STAGES])
    _check_like(_defaults(), given)
    for group in (*BUILT, "objective", "search_space", "storage", "tracking"):
        _check_mapping(group, given.get(group))
    for group in BUILT:
        _check_buildable(group, given[group])


def _values(config: DictConfig, keys: Iterable[str]) -> dict[str, Any]:
    """These keys' values as plain containers; raises ConfigError where one has none."""
    try:
        return {key: plain(config[key]) for key in keys if key in config.keys()}  # noqa: SIM118 (a missing value is there)
    except OmegaConfBaseException as error:
        raise ConfigError(unresolved(error)) from error


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
        said = "is missing" if given is None else f"={given}".replace("=", "is ", 1)
        raise ConfigError(f"{key} {said}: keys with values are expected ({key}.<key>=…)")


def _check_buildable(key: str, given: Any) -> None:
    _check_mapping(key, given)
    if not isinstance(given.get("_target_"), str):
        raise ConfigError(f"{key}._target_={given.get('_target_')}: the dotted name of a class is expected")


def checked(overrides: Words) -> DictConfig:
    """The configuration of a command line, of its first job where it sweeps.

    Raises ConfigError for the first thing that is wrong; every element of a sweep is looked at.
    """
    check_words(overrides)
    check_search_path(overrides)
    options = {str(o.get_key_element()): list(_elements(o)) for o in parse(overrides)}
    first = {key: values[0] for key, values in options.items()}
    with _hydra():
        config = _explained(first.values(), with_hydra=True)
        check_hydra(config)
        _without_hydra(config)
        check_keys(config)
        _check_whose_trust(config, list(first.values()))
        check_sections(config)
        for key, values in options.items():
            for value in values[1:]:
                _explained({**first, key: value}.values())
    return config


def check_hydra(config: DictConfig) -> None:
    """Raise ConfigError where Hydra's own part of a configuration would build or import what is not trusted."""
    trusted = (*TRUSTED, "hydra", "hydra_plugins")
    for part in HYDRAS:
        check_hydras(_resolved(config.hydra, part), trusted)
    for part in ("job_logging", "hydra_logging"):
        # What Python's logging builds from a configuration may be anything that can be called.
        if any(config.hydra[part].get(kind) for kind in ("handlers", "formatters", "filters")):
            raise ConfigError(f"hydra.{part}: what it names would be built unchecked; leave hydra/{part}=none")


def _resolved(node: DictConfig, part: str) -> Any:
    """A part of Hydra's configuration as plain containers; what only a running job knows stays as it is written."""
    try:
        return OmegaConf.to_container(OmegaConf.select(node, part), resolve=True)
    except OmegaConfBaseException:
        found = OmegaConf.to_container(node._get_node(part), resolve=False)
        if "${" in str(found):
            raise ConfigError(
                f"hydra.{part} holds an interpolation that can't be checked; write what it stands for"
            ) from None
        return found


def check_search_path(words: Words) -> None:
    """Raise ConfigError at a search path that would import a module."""
    for override in parse(words):
        given = override.value() if override.key_or_group == "hydra.searchpath" else []
        for path in given if isinstance(given, list) else [given]:
            if not str(path).startswith(FOUND):
                raise ConfigError(
                    f"hydra.searchpath: {path}: a folder is expected, as file://path, or --config-dir path"
                )


def _elements(override: Override) -> Iterator[str]:
    if not override.is_sweep_override():
        yield override.input_line or ""
    elif override.is_discrete_sweep():
        yield from (f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator())
    else:
        raise ConfigError(
            f"'{override.input_line}': an interval is for the search space; a multirun needs a choice or range"
        )


def fingerprint(config: DictConfig, groups: Iterable[str] = STAGES) -> str:
    """The content key of these groups of a configuration, less how patiently a model is asked and at what price."""
    trusted = plain(config.trusted_modules)
    return key_of({group: described(plain(config[group]), trusted) for group in groups})


def prompt_of(name: str) -> dict[str, str]:
    """The parts of the prompt in prompt/<name>.yaml, in Hydra's search path or in conf/; raises ConfigError."""
    folders = [FOLDER]
    if GlobalHydra.instance().is_initialized():
        found = GlobalHydra.instance().config_loader().get_search_path().get_path()
        folders = [
            Path(each.path.removeprefix("file://")) for each in found if each.path.startswith("file://")
        ] + folders
    if not PROMPT.fullmatch(name):
        raise ConfigError(f"prompt={name[:80]!r}: the name of a file in conf/prompt is expected, such as answer")
    for folder in folders:
        path = folder / "prompt" / f"{name}.yaml"
        if path.is_file():
            parts = yaml_files.read(path)
            if not isinstance(parts, dict) or not all(isinstance(text, str) for text in parts.values()):
                raise ConfigError(f"{path}: a prompt is a file of texts: system: …, user: …")
            return {str(part): text for part, text in parts.items()}
    known = [path.stem for folder in folders for path in (folder / "prompt").glob("*.yaml")]
    raise ConfigError(f"prompt={name}: there is no such file in conf/prompt/; {nearest(name, known)}")


def _prompt(name: str) -> dict[str, str]:
    # A brace after a dollar sign would be read as an interpolation.
    return {part: text.replace("${", "\\${") for part, text in prompt_of(name).items()}


OmegaConf.register_new_resolver("prompt", _prompt, replace=True)


def quoted(overrides: Words) -> str:
    """The overrides as they are typed in a shell."""
    return " ".join(shlex.quote(plainly(word)) for word in overrides)
