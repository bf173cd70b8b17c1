"""The sampler for small budgets and conditional, mostly categorical, noisy spaces.

It begins with a few configurations that cover the space, then proposes the one that no trial has measured and from
which a Gaussian process over agreement expects most. An ordinary Optuna sampler: it needs optuna, numpy and scipy.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from rag_opt.samplers.costs import Seconds
from rag_opt.samplers.earlier_studies import EarlierStudy, load_earlier, parse_earlier
from rag_opt.samplers.observations import (
    PROPOSED,
    collect_observations,
    get_params,
    resolve_seed,
    select_informative,
    select_params,
    subsample_observations,
)
from rag_opt.samplers.space import ABSENT, Space, Units, build_axis, drop_seen, infer_space, merge_distributions
from rag_opt.samplers.surrogate import Surrogate, fit_surrogate

if TYPE_CHECKING:
    from rag_opt.samplers.gaussian_process import Floats

Trials = Sequence[FrozenTrial]

Cost = Callable[[Study], Seconds]
"""From a study, what configurations of it would take."""

POOL = 40_000
"""Candidates × known configurations that are looked at: fifty milliseconds."""

KNOWN = 120
"""Trials at most that the process is given: of more, the best half and others at random."""

FOREIGN = 40
"""Trials at most of each earlier study."""

FREE = 0.1
"""Of the dearest candidate's seconds, what counts for one that costs nothing: it takes a trial, too."""

DRAWN_AGAIN = 5000
"""Candidates that are drawn where all of the first were measured before."""

ELITE = 5
"""Of the best trials the neighbourhood is looked at."""

_drawing = Lock()
"""Of threads, as study.optimize(n_jobs=4) has them, each is to see what the others were given."""


