"""The Hydra edge: composing configurations, and explaining in one line what is wrong with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rag_opt.config import hydra_patches  # noqa: F401  (before Hydra reads a file)
from rag_opt.config.own_parameters import fill_parameters
from rag_opt.config.own_pipelines import is_free, mark_free
from rag_opt.config.quoting import unquote_argument
from rag_opt.config.refusals import explain_missing, explain_unreadable
from rag_opt.config.stages import WHOLE
from rag_opt.config.trust import SECRET, check_field, check_secret, explain_unresolved, to_plain
from rag_opt.config.yaml_files import read_yaml
from rag_opt.errors import ConfigError, format_hint, get_first_line

HERE = Path(__file__).resolve().parent.parent
FOLDER = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"
"""conf/ lies in the package once installed, beside it in a checkout."""

NAME = "config"
FOUND = ("file://", "pkg://hydra", "structured://")
"""Where configuration files may lie: any other search path would import a module."""

UNREADABLE = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, TypeError, RecursionError)
"""What Hydra lets through when files or overrides can't be composed."""

# Neither dots nor slashes: the name of a prompt must not lead out of its folder.
PROMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

Words = Sequence[str]
"""Hydra overrides, such as ["retriever=hybrid", "retriever.top_k=12"]."""


def compose_config(overrides: Words) -> DictConfig:
    """The configuration of these overrides, read-only; of two for the same key the later one counts.

    Inside a Hydra job its own search path is used (--config-dir), elsewhere conf/. Raises ConfigError in one line.
    """
    key = tuple(overrides)
    # Taken out and put in again: the dict's first key is then the one that was asked for longest ago.
    found = _composed.pop(key, None)
    if found is None:
        found = _compose_config(key)
    # What one brings lies in files of one's own, in any folder, and may be changed at any time.
    if not found[WHOLE].get("components"):
        _composed[key] = found
        if len(_composed) > MOST_COMPOSED:
            del _composed[next(iter(_composed))]
    return found


_composed: dict[tuple[str, ...], DictConfig] = {}
"""What was asked for last: a study asks for the same few dozen again and again."""

MOST_COMPOSED = 64


def _compose_config(overrides: tuple[str, ...]) -> DictConfig:
    # Before composing, which would repeat a key in its messages, and import a module that is a search path.
    check_overrides(overrides)
    check_search_path([word for word in overrides if word.startswith("hydra.searchpath")])
    own = [override for override in parse_overrides(overrides) if is_free(override.key_or_group)]
    config = _merge_overrides([word for word in overrides if not is_free(_get_group(word))])
    check_trust_source(config, overrides)
    # After it, since a function's parameters are read from its module.
    with open_dict(config):
        fill_parameters(config, {override.key_or_group: override.value() for override in own})
        for override in own:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    # Kept, and given to everyone who asks for the same words.
    OmegaConf.set_readonly(config, True)
    return config


def check_overrides(overrides: Words) -> None:
    """Raise ConfigError at the first word that holds what looks like a key; it is not repeated."""
    for word in overrides:
        key, _, value = word.partition("=")
        check_secret(SECRET.sub("…", key).lstrip("+~"), word)
        check_field(key.lstrip("+~"), value.strip("'\""))


def check_trust_source(config: DictConfig, overrides: Words) -> None:
    """Raise ConfigError where a file, not the command line, says which modules are trusted."""
    # Parsing takes longer than composing; most configurations trust nobody.
    given = to_plain(config.get("trusted_modules"))
    if given and all(override.key_or_group != "trusted_modules" for override in parse_overrides(overrides)):
        raise ConfigError(
            f"trusted_modules={given} is set by a configuration file; whom you trust is said "
            "on the command line: trusted_modules=[…]"
        )


def _merge_overrides(overrides: Words) -> DictConfig:
    last = {override.key_or_group: override for override in parse_overrides(overrides)}
    # Hydra composes the files alone, which trials share; values are merged here, to what Hydra itself would give.
    values = [override for override in last.values() if not _is_group(override)]
    # A copy, since what is cached stands for every other configuration of these files, too.
    config = _compose_groups(_get_group_overrides(last))[0].copy()
    try:
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        # Hydra knows the reason best.
        with initialize_hydra():
            return compose_hydra([o.input_line or "" for o in last.values()])
    return config


def get_choices(overrides: Words) -> dict[str, str]:
    """The choice that each group has with these overrides, such as {"retriever": "hybrid"}."""
    last = {override.key_or_group: override for override in parse_overrides(overrides)}
    return _compose_groups(_get_group_overrides(last))[1]


def _get_group_overrides(overrides: Mapping[str, Override]) -> tuple[str, ...]:
    return tuple(override.input_line or "" for override in overrides.values() if _is_group(override))


