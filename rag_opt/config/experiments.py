"""A configuration as text: its stages, the command that measures it again, the experiment file that stands for it.

`best=studies/x` on a command line stands for the one that a finished study has left.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from rag_opt.config.compose import Words, compose_config, get_choices, parse_overrides, quote_overrides
from rag_opt.config.own_pipelines import PARAMETERS, SIDES
from rag_opt.config.quoting import SEARCH_PATH, format_path_list, quote_arguments
from rag_opt.config.stages import STAGES, WHOLE, get_stages
from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import ConfigError

KEPT = (*STAGES, WHOLE, *SIDES, PARAMETERS, "dataset", "objective", "llm", "price", "web", "judge", "evaluation")
"""What a configuration is, and what it is measured on; how it was searched for is left out."""

GIVEN, EXPERIMENT = "best=", "+experiment=best"
PLACE = "conf/experiment/best.yaml"
"""Where a study leaves it, so that `--config-dir studies/x/conf +experiment=best` finds it, too."""


SEARCH_ONLY = (
    *("n_trials", "n_workers", "launcher", "retries", "timeout", "threads", "split", "seeds", "confirmation"),
    *("budget", "forecast", "preflight", "promote", "question"),
    *("sampler", "pruner", "stopping", "storage", "tracking", "search_space"),
)
"""Keys and groups that a single trial has no use for; a storage URL may hold a password."""


def build_experiment(overrides: Words, kept: Sequence[str] = KEPT) -> dict[str, Any]:
    """The content of the experiment file that composes to these keys and groups of what the overrides compose to."""
    # Of a pipeline that is brought whole the stages are no part.
    idle = {*STAGES, WHOLE} - set(get_stages(compose_config(overrides)))
    chosen = {group: choice for group, choice in get_choices(overrides).items() if group in kept and group not in idle}
    # Choices of one's own are found through it alone, and the bare configuration has to find them, too.
    path = [word for word in overrides if word.startswith(f"{SEARCH_PATH}=")]
    bare = _compose_plain([*path, *(f"{group}={choice}" for group, choice in chosen.items())], kept)
    values = diff_mappings(bare, _compose_plain(overrides, kept))
    return {"defaults": [{f"override /{group}": choice} for group, choice in chosen.items()], **values}


def format_experiment(experiment: Mapping[str, Any], comments: Sequence[str]) -> str:
    """The file of an experiment, with comments at its head; passwords in it are hidden."""
    # A line end in a comment would end it.
    head = ["# @package _global_", *(f"# {' '.join(comment.split())}" for comment in comments)]
    body = yaml.safe_dump(dict(experiment), sort_keys=False, allow_unicode=True, width=2**20)
    return "\n".join([*head, hide_secrets(body)])


def _compose_plain(overrides: Words, kept: Sequence[str] = KEPT) -> dict[str, Any]:
    """These parts of a configuration, interpolations as they are written: what they stand for is for the reader."""
    config = compose_config(overrides)
    found = {}
    for key in (key for key in kept if key in config):
        node = config[key]
        found[key] = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    return found


def diff_mappings(base: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, Any]:
    """What is to be merged into `base` to have `other`."""
    found: dict[Any, Any] = {}
    for key, value in other.items():
        known = base.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            if inner := diff_mappings(known, value):
                found[key] = inner
        # 1, 1.0 and True are equal in Python and different words of a configuration.
        elif key not in base or type(known) is not type(value) or known != value:
            found[key] = value
    return found


def expand_best(words: Sequence[str]) -> list[str]:
    """The words with `best=<a study's folder>` as Hydra takes it; raises ConfigError where a folder holds none."""
    given = [str(each.value()) for each in parse_overrides([word for word in words if word.startswith(GIVEN)])]
    rest = [word for word in words if not word.startswith(GIVEN)]
    if not given:
        return rest
    if any(word.startswith("+experiment=") for word in rest):
        raise ConfigError(f"{GIVEN}{given[-1]}: it is an experiment itself; leave out +experiment=")
    # The last one counts, as of any key that is given twice.
    path = Path(given[-1]).expanduser()
    folder = path.parent if path.name == "best.yaml" else path
    if not (folder / PLACE).is_file():
        raise ConfigError(
            f"{GIVEN}{given[-1]}: there is no {folder / PLACE}; name the folder of a finished study (of one that an "
            "older version has finished the replay command in its report.md is what there is)"
        )
    # First, since another folder may hold a best.yaml, too.
    paths = format_path_list([f"file://{(folder / 'conf').resolve().as_posix()}", *parse_search_path(rest)])
    others = [word for word in rest if not word.startswith(f"{SEARCH_PATH}=")]
    return [f"{SEARCH_PATH}={paths}", EXPERIMENT, *others]


def read_command(command: str) -> list[str]:
    """The words of a command that a study has told people, as Hydra takes them; raises ConfigError as `expand_best`."""
    # Such a command begins with `python -m rag_opt.<name>`.
    return expand_best(quote_arguments(shlex.split(command)[3:]))


def collapse_best(words: Words) -> list[str]:
    """The words as one types them: what `expand_best` made of `best=<a study's folder>` is that again."""
    # Only the first folder can be the study's: `expand_best` puts it there.
    first, *paths = parse_search_path(words) or [""]
    folder = Path(first.removeprefix("file://")).parent
    if EXPERIMENT not in words or not first.endswith("/conf") or not (folder / PLACE).is_file():
        return list(words)
    others = [word for word in words if word != EXPERIMENT and not word.startswith(f"{SEARCH_PATH}=")]
    kept = [f"{SEARCH_PATH}={format_path_list(paths)}"] if paths else []
    return [f"{GIVEN}{folder.as_posix()}", *kept, *others]


def _is_measured_by(key: str) -> bool:
    """Whether a single trial's scores depend on this key."""
    # The way to confirm says which questions are searched.
    return key == "confirmation.method" or key.partition(".")[0] not in SEARCH_ONLY


def parse_search_path(words: Words) -> list[str]:
    """The folders of the search path that words name."""
    given = [each.value() for each in parse_overrides([word for word in words if word.startswith(f"{SEARCH_PATH}=")])]
    return [str(place) for each in given for place in (each if isinstance(each, list) else [each])]


def format_replay_command(overrides: Sequence[str]) -> str:
    """The command that measures this configuration again."""
    last = {override.partition("=")[0]: override for override in collapse_best(overrides)}
    last = {key: word for key, word in last.items() if _is_measured_by(key.lstrip("+~"))}
    return hide_secrets(f"python -m rag_opt.trial {quote_overrides(list(last.values()))}".rstrip())
