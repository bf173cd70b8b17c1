"""What a study searches and where it begins: the space less what is set, the baseline, well-known configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from rag_opt.config.compose import compose_config, get_choices, parse_overrides
from rag_opt.config.enumeration import get_middle, include_values, move_to_nearest
from rag_opt.config.own_pipelines import PARAMETERS
from rag_opt.config.search_space import SearchSpace, Value
from rag_opt.config.sweep_grammar import parse_space
from rag_opt.config.trust import to_plain
from rag_opt.console.screens import report_line, report_lines
from rag_opt.errors import ConfigError, SearchSpaceError

Values = dict[str, Value]


def build_search_space(config: DictConfig, overrides: Sequence[str]) -> SearchSpace:
    """The space less what the command line sets.

    Raises SearchSpaceError where that leaves nothing to search, or where a key is set that some choices of the search
    lack.
    """
    whole = parse_space(to_plain(config.search_space))
    known = {p.name for p in whole.parameters}
    pinned = [o.key_or_group for o in parse_overrides(overrides) if o.key_or_group in known]
    _check_pinned(whole, pinned, get_choices(overrides))
    # A child is kept or dropped by the value at which its pinned parent stands, so that has to be known first.
    standing = get_default_values(whole, overrides)
    space = whole.fix_parameters(pinned, {name: standing[name] for name in pinned if name in standing})
    if not space.parameters:
        raise SearchSpaceError(
            "search_space: the command line sets every parameter; leave one of them out to search it"
        )
    if pinned:
        report_line(f"set on the command line, so not searched: {', '.join(pinned)}")
    return space


def add_default_values(space: SearchSpace, overrides: Sequence[str]) -> SearchSpace:
    """The space with the numbers that the configuration itself has among its choices; what was added is said."""
    found, told = include_values(space, get_default_values(space, overrides))
    report_lines(told)
    return found


def _check_pinned(space: SearchSpace, pinned: Sequence[str], chosen: Mapping[str, str]) -> None:
    """Raise SearchSpaceError for a key that is set while a group that it depends on is still searched."""
    for parameter in space.parameters:
        for parent, values in parameter.when.items() if parameter.name in pinned else ():
            if parent in chosen and parent not in pinned:
                raise SearchSpaceError(
                    f"{parameter.name} is set, but {parent} is searched and {parameter.name} exists only with "
                    f"{parent}={' or '.join(map(str, values))}: set {parent}={values[0]} too, or search both"
                )


def build_seeds(
    config: DictConfig, space: SearchSpace, overrides: Sequence[str], idle: Sequence[str] = ()
) -> list[Values]:
    """The configurations to begin with: the baseline, then those of `seeds` that the space can express.

    What a seed says of an `idle` parameter, which is not searched, is left out.
    """
    standing, moved = move_to_nearest(space, get_default_values(space, overrides))
    baseline = space.select_active(standing)
    if wrong := space.find_invalid(baseline):
        raise SearchSpaceError(
            f"search_space: the configuration's own {wrong.name}={standing.get(wrong.name)} is not in {wrong.text}; "
            "trial 0 measures it, so add it to the space, make another one the configuration's own (an experiment's "
            f"file, --config-dir), or set {wrong.name}=<a value> to leave it out of the search"
        )
    report_lines(moved)
    return _drop_duplicates([baseline, *_parse_seeds(config, space, overrides, idle)])


def get_default_values(space: SearchSpace, overrides: Sequence[str]) -> Values:
    """The value that a composed configuration has for each parameter of the space that exists in it."""
    config, chosen = compose_config(overrides), get_choices(overrides)
    values: Values = {}
    for parameter in space.parameters:
        if parameter.name in chosen:
            values[parameter.name] = chosen[parameter.name]
        elif _has_key(config, parameter.name):
            values[parameter.name] = OmegaConf.select(config, parameter.name)
        elif parameter.name.startswith(f"{PARAMETERS}."):
            # What a service takes stands in no file and no signature.
            values[parameter.name] = get_middle(parameter.distribution)
    return values


def _has_key(config: DictConfig, key: str) -> bool:
    # A value may be null, which OmegaConf.select can't tell from a key that is not there.
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and last in node


def _parse_seeds(config: DictConfig, space: SearchSpace, overrides: Sequence[str], idle: Sequence[str]) -> list[Values]:
    found = []
    for row in to_plain(config.seeds):
        if not isinstance(row, list) or not all(isinstance(word, str) for word in row):
            raise ConfigError(f"seeds: each is a list of key=value, not {row!r}")
        # What the command line sets is no parameter any more, so such a seed is skipped too.
        if {override.key_or_group for override in parse_overrides(row)} <= {*idle, *(p.name for p in space.parameters)}:
            # Its lines are left out, since they speak of trial 0.
            values = space.select_active(move_to_nearest(space, get_default_values(space, [*overrides, *row]))[0])
            if space.find_invalid(values) is None:
                found.append(values)
    return found


def _drop_duplicates(rows: list[Values]) -> list[Values]:
    # In order, since seeds are noted by their index; a second copy would only be drawn to be told as a repeat.
    return [row for place, row in enumerate(rows) if row not in rows[:place]]
