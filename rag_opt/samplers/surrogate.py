"""What is believed of a space after some trials, and what a further one is expected to bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rag_opt.samplers.gaussian_process import (
    Floats,
    Process,
    compute_distances,
    expected_improvement,
    extend_process,
    fit_process,
    log_feasibility,
    sample_prior,
)
from rag_opt.samplers.observations import MOST, Observations, scalarize_values, standardize_values

if TYPE_CHECKING:
    from rag_opt.samplers.space import Space, Units

DRAWS = 64
"""Of the hyperparameters, for each trial."""

OF_LIMITS = 16
"""The same for what is not to be exceeded: whether, not how much, is asked there."""

SAMPLES = 64
"""Of two objectives' values, for each candidate."""

MARGIN = 0.1
"""In standard deviations, below the worst value of an objective: from where volumes are measured."""

_normals = np.random.default_rng(0).normal(size=(2, SAMPLES, 1))
"""The same for all candidates and trials, so that chance favours none."""


class Limit(NamedTuple):
    """A constraint: where its violation is known, its process, and the standardised value that is still allowed."""

    units: Units
    process: Process
    most: float


@dataclass(frozen=True)
class Surrogate:
    """One process an objective (two: for a Pareto front; more are made one) at the known configurations.

    `foreign` is 1 where a configuration is an earlier study's. `best` is what each draw of the first process believes
    of the best trial; `front` are the trials' values of two objectives, above their `corner`. `order` are this study's
    known rows, the best first; `scale` is one standardised unit in the objective's.
    """

    units: Units
    foreign: Floats
    processes: Sequence[Process]
    best: Floats
    front: Floats
    corner: Floats
    limits: Sequence[Limit]
    order: NDArray[np.int_]
    scale: float

    def score_candidates(self, space: Space, pool: Units) -> Floats:
        """The logarithm of what is expected of each candidate, times the probability that it keeps the constraints."""
        worth = np.zeros(len(pool))
        if self.processes:
            apart = compute_distances(space.axes, pool, self.units)
            said = [process.predict(apart, self.foreign[None, None, :]) for process in self.processes]
            gain = (
                self._compute_ehvi(said)
                if len(said) > 1
                else expected_improvement(self.processes[0], *said[0], self.best)
            )
            # An improvement may underflow to 0, which has no logarithm.
            worth = np.log(gain + 1e-300)
        for limit in self.limits:
            worth = worth + log_feasibility(limit.process, compute_distances(space.axes, pool, limit.units), limit.most)
        return worth

    def _compute_ehvi(self, said: Sequence[tuple[Floats, Floats]]) -> Floats:
        """By how much each candidate is expected to enlarge the front's hypervolume (Emmerich et al. 2006), sampled."""
        values = []
        parts = zip(self.processes, said, self.corner, _normals, strict=True)
        for process, (mean, deviation), corner, normals in parts:
            # Evenly spaced, so that each draw is taken as often as its weight says, and chance has no part in it.
            steps = (np.arange(SAMPLES) + 0.5) / SAMPLES
            drawn = np.minimum(np.searchsorted(process.weights.cumsum(), steps), len(process.weights) - 1)
            values.append(mean[drawn] + deviation[drawn] * normals - corner)
        growth: Floats = hypervolume_improvement(self.front, *values).mean(axis=0)
        return growth


def hypervolume_improvement(front: Floats, x: Floats, y: Floats) -> Floats:
    """The area that points (x, y) add to what rows of `front` dominate; both are maximised, areas begin at (0, 0).

    `front` is points × 2, dominated ones allowed, none as well; x and y have one shape, which the result has.
    """
    rows = front[np.lexsort((-front[:, 1], -front[:, 0]))]
    # Of points from right to left only those are on the front that are higher than all before them.
    rows = rows[rows[:, 1] > np.maximum.accumulate(np.append(0, rows[:-1, 1]))] if len(rows) else rows
    lows, widths = np.append(0, rows[:, 1]), np.append(rows[:, 0], 0)
    # Between two heights of the front it reaches as far as its lower point that is at least so high.
    highs = np.append(rows[:, 1], np.inf)
    area = np.zeros(x.shape)
    for low, high, width in zip(lows, highs, widths, strict=True):
        area += np.maximum(0, x - width) * np.maximum(0, np.minimum(y, high) - low)
    return area


class Joint(NamedTuple):
    """All known configurations, this study's first; `targets` has one standardised column an objective."""

    units: Units
    study: NDArray[np.int_]
    noise: Floats
    targets: Floats

    @property
    def differ(self) -> Floats:
        """1 where two configurations are of different studies."""
        apart: Floats = (self.study[:, None] != self.study).astype(np.float64)
        return apart


