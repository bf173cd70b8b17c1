"""One configuration on several collections: its difference from the baseline on average, and how far they differ.

Within a collection questions are the sample, across collections the collections are: a random-effects meta-analysis.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from optuna.trial import TrialState
from scipy import special

from rag_opt.analysis import history
from rag_opt.analysis.paired import LEVEL, compute_differences, compute_level

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from rag_opt.analysis.confirmation import Arm
    from rag_opt.analysis.findings import Findings
    from rag_opt.config.search_space import Value
    from rag_opt.records.documents import Scores
    from rag_opt.storages.snapshot import StudySnapshot
    from rag_opt.storages.trial_files import TrialFiles

SELECTED = "what each study selected"


class Member(NamedTuple):
    """The study of one collection."""

    findings: Findings
    now: StudySnapshot
    files: TrialFiles


class Pooled(NamedTuple):
    """A mean over collections with its 95 % interval, and their own standard deviation around it (tau)."""

    mean: float
    low: float
    high: float
    tau: float


@dataclass(frozen=True)
class Effect:
    """A configuration's differences from the baseline by collection, more being better, and what they come to."""

    name: str
    differences: Mapping[str, float]
    pooled: Pooled

    @property
    def ahead(self) -> int:
        """In how many collections it is ahead of the baseline."""
        return sum(value > 0 for value in self.differences.values())


def pool_differences(differences: Sequence[float], errors: Sequence[float]) -> Pooled:
    """The mean over collections of differences with these standard errors; low and high are nan for fewer than two.

    Weights by DerSimonian and Laird (1986), the interval by Hartung and Knapp (2001), which holds its level with few
    collections as well, and is never narrower than without their correction.
    """
    values, spreads = np.asarray(differences, float), np.asarray(errors, float)
    # A difference that is certain, since the baseline itself was selected, is one collection all the same: of no more
    # weight than the surest other one.
    surest = spreads[spreads > 0].min(initial=np.inf)
    # Where all are certain any equal variance will do, if it can be divided by.
    variances = np.square(np.maximum(spreads, surest if np.isfinite(surest) else 1e-9))
    count = len(values)
    if count < 2:
        return Pooled(float(values[0]) if count else math.nan, math.nan, math.nan, math.nan)
    fixed = 1 / variances
    centre = (fixed * values).sum() / fixed.sum()
    excess = (fixed * (values - centre) ** 2).sum() - (count - 1)
    between = max(0.0, excess / (fixed.sum() - (fixed**2).sum() / fixed.sum()))
    weights = 1 / (variances + between)
    mean = (weights * values).sum() / weights.sum()
    scale = max(1.0, (weights * (values - mean) ** 2).sum() / (count - 1))
    half = special.stdtrit(count - 1, (1 + LEVEL) / 2) * math.sqrt(scale / weights.sum())
    return Pooled(float(mean), float(mean - half), float(mean + half), math.sqrt(between))


def compare_collections(members: Mapping[str, Member]) -> list[Effect]:
    """By collection's name a study each → what was selected, and every configuration that all of them measured.

    The first is measured on unseen questions, and left out where a study has nothing to compare. The others, best
    first, are measured on the searched ones, by trials that no race has stopped: only what every study was given to
    begin with is not flattered there. [] for fewer than two collections.
    """
    if len(members) < 2:
        return []
    chosen = dict(_iterate_selected(members))
    selected = [_build_effect(SELECTED, chosen)] if len(chosen) == len(members) else []
    effects = []
    shared = [_index_trials(member) for member in members.values()]
    common = set.intersection(*map(set, shared))
    for key in sorted(common):
        pairs = {name: trials[key] for name, trials in zip(members, shared, strict=True)}
        measured = {name: _compare_trial(members[name], trial) for name, trial in pairs.items()}
        if all(each is not None for each in measured.values()):
            effects.append(_build_effect(key, {name: each for name, each in measured.items() if each is not None}))
    return selected + sorted(effects, key=lambda effect: -effect.pooled.mean)


def _build_effect(name: str, measured: Mapping[str, tuple[float, float]]) -> Effect:
    pooled = pool_differences(*zip(*measured.values(), strict=True))
    return Effect(name, {each: difference for each, (difference, _) in measured.items()}, pooled)


def _iterate_selected(members: Mapping[str, Member]) -> Iterator[tuple[str, tuple[float, float]]]:
    for name, (findings, _, _) in members.items():
        found = findings.confirmation
        if found is None or found.baseline is None:
            continue
        arm = found.selected_arm
        if arm is found.baseline:
            # That is a difference of 0, and certain.
            yield name, (0.0, 0.0)
        # Without an interval nothing says how much it weighs.
        elif not math.isnan(arm.difference_low):
            yield name, (found.sign * arm.difference, _estimate_error(arm, found.look))


def _estimate_error(arm: Arm, look: int) -> float:
    """The standard error of an arm's difference, by its interval: that allows for groups and a crossfit's choices."""
    return (arm.difference_high - arm.difference_low) / 2 / float(special.ndtri((1 + compute_level(look)) / 2))


def _summarize(values: Scores) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def _index_trials(member: Member) -> dict[str, FrozenTrial]:
    """The complete trials by what they measured, less the baseline, which differs from itself by nothing."""
    baseline = history.find_baseline(member.now)
    trials = history.get_measured(member.now, TrialState.COMPLETE)
    return {_format_key(trial.params): trial for trial in trials if baseline and trial.number != baseline.number}


def _format_key(params: Mapping[str, Value]) -> str:
    return json.dumps(params, sort_keys=True, ensure_ascii=False)


def _compare_trial(member: Member, trial: FrozenTrial) -> tuple[float, float] | None:
    """A trial's difference from the baseline on the searched questions, and its standard error; None if unknown."""
    baseline, name = history.find_baseline(member.now), member.findings.targets[0]
    assert baseline is not None
    ours, theirs = (member.files.load_scores(each, [name]).get(name) for each in (trial, baseline))
    if ours is None or theirs is None:
        return None
    values = member.findings.signs[name] * compute_differences(ours, theirs)
    return _summarize(values) if len(values) > 1 else None


def count_choices(members: Mapping[str, Member]) -> dict[str, Counter[str]]:
    """By searched setting of names, how many studies selected which of its choices; those that all have alone."""
    found: dict[str, Counter[str]] = {}
    for findings, now, _ in members.values():
        if findings.confirmation is not None:
            params = now.get_trials()[findings.confirmation.selected_arm.trial].params
            for name, value in params.items():
                if isinstance(value, str):
                    found.setdefault(name, Counter())[value] += 1
    return {name: counts for name, counts in found.items() if counts.total() == len(members)}