@lru_cache(maxsize=256)
def _compose_groups(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """The configuration that these choices of files give, and every group's choice."""
    # Composing reads some twenty files; a study composes thousands of configurations from few combinations of groups.
    with initialize_hydra():
        config = compose_hydra(overrides, with_hydra=True)
        chosen = config.hydra.runtime.choices
        known = get_groups()
    remove_hydra(config)
    # Hydra's own choices, such as of hydra/launcher, are among the chosen ones.
    return config, {group: str(choice) for group, choice in chosen.items() if group in known}


def forget_files() -> None:
    """Have files of a configuration read anew: in a notebook one may have changed since the last study."""
    _compose_groups.cache_clear()
    _composed.clear()


def remove_hydra(config: DictConfig) -> None:
    with open_dict(config):
        del config["hydra"]


def _is_group(override: Override) -> bool:
    """Whether an override chooses a file, or does anything that only Hydra can do."""
    plain = override.type is not None and override.type.name == "CHANGE" and not override.is_sweep_override()
    key = override.key_or_group
    return not plain or override.package is not None or key in _load_groups() or key.startswith("hydra.")


@lru_cache(maxsize=1)
def _load_groups() -> frozenset[str]:
    with initialize_hydra():
        return frozenset(get_groups())


def get_groups() -> list[str]:
    """The configuration groups, `experiment` among them."""
    loader = GlobalHydra.instance().config_loader()
    return [group for group in loader.list_groups("") if group != "hydra"]


@contextmanager
def initialize_hydra() -> Iterator[None]:
    """Hydra at work on conf/; a job that has initialised it already, with folders of its own, goes on."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        # None is this Hydra's own behaviour; left out, Hydra warns and takes that of version 1.1.
        with initialize_config_dir(str(FOLDER), version_base=None):
            yield


def parse_overrides(overrides: Words) -> list[Override]:
    """The parsed overrides; raises ConfigError at one that is not of Hydra's grammar."""
    return [_parse_override(given) for given in overrides]


@lru_cache(maxsize=4096)
def _parse_override(given: str) -> Override:
    # Hydra's grammar takes a millisecond a word, and a study composes thousands of configurations from few words.
    try:
        return OverridesParser.create().parse_override(mark_free(given))
    except (HydraException, RecursionError) as error:
        reason = get_first_line(error, 300)
        raise ConfigError(
            f"'{given[:300]}' is not key=value as Hydra reads it: {reason}; quote special characters"
        ) from error


def compose_hydra(overrides: Iterable[str], *, with_hydra: bool = False) -> DictConfig:
    """What Hydra composes of these overrides; raises ConfigError in one line. Hydra must be initialised."""
    words = list(overrides)
    try:
        config = compose(NAME, overrides=words, return_hydra_config=with_hydra)
    except MissingConfigException as error:
        raise ConfigError(explain_missing(str(error))) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_explain_mismatch(explain_unresolved(error), words)) from error
    except HydraException as error:
        raise ConfigError(_explain_mismatch(str(error), words)) from error
    except UNREADABLE as error:
        raise ConfigError(explain_unreadable(error, quote_overrides(words))) from error
    return config


def _explain_mismatch(message: str, words: Words) -> str:
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
        # Without the values, one of which is the wrong one: only the files say which keys there are.
        base = compose(
            NAME, overrides=[word for word in words if word.startswith("hydra.") or _get_group(word) in get_groups()]
        )
    except UNREADABLE:
        # The key is a group's, and no choice of it was named.
        return f"{first} {key}=<choice> is expected, or keys in it: {key}.<key>=…"
    node = OmegaConf.select(base, parent, throw_on_missing=False) if parent else base
    names = (
        [*(str(name) for name in node if name != "components"), *([] if parent else get_groups())]
        if isinstance(node, DictConfig)
        else []
    )
    where = f" in '{parent}'" if parent else ""
    return f"'{key}' is not a key{where} of this configuration; {format_hint(last, names)}".rstrip("; ")


def _get_group(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def check_search_path(words: Words) -> None:
    """Raise ConfigError at a search path that would import a module."""
    for override in parse_overrides(words):
        given = override.value() if override.key_or_group == "hydra.searchpath" else []
        for path in given if isinstance(given, list) else [given]:
            if not str(path).startswith(FOUND):
                raise ConfigError(
                    f"hydra.searchpath: {path}: a folder is expected, as file://path, or --config-dir path"
                )


def load_prompt(name: str) -> dict[str, str]:
    """The parts of the prompt in prompt/<name>.yaml, in Hydra's search path or in conf/; raises ConfigError."""
    # Ours is looked into last, so that a prompt of one's own takes the place of one of the same name.
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
            parts = read_yaml(path)
            if not isinstance(parts, dict) or not all(isinstance(text, str) for text in parts.values()):
                raise ConfigError(f"{path}: a prompt is a file of texts: system: …, user: …")
            return {str(part): text for part, text in parts.items()}
    known = [path.stem for folder in folders for path in (folder / "prompt").glob("*.yaml")]
    raise ConfigError(f"prompt={name}: there is no such file in conf/prompt/; {format_hint(name, known)}")


def _resolve_prompt(name: str) -> dict[str, str]:
    # A brace after a dollar sign would be read as an interpolation.
    return {part: text.replace("${", "\\${") for part, text in load_prompt(name).items()}


OmegaConf.register_new_resolver("prompt", _resolve_prompt, replace=True)


def quote_overrides(overrides: Words) -> str:
    """The overrides as they are typed in a shell."""
    return " ".join(shlex.quote(unquote_argument(word)) for word in overrides)