def fit_surrogate(
    own: Observations,
    others: Sequence[Observations],
    pending: Sequence[Mapping[str, Any]],
    space: Space,
    weights: Floats,
    rng: np.random.Generator,
    failed: Sequence[Mapping[str, Any]] = (),
) -> Surrogate:
    """What this study's trials and `others`, of earlier studies, say; `weights` make more than two objectives one.

    `failed` are configurations of which nothing but that is known: not to fail is a constraint that nobody declared.
    """
    limits, feasible = _fit_limits(own, space, rng), np.flatnonzero(own.feasible)
    if failed:
        # 0 for what ran, 1 for what failed, and halfway the most that is allowed.
        broken = np.repeat([0.0, 1.0], [len(own), len(failed)])
        limits.append(_fit_limit(space.to_units([*own.configurations, *failed]), broken, 0.5, space, rng))
    order = np.argsort(-scalarize_values(own.values, weights), kind="stable")
    if not len(feasible) and not any(others):
        # Nothing is worth improving before something is allowed.
        units, nothing = space.to_units(own.configurations), np.zeros(0)
        return Surrogate(units, np.zeros(len(own)), (), nothing, nothing, nothing, limits, order, 1.0)
    joint = _join_studies((own, *others), space, weights)
    draws = sample_prior(rng, DRAWS, len(space.axes))
    apart = compute_distances(space.axes, joint.units, joint.units)
    processes = [fit_process(draws, apart, target, joint.noise, joint.differ) for target in joint.targets.T]
    said = processes[0].predict(apart, joint.differ)[0]
    # Values are noisy and the best one told is flattered: each draw has its own opinion of what the best is worth.
    # This study's rows come first in `joint`, so that `feasible` counts its columns, too.
    best = said[:, feasible].max(axis=1) if len(feasible) else said.max(axis=1)
    # From the worst value itself what is worst in one objective would span no volume.
    corner = joint.targets.min(axis=0) - MARGIN
    front = (joint.targets - corner)[feasible]
    # Only now: what is expected of a trial under way is no value that another one has to exceed.
    if pending:
        joint, processes = _add_fantasies(joint, processes, space, space.to_units(pending))
    scale = float(own.values[:, 0].std()) if len(own) else 1.0
    foreign = (joint.study != 0).astype(float)
    return Surrogate(joint.units, foreign, processes, best, front, corner, limits, order, scale)


def _join_studies(every: Sequence[Observations], space: Space, weights: Floats) -> Joint:
    # Two objectives stay two: on recorded trials the growth of the hypervolume lost less of it than random Chebyshev
    # norms did (studies/samplers/README.md).
    two = every[0].values.shape[1] == 2
    columns = [each.values.T if two else [scalarize_values(each.values, weights)] for each in every]
    # Each study is standardised by itself: on other data the same configurations score on another level.
    return Joint(
        units=np.concatenate([space.to_units(each.configurations) for each in every]),
        study=np.repeat(np.arange(len(every)), [len(each) for each in every]),
        noise=np.concatenate([each.noise for each in every]),
        targets=np.concatenate([np.stack([standardize_values(part) for part in parts], axis=1) for parts in columns]),
    )


def _add_fantasies(
    joint: Joint, processes: Sequence[Process], space: Space, more: Units
) -> tuple[Joint, list[Process]]:
    """As if trials under way had met what is expected of them, so that others look elsewhere."""
    cross, foreign = compute_distances(space.axes, more, joint.units), (joint.study != 0).astype(float)
    # The kriging believer of Ginsbourger et al. (2010).
    means = np.stack([process.predict_mean(cross, foreign[None, None, :]) for process in processes], axis=1)
    wider = Joint(
        np.concatenate([joint.units, more]),
        np.append(joint.study, np.zeros(len(more), int)),
        np.append(joint.noise, np.ones(len(more))),
        np.concatenate([joint.targets, means]),
    )
    apart = compute_distances(space.axes, wider.units, wider.units)
    pairs = zip(processes, wider.targets.T, strict=True)
    return wider, [extend_process(process, apart, target, wider.noise, wider.differ) for process, target in pairs]


def _fit_limits(own: Observations, space: Space, rng: np.random.Generator) -> list[Limit]:
    found = []
    # Sorted: a set's order differs from process to process, and each limit takes its draws from the same generator.
    for name in sorted({name for each in own.violations for name in each}):
        rows = np.array([row for row, each in enumerate(own.violations) if name in each], int)
        values = np.array([own.violations[row][name] for row in rows], np.float64)
        known = values[np.isfinite(values)]
        # What can't be measured is worse than the worst.
        worst = max(known.max(initial=0.0), 0.0) + (np.abs(known).max(initial=0.0) or 1.0)
        values = np.where(np.isfinite(values), values, worst)
        units = space.to_units([own.configurations[row] for row in rows])
        found.append(_fit_limit(units, np.clip(values, -MOST, MOST), 0.0, space, rng))
    return found


def _fit_limit(units: Units, values: Floats, most: float, space: Space, rng: np.random.Generator) -> Limit:
    draws, apart = sample_prior(rng, OF_LIMITS, len(space.axes)), compute_distances(space.axes, units, units)
    process = fit_process(draws, apart, standardize_values(values), np.ones(len(values)))
    return Limit(units, process, float((most - values.mean()) / (values.std() or 1.0)))
