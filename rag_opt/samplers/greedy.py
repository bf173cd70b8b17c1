"""Greedy search, one parameter after the other: what practitioners do by hand, and hard to beat (arXiv 2505.03452)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rag_opt.samplers.observations import resolve_seed
from rag_opt.samplers.space import build_axis

NUMBERS = 5
"""Values that are tried of a parameter that has more."""


class GreedySampler(BaseSampler):
    """Tries each value of a parameter, all others as in the best trial so far, in the order of `first`, then others.

    Where no value of any parameter is left to try, it draws at random. Trials with the user attribute `ignored`, which
    says that their process ended, count for nothing. For one objective.
    """

    def __init__(self, *, first: Sequence[str] = (), seed: int | None = None, ignored: str | None = None) -> None:
        self._first = list(first)
        self._ignored = ignored
        self._seed = resolve_seed(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """What the best trial has; raises ValueError for several objectives."""
        self._raise_error_if_multi_objective(study)
        best = _find_best(study)
        return {} if best is None else {n: d for n, d in best.distributions.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The best trial's values, one of them changed; {} where all changes were tried."""
        self._raise_error_if_multi_objective(study)
        best = _find_best(study)
        if best is None or not search_space:
            return {}
        others = self._get_others(study, trial)
        names = [*(n for n in self._first if n in search_space), *(n for n in search_space if n not in self._first)]
        for name in names:
            for value in _list_values(search_space[name]):
                # Another thread may have told a better trial since the space was inferred, one that lacks some of it.
                wanted = {**{n: best.params[n] for n in search_space if n in best.params}, name: value}
                if value != best.params.get(name) and not any(_is_tried(t.params, wanted, name) for t in others):
                    return wanted
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value at random; raises ValueError for several objectives."""
        self._raise_error_if_multi_objective(study)
        # What failed counts, too, or the same would be drawn again.
        place = len(self._get_others(study, trial))
        # Not hash(), which differs from process to process: a resumed study is to draw what this one would.
        rng = np.random.default_rng([self._seed, place, zlib.crc32(param_name.encode())])
        axis = build_axis(param_name, param_distribution)
        return axis.to_value(float(axis.sample_units(rng, 1)[0]))

    def _get_others(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        every = study.get_trials(deepcopy=False)
        return [t for t in every if t.number != trial.number and t.params and self._ignored not in t.user_attrs]


def _is_tried(params: Mapping[str, Any], wanted: Mapping[str, Any], changed: str) -> bool:
    """Whether this was tried: the changed value, and no other parameter that both have differs."""
    return params.get(changed) == wanted[changed] and all(params[n] == wanted[n] for n in params if n in wanted)


def _list_values(distribution: BaseDistribution) -> list[Any]:
    axis = build_axis("", distribution)
    units = np.linspace(0, 1, NUMBERS) if axis.levels is None else axis.levels
    # Names have no order in which some could stand for the others: each is tried.
    if len(units) > NUMBERS and not axis.named:
        units = units[np.linspace(0, len(units) - 1, NUMBERS).round().astype(int)]
    return [axis.to_value(float(unit)) for unit in units]


def _find_best(study: Study) -> FrozenTrial | None:
    sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def goodness(trial: FrozenTrial) -> tuple[bool, float]:
        # What keeps the constraints comes before any value: else it climbs to where nothing is allowed.
        return all(value <= 0 for value in trial.constraints.values()), sign * float(trial.value or 0)

    return max(complete, key=goodness, default=None)
