"""What a configuration will take, learnt from the seconds that trials noted: kept results are paid for once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import TrialState

from rag_opt.samplers.gaussian_process import Floats

ATTRIBUTE = "seconds"
"""User attribute of a trial: its seconds by stage."""

STORED = "stored"
"""User attribute of a study: [parameters, seconds by stage] of what had been computed, and kept, before it began."""

Key = frozenset[tuple[str, Any]]

Seconds = Callable[[Sequence[Mapping[str, Any]]], Floats]
"""Of configurations, their parameters by name, the seconds that each would take."""


@dataclass(frozen=True)
class StageSeconds:
    """For `RagSampler(cost=...)`: seconds of a configuration, given what is computed: by the study's trials, or STORED.

    `once` names for each stage the groups of parameters on which its results depend: {"indexing": ["splitter",
    "embedder"]} is paid once for every combination of splitter.* and embedder.*. What a combination that no trial had
    would take is the mean of those that agree with it most; 0 where nothing is known. Raises ValueError where `once` is
    not of that form.
    """

    once: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        groups = self.once.values() if isinstance(self.once, Mapping) else [self.once]
        # A text is a sequence, too: its letters would be taken for groups, none of which exists.
        if not all(isinstance(each, Sequence) and not isinstance(each, str) for each in groups):
            raise ValueError(f"once={self.once}: lists of groups by stage are expected")

    def __call__(self, study: Study) -> Seconds:
        """The seconds of configurations (their parameters by name)."""
        # A pruned trial leaves what it has computed in the store, too.
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = [t for t in study.get_trials(deepcopy=False, states=states) if t.user_attrs.get(ATTRIBUTE)]
        own = [(t.params, t.user_attrs[ATTRIBUTE]) for t in trials]
        return fit_seconds([*study.user_attrs.get(STORED, ()), *own], self.once)


def fit_seconds(
    trials: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]], once: Mapping[str, Sequence[str]]
) -> Seconds:
    """The seconds of configurations after trials of these parameters and seconds by stage."""
    paid: dict[str, dict[Key, float]] = {stage: {} for stage in once}
    for params, seconds in trials:
        for stage, groups in once.items():
            key = make_stage_key(params, groups)
            # What came from a store took less than it would have.
            paid[stage][key] = max(paid[stage].get(key, 0.0), seconds.get(stage, 0.0))

    def of(configurations: Sequence[Mapping[str, Any]]) -> Floats:
        total = np.zeros(len(configurations))
        for stage, groups in once.items():
            keys = [make_stage_key(params, groups) for params in configurations]
            # Many candidates share few keys, so each is estimated once.
            new = [key for key in dict.fromkeys(keys) if key not in paid[stage]]
            taken = dict(zip(new, _estimate_new(new, paid[stage]), strict=True))
            total += [taken.get(key, 0.0) for key in keys]
        return total

    return of


def make_stage_key(params: Mapping[str, Any], groups: Sequence[str]) -> Key:
    """Those parameters on which a stage depends."""
    # A number may have come by another way: 0.1 * 3 is 0.3 here.
    named = ((name, round(value, 12) if isinstance(value, float) else value) for name, value in params.items())
    return frozenset((name, value) for name, value in named if name.partition(".")[0] in groups)


def _estimate_new(new: Sequence[Key], known: Mapping[Key, float]) -> Floats:
    """For each new combination the mean of the known ones that agree with it most; 0 where none is known."""
    if not known or not new:
        return np.zeros(len(new))
    columns = {item: column for column, item in enumerate(dict.fromkeys(item for key in known for item in key))}
    left, right = (_encode_keys(keys, columns) for keys in (new, list(known)))
    differ = np.array([len(key) for key in new])[:, None] + np.array([len(key) for key in known])
    # Twice what both have less what only one has: keys differ in length where parameters are conditional.
    agree = 4 * left @ right.T - differ
    most = agree == agree.max(axis=1, keepdims=True)
    found: Floats = most @ np.array(list(known.values())) / most.sum(axis=1)
    return found


def _encode_keys(keys: Sequence[Key], columns: Mapping[tuple[str, Any], int]) -> Floats:
    found = np.zeros((len(keys), len(columns)))
    for row, key in enumerate(keys):
        found[row, [columns[item] for item in key if item in columns]] = 1
    return found
