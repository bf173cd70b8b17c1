"""By how much each parameter moves the score, as the sampler's own model has it, over the space and not the trials.

A parameter that a sampler soon settles shows little among its trials, however much it matters; the model is asked about
configurations drawn evenly from the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from rag_opt.samplers.gaussian_process import Floats, Process, compute_distances, fit_process, sample_prior
from rag_opt.samplers.observations import (
    collect_observations,
    select_informative,
    select_params,
    standardize_values,
    subsample_observations,
)
from rag_opt.samplers.space import ABSENT, Axis, Space, Units, infer_space, merge_distributions

DRAWS, KEPT = 512, 64
"""Of the hyperparameters, and of these those with the most evidence."""

PAIRS = 48
"""Of configurations, for each parameter."""

# The 7 × 6 changes of seven values fit into PAIRS, those of eight do not.
FEW_LEVELS = 7
"""Of a parameter's values, of which every change can be looked at as often."""

SAMPLES = 240
"""Of what the score may be at all of them, given the trials."""

KNOWN = 120
"""Trials at most that the process is given, as in the sampler."""

LEVEL = 0.95

WIDER = 1.8
"""By how much intervals are wider than the samples' quantiles.

The kernel is an assumption, and trials crowd where scores are good. Chosen on the grids of python_docs and mlflow_docs;
how it holds on the others: studies/importance.py.
"""

JITTER = 1e-6


class Effect(NamedTuple):
    """What another value of one parameter changes, in the objective's unit, with its 95 % interval.

    The root mean square of the change, over configurations that have the parameter, all others left as they are but
    those that exist with one of its values alone.
    """

    size: float
    low: float
    high: float


def estimate_effects(
    directions: Sequence[StudyDirection], trials: Sequence[FrozenTrial], seed: int = 0
) -> dict[str, Effect]:
    """The effect of each parameter on the first objective, the greatest first; {} where fewer than two trials tell.

    Parameters that have a single value are left out. The same for the same trials and seed.
    """
    told = select_informative(trials)
    space = {
        name: distribution
        for name, distribution in merge_distributions(each.distributions for each in told).items()
        if not distribution.single()
    }
    known = collect_observations(directions, told, set(space))
    if len(known) < 2 or not space or not np.ptp(known.values[:, 0]):
        return {}
    rng = np.random.default_rng(seed)
    # Only the first objective: all weight on it.
    weights = np.eye(1, known.values.shape[1])[0]
    known = subsample_observations(known, KNOWN, weights, rng)
    inferred = infer_space([select_params(each, set(space)) for each in told], space)
    units, values = inferred.to_units(known.configurations), known.values[:, 0]
    apart = compute_distances(inferred.axes, units, units)
    draws = sample_prior(rng, DRAWS, len(inferred.axes))
    process = fit_process(draws, apart, standardize_values(values), known.noise, keep=KEPT)
    pairs = {
        axis.name: draw_pairs(inferred, column, rng)
        for column, axis in enumerate(inferred.axes)
        # A choice between 1 and true is of one value to Python.
        if axis.levels is None or len(axis.levels) > 1
    }
    found = {
        name: _measure_effect(process, inferred, units, *each, rng) for name, each in pairs.items() if len(each[0])
    }
    scale = float(values.std())
    scaled = {name: Effect(*(scale * part for part in each)) for name, each in found.items()}
    return dict(sorted(scaled.items(), key=lambda item: (-item[1].size, item[0])))


def draw_pairs(space: Space, column: int, rng: np.random.Generator) -> tuple[Units, Units]:
    """Configurations that have this parameter, and the same with another value of it: [pairs, parameters] each."""
    # Each axis has a value, also where it does not exist: what comes to exist with the other value is there then.
    # Many more than are kept, since a conditional parameter exists in few of them.
    whole = np.stack([axis.sample_units(rng, 20 * PAIRS) for axis in space.axes], axis=1)
    rows = np.flatnonzero(space.apply_conditions(whole)[:, column] != ABSENT)[:PAIRS]
    before = whole[rows]
    after = before.copy()
    before[:, column], after[:, column] = _draw_changes(space.axes[column], before[:, column], rng)
    return space.apply_conditions(before), space.apply_conditions(after)


def _draw_changes(
    axis: Axis, units: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One value and another one for each of these."""
    if axis.levels is None:
        return units, axis.sample_units(rng, len(units))
    count = len(axis.levels)
    ordered = np.array([(a, b) for a in range(count) for b in range(count) if a != b]) if count <= FEW_LEVELS else None
    if ordered is None:
        places = np.abs(axis.levels[None, :] - units[:, None]).argmin(axis=1)
        # From 1 on, and around the end: each other level equally often, never the same.
        return units, axis.levels[(places + rng.integers(1, count, len(units))) % count]
    # Each change equally often: left to chance, that would weigh more than what the trials leave open.
    chosen = ordered[np.arange(len(units)) % len(ordered)]
    return axis.levels[chosen[:, 0]], axis.levels[chosen[:, 1]]


def _measure_effect(
    process: Process, space: Space, known: Units, before: Units, after: Units, rng: np.random.Generator
) -> Effect:
    """The effect in standardised units: mean and interval over samples of the process."""
    points = np.concatenate([before, after])
    cross, own = compute_distances(space.axes, points, known), compute_distances(space.axes, points, points)
    kernels, between = process.draws.compute_kernel(cross), process.draws.compute_kernel(own)
    sizes = []
    # As many samples of each draw of the hyperparameters as its weight says.
    counts = rng.multinomial(SAMPLES, process.weights)
    for draw in np.flatnonzero(counts):
        gained = kernels[draw] @ process.inverses[draw]
        spread = process.scales[draw] * (between[draw] - gained @ kernels[draw].T)
        # Pairs may share a configuration, which makes the covariance singular.
        lower = np.linalg.cholesky(spread + JITTER * np.eye(len(points)))
        drawn = kernels[draw] @ process.alphas[draw] + rng.normal(size=(counts[draw], len(points))) @ lower.T
        apart = drawn[:, len(before) :] - drawn[:, : len(before)]
        sizes.append(np.sqrt((apart**2).mean(axis=1)))
    every: Floats = np.concatenate(sizes)
    size = every.mean()
    low, high = size + WIDER * (np.quantile(every, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - size)
    return Effect(float(size), max(0.0, float(low)), float(high))
