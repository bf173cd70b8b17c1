"""Studies of several collections → the tables of what holds across them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna

from rag_opt.analysis.collections import (
    SELECTED,
    Effect,
    Member,
    compare_collections,
    count_choices,
)
from rag_opt.analysis.findings import Findings
from rag_opt.analysis.formats import format_signed
from rag_opt.reporting.tables import Rows, format_params
from rag_opt.storages.trial_files import TrialFiles

ABOUT = (
    "Differences from the baseline, more being better. What each study selected was measured on questions that had no "
    "part in selecting it, configurations that all of them measured to the end on the searched ones; means over "
    "collections with 95 % intervals (random effects: DerSimonian-Laird weights, Hartung-Knapp intervals)."
)


def tabulate_collections(
    studies: Sequence[tuple[Findings, optuna.Study]], folders: Sequence[Path]
) -> list[tuple[str, Rows]]:
    """By metric, what holds across the collections of its studies; [] where there is one collection alone."""
    tables: list[tuple[str, Rows]] = []
    for metric in dict.fromkeys(findings.targets[0] for findings, _ in studies):
        members = _choose_members(metric, studies, folders)
        if effects := compare_collections(members):
            tables.append((f"{metric} across {len(members)} collections", _tabulate_effects(effects, list(members))))
            choices = count_choices(members)
            if choices:
                tables.append((f"what was selected in {len(members)} collections", _tabulate_choices(choices)))
    return tables


def _choose_members(
    metric: str, studies: Sequence[tuple[Findings, optuna.Study]], folders: Sequence[Path]
) -> dict[str, Member]:
    """One study a collection, of several the one with most trials: their differences would not be independent."""
    largest: dict[str, tuple[Findings, optuna.Study, Path]] = {}
    for (findings, study), folder in zip(studies, folders, strict=True):
        key = findings.fingerprints.get("dataset", findings.name)
        if findings.targets[0] == metric and (key not in largest or findings.trials > largest[key][0].trials):
            largest[key] = (findings, study, folder)
    # Two folders may hold studies of one name.
    names = Counter(findings.name for findings, _, _ in largest.values())
    return {
        findings.name if names[findings.name] == 1 else folder.as_posix(): Member(
            findings, findings.get_snapshot(study), TrialFiles(study, folder)
        )
        for findings, study, folder in largest.values()
    }


def _tabulate_effects(effects: Sequence[Effect], names: Sequence[str]) -> Rows:
    header = ["configuration", *names, "mean [95 %]", "differ by", "ahead in"]
    return header, [_format_effect(effect, names) for effect in effects]


def _format_effect(effect: Effect, names: Sequence[str]) -> list[str]:
    # A configuration's name is its parameters as JSON.
    name = effect.name if effect.name == SELECTED else format_params(json.loads(effect.name))
    mean, low, high, tau = effect.pooled
    told = f"{format_signed(mean)} [{format_signed(low)}, {format_signed(high)}]"
    each = [format_signed(effect.differences[collection]) for collection in names]
    return [name, *each, told, f"{tau:.4f}", f"{effect.ahead} of {len(names)}"]


def _tabulate_choices(choices: Mapping[str, Mapping[str, int]]) -> Rows:
    rows = [
        [name, ", ".join(f"{value} {count}" for value, count in sorted(counts.items(), key=lambda pair: -pair[1]))]
        for name, counts in choices.items()
    ]
    return ["setting", "studies by what they selected"], rows