class RagSampler(BaseSampler):
    """Proposes what a Gaussian process over agreement expects most of, among what no trial has measured.

    `seed` and the trials so far decide every draw, so a study goes on as if it had never stopped; trials with the user
    attribute `ignored`, which says that their process ended, count for nothing. `n_startup_trials` begin, enqueued ones
    among them. With `cost`, which says what configurations take, the improvement per second is what counts. `earlier`
    are studies of the same parameters ({"storage": url, "study_name": name}) to learn from, as far as this one's values
    bear them out; what ended there before this one began. What fails is avoided as if a constraint forbade it.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 5,
        cost: Cost | None = None,
        earlier: Sequence[Mapping[str, str]] = (),
        ignored: str | None = None,
    ) -> None:
        self._seed = resolve_seed(seed)
        if isinstance(n_startup_trials, bool) or not isinstance(n_startup_trials, int) or n_startup_trials < 0:
            raise ValueError(f"n_startup_trials={n_startup_trials}: a whole number of at least 0 is expected")
        if cost is not None and not callable(cost):
            raise ValueError(f"cost={cost}: what gives the seconds of configurations is expected, such as StageSeconds")
        self._startup = n_startup_trials
        self._cost = cost
        self._earlier = parse_earlier(earlier)
        self._ignored = ignored

    def reseed_rng(self) -> None:
        """For `n_jobs` of Optuna: each thread sees what the others' trials were given, so nothing needs a new seed."""

    @property
    def counts_seconds(self) -> bool:
        """Whether what a configuration takes has a say."""
        return self._cost is not None

    def get_earlier(self, until: datetime | None = None) -> list[EarlierStudy]:
        """The earlier studies as they were then (None: now); raises what Optuna does where one can't be read."""
        return [load_earlier(*each, until) for each in self._earlier]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """All parameters that any trial had, once there were enough of them; those that never vary left out."""
        trials = select_informative(study.get_trials(deepcopy=False))
        if len(trials) < (1 if any(each.trials for each in self._load_earlier(study)) else max(self._startup, 1)):
            return {}
        union = merge_distributions(each.distributions for each in trials)
        return {name: distribution for name, distribution in union.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of the parameters that are believed to exist for the configuration proposed."""
        if not search_space:
            return {}
        with _drawing:
            every = study.get_trials(deepcopy=False)
            considered = self._build_considered(study, every, trial, search_space)
            row, _ = self._select_best(study, considered)
            (params,) = considered.space.to_configurations(row[None])
            study._storage.set_trial_system_attr(trial._trial_id, PROPOSED, params)
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value that was tried least: how a study begins, and what a parameter gets that was not known of."""
        every = study.get_trials(deepcopy=False)
        told = [get_params(t) for t in self._get_others(every, trial)]
        rng = self._make_rng(self._count_before(every, trial), param_name)
        past = [params[param_name] for params in told if param_name in params]
        axis = build_axis(param_name, param_distribution)
        levels = axis.levels if isinstance(param_distribution, CategoricalDistribution) else axis.sample_units(rng, 32)
        assert levels is not None
        # Whoever has the rest of a trial's parameters has measured this one with them.
        values = [axis.to_value(float(unit)) for unit in levels]
        new = [
            unit for unit, value in zip(levels, values, strict=True) if {**trial.params, param_name: value} not in told
        ]
        units = np.array(new or levels)
        if isinstance(param_distribution, CategoricalDistribution):
            tried = Counter(axis.to_units(past).tolist())
            least = min(tried[unit] for unit in units)
            return axis.to_value(float(rng.choice([unit for unit in units if tried[unit] == least])))
        if past:
            units = units[np.abs(units[:, None] - axis.to_units(past)).min(axis=1).argsort(kind="stable")[::-1]]
        return axis.to_value(float(units[0]))

    def expected_gain(self, study: Study) -> float:
        """By how much the best configuration that no trial has measured is expected to exceed the best one.

        In the objective's units, constraints kept; 0 where everything was measured, nan before there were enough
        trials, before one keeps the constraints, and for several objectives.
        """
        every = study.get_trials(deepcopy=False)
        trials = select_informative(every)
        space = self.infer_relative_search_space(study, trials[-1]) if trials else {}
        if len(trials) < 2 or len(study.directions) > 1 or not space:
            return np.nan
        considered = self._build_considered(study, every, None, space)
        if not considered.surrogate.processes:
            return np.nan
        if not len(considered.pool):
            return 0.0
        return float(np.exp(self._select_best(study, considered)[1]) * considered.surrogate.scale)

    def _make_rng(self, place: int, purpose: str) -> np.random.Generator:
        # Not hash(), which differs from process to process: a resumed study is to draw the same.
        return np.random.default_rng([self._seed, place, zlib.crc32(purpose.encode())])

    def _get_others(self, every: Trials, trial: FrozenTrial | None) -> list[FrozenTrial]:
        """The other trials that have a configuration, whatever came of it."""
        own = None if trial is None else trial.number
        return [t for t in every if t.number != own and get_params(t) and self._should_count(t)]

    def _count_before(self, every: Trials, trial: FrozenTrial | None) -> int:
        """How many trials came before; without a trial, how many were measured."""
        if trial is None:
            return len(select_informative(every))
        # Others that were begun and have drawn nothing yet: without them two trials would share a generator.
        begun = [t for t in every if t.number < trial.number and t.state == TrialState.RUNNING and not get_params(t)]
        return len(self._get_others(every, trial)) + len(begun)

    def _should_count(self, trial: FrozenTrial) -> bool:
        return trial.state != TrialState.WAITING and self._ignored not in trial.user_attrs

    def _load_earlier(self, study: Study) -> list[EarlierStudy]:
        """The earlier studies as they were when this one began, so that a resumed one learns the same."""
        if not self._earlier:
            return []
        found = self.get_earlier(next((t.datetime_start for t in study.get_trials(deepcopy=False)), None))
        for each in found:
            if len(each.directions) != len(study.directions):
                raise ValueError(f"an earlier study has {len(each.directions)} objectives, not {len(study.directions)}")
        return found

    def _select_best(self, study: Study, considered: CandidatePool) -> tuple[NDArray[np.float64], float]:
        """The row of which most is expected, and the logarithm of how much."""
        space, surrogate, pool, seen, fixed, rng, _ = considered
        if not len(pool):
            # Everything was measured; what is noisy may be again.
            pool = _apply_fixed(space, np.unique(seen, axis=0) if len(seen) else space.sample_units(rng, 1), fixed)
        seconds = self._cost(study) if self._cost else None
        pool, worth = _rank_pool(surrogate, space, pool, seconds)
        if space.listed is None or len(space.listed) > considered.most:
            # The neighbourhood of what looks best, twice, ever closer.
            for width in (0.1, 0.03):
                near = _apply_fixed(
                    space, space.sample_neighbours(rng, pool[:ELITE], max(len(pool) // 3, ELITE), width), fixed
                )
                pool = np.concatenate([pool[:ELITE], drop_seen(near, seen)])
                pool, worth = _rank_pool(surrogate, space, pool, seconds)
        return pool[0], float(worth[0])

    def _build_considered(
        self, study: Study, every: Trials, trial: FrozenTrial | None, search_space: Mapping[str, BaseDistribution]
    ) -> CandidatePool:
        """The space, what `every` trial says of it, and the candidates; `trial` is the one to be given values."""
        names, others = set(search_space), self._get_others(every, trial)
        trials = select_informative(others)
        foreign = [each.select_within(search_space) for each in self._load_earlier(study)]
        # Where an earlier study lacks a parameter, it may have been fixed there: that says nothing of when it exists.
        alike = [t for each in foreign if names <= each.names for t in each.trials]
        if not trials:
            space = Space(tuple(build_axis(*item) for item in search_space.items()), (None,) * len(search_space))
        else:
            space = infer_space([select_params(t, names) for t in (*alike, *trials)], search_space)
        seen = space.to_units([select_params(t, names) for t in others])
        pending = [select_params(t, names) for t in others if t.state == TrialState.RUNNING]
        failed = [select_params(t, names) for t in others if t.state == TrialState.FAIL]
        # What was measured in another attempt, or is being tried again, does not count as failing.
        failed = [each for each in failed if each not in [select_params(t, names) for t in trials] + pending]
        fixed = space.to_units([trial.system_attrs.get("fixed_params", {}) if trial else {}])[0]
        rng = self._make_rng(self._count_before(every, trial), "")
        weights = rng.dirichlet(np.ones(len(study.directions)))
        known = subsample_observations(collect_observations(study.directions, trials, names), KNOWN, weights, rng)
        before = [subsample_observations(collect_observations(*each, names), FOREIGN, weights, rng) for each in foreign]
        surrogate = fit_surrogate(known, before, pending, space, weights, rng, failed[-KNOWN:])
        best = surrogate.units[surrogate.order[:ELITE]]
        most = POOL // max(len(surrogate.units), 20)
        pool = _sample_pool(space, seen, best, fixed, rng, most)
        return CandidatePool(space, surrogate, pool, seen, fixed, rng, most)


class CandidatePool(NamedTuple):
    """What a proposal is made from; of candidates at most so many are looked at."""

    space: Space
    surrogate: Surrogate
    pool: Units
    seen: Units
    fixed: NDArray[np.float64]
    rng: np.random.Generator
    most: int


def _rank_pool(surrogate: Surrogate, space: Space, pool: Units, seconds: Seconds | None) -> tuple[Units, Floats]:
    """The pool and what is expected of it, the most first, for each second where these are given."""
    worth = surrogate.score_candidates(space, pool)
    if seconds is not None:
        taken = seconds(space.to_configurations(pool))
        worth = worth - np.log(taken + FREE * max(float(taken.max()), 1e-9))
    order = np.argsort(-worth, kind="stable")
    return pool[order], worth[order]


def _sample_pool(
    space: Space, seen: Units, best: Units, fixed: NDArray[np.float64], rng: np.random.Generator, most: int
) -> Units:
    """Candidates that no trial has measured: of a small space all, of a large one some drawn, some near the best.

    `fixed` are the units that the trial was given, ABSENT for the others.
    """
    near = [space.sample_neighbours(rng, best, most // 4, width) for width in (0.1, 0.03)] if len(best) else []
    if space.listed is None:
        pool = drop_seen(_apply_fixed(space, np.concatenate([*near, space.sample_units(rng, most // 2)]), fixed), seen)
        # A large space of which much was measured.
        return (
            pool
            if len(pool)
            else drop_seen(_apply_fixed(space, space.sample_units(rng, DRAWN_AGAIN), fixed), seen)[:most]
        )
    pool = drop_seen(_apply_fixed(space, np.concatenate([*near, space.listed]), fixed), seen)
    if len(pool) > most:
        # What is near the best comes first, and stays.
        others = most // 2 + rng.choice(len(pool) - most // 2, most - most // 2, replace=False)
        return pool[np.append(np.arange(most // 2), np.sort(others))]
    return pool


def _apply_fixed(space: Space, pool: Units, fixed: NDArray[np.float64]) -> Units:
    if (fixed == ABSENT).all():
        return pool
    return space.apply_conditions(np.where(fixed == ABSENT, pool, fixed))
