"""What a configuration will take, learnt from the seconds that trials noted: kept results are paid for once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import TrialState

ATTRIBUTE = "seconds"
"""User attribute of a trial: its seconds by stage."""

STORED = "stored"
"""User attribute of a study: [parameters, seconds by stage] of what had been computed, and kept, before it began."""

Key = frozenset[tuple[str, Any]]


@dataclass(frozen=True)
class StageSeconds:
    """For `RagSampler(cost=...)`: seconds of a configuration, given what is computed: by the study's trials, or STORED.

    `once` names for each stage the groups of parameters on which its results depend: {"indexing": ["splitter",
    "embedder"]} is paid once for every combination of splitter.* and embedder.*. What a combination that no trial had
    would take is the mean of those that agree with it most; 0 where nothing is known.
    """

    once: Mapping[str, Sequence[str]]

    def __call__(self, study: Study) -> Callable[[Mapping[str, Any]], float]:
        """The seconds of a configuration (its parameters by name)."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = [t for t in study.get_trials(deepcopy=False, states=states) if t.user_attrs.get(ATTRIBUTE)]
        own = [(t.params, t.user_attrs[ATTRIBUTE]) for t in trials]
        return seconds_after([*study.user_attrs.get(STORED, ()), *own], self.once)


def seconds_after(
    trials: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]], once: Mapping[str, Sequence[str]]
) -> Callable[[Mapping[str, Any]], float]:
    """The seconds of a configuration after trials of these parameters and seconds by stage."""
    paid: dict[str, dict[Key, list[float]]] = {stage: {} for stage in once}
    for params, seconds in trials:
        for stage, groups in once.items():
            paid[stage].setdefault(key_of(params, groups), []).append(seconds.get(stage, 0.0))
    stages = {stage: ([max(each) for each in known.values()], list(known)) for stage, known in paid.items()}

    def of(params: Mapping[str, Any]) -> float:
        return sum(
            0.0 if (key := key_of(params, once[stage])) in paid[stage] else _alike(key, known, first)
            for stage, (first, known) in stages.items()
        )

    return of


def key_of(params: Mapping[str, Any], groups: Sequence[str]) -> Key:
    """Those parameters on which a stage depends."""
    # A number may have come by another way: 0.1 * 3 is 0.3 here.
    named = ((name, round(value, 12) if isinstance(value, float) else value) for name, value in params.items())
    return frozenset((name, value) for name, value in named if name.partition(".")[0] in groups)


def _alike(key: Key, known: Sequence[Key], seconds: Sequence[float]) -> float:
    if not known:
        return 0.0
    agree = np.array([2 * len(key & other) - len(key ^ other) for other in known])
    return float(np.array(seconds)[agree == agree.max()].mean())
