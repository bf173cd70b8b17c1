"""What the trials of a study say: configurations, values, how noisy these are, and which constraints are broken."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from rag_opt.samplers.gaussian_process import Floats

PARTIAL = 4.0
"""By how much a pruned trial's value is noisier than a whole one's, at least."""

INTERRUPTED = "interrupted"
"""User attribute of a trial whose process died; its place is taken by another trial."""

SO_FAR = "so_far"
"""User attribute of a pruned trial of several objectives, which Optuna has no reports for: the means that it had."""

PROPOSED = "rag_opt:proposed"
"""System attribute of a trial: what it was given before it asked for it, so that others look elsewhere."""

MOST = 1e100
"""Values beyond it, such as the largest float for a penalty, count as this: their squares are still finite."""


@dataclass(frozen=True)
class Observations:
    """What the trials say: configurations, values to be maximised (rows × objectives) and how noisy each is."""

    configurations: Sequence[Mapping[str, Any]]
    values: Floats
    noise: Floats
    violations: Sequence[Mapping[str, float]]

    def select_rows(self, chosen: NDArray[np.int_]) -> Observations:
        """These rows alone."""
        return Observations(
            [self.configurations[row] for row in chosen],
            self.values[chosen],
            self.noise[chosen],
            [self.violations[row] for row in chosen],
        )

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which rows are known to break no constraint."""
        # Unlike Optuna, to which an unset constraint is kept: what was not measured is nan here, and nan <= 0 is false.
        names = {name for each in self.violations for name in each}
        return np.array([all(each.get(name, np.nan) <= 0 for name in names) for each in self.violations], bool)

    def __len__(self) -> int:
        return len(self.configurations)


def collect_observations(
    directions: Sequence[StudyDirection], trials: Sequence[FrozenTrial], names: set[str]
) -> Observations:
    """Those trials that have a finite value for every objective; a pruned one's is the mean of what it reported."""
    signs = np.array([1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in directions])
    longest = max((max(t.intermediate_values, default=0) + 1 for t in trials), default=1)
    rows, values, noise = [], [], []
    for t in trials:
        told = t.values if t.state == TrialState.COMPLETE else _get_partial_values(t)
        # Optuna takes inf as a value, even as the best one; standardised it would make nan of all values.
        if told is not None and len(told) == len(signs) and np.isfinite(told).all():
            rows.append(t)
            values.append(np.clip(signs * told, -MOST, MOST))
            # A mean's variance falls with the number of its reports; PARTIAL comes on top, or the flattering
            # beginning of a stopped trial would keep the sampler in its neighbourhood.
            part = PARTIAL * longest / (max(t.intermediate_values, default=0) + 1)
            noise.append(1.0 if t.state == TrialState.COMPLETE else part)
    return Observations(
        [select_params(t, names) for t in rows],
        np.array(values).reshape(len(rows), len(signs)),
        np.array(noise),
        [t.constraints for t in rows],
    )


def _get_partial_values(trial: FrozenTrial) -> Sequence[float] | None:
    """The mean of what it reported: some report means so far, others a question's score at a time."""
    reported = list(trial.intermediate_values.values())
    return [float(np.mean(reported))] if reported else trial.user_attrs.get(SO_FAR)


def subsample_observations(known: Observations, most: int, weights: Floats, rng: np.random.Generator) -> Observations:
    """At most so many rows: the best half of them, and others at random."""
    if len(known) <= most:
        return known
    order = np.argsort(-scalarize_values(known.values, weights), kind="stable")
    others = rng.choice(order[most // 2 :], most - most // 2, replace=False)
    return known.select_rows(np.sort(np.append(order[: most // 2], others)))


def scalarize_values(values: Floats, weights: Floats) -> Floats:
    """One value a row; several objectives by an augmented Chebyshev norm (Knowles 2006).

    `values` (rows × objectives) are maximised, each objective scaled by its range here; the best are near 0, others
    below. With one objective its values as they are.
    """
    if values.shape[1] == 1 or not len(values):
        return values[:, 0]
    low, high = values.min(axis=0), values.max(axis=0)
    weighted = weights * (values - high) / np.where(high > low, high - low, 1.0)
    # Without the sum a value would be worth no more than another that is equal to it in its worst objective only.
    # 0.05 is Knowles's rho.
    norm: Floats = weighted.min(axis=1) + 0.05 * weighted.sum(axis=1)
    return norm


def standardize_values(values: Floats) -> Floats:
    """Mean 0 and deviation 1, where they are not all the same."""
    if not len(values):
        return values
    scale = values.std()
    standard: Floats = (values - values.mean()) / (scale if scale > 0 else 1.0)
    return standard


def resolve_seed(seed: int | None) -> int:
    """The seed, or where none is given one of this machine's; raises ValueError for what is none."""
    if seed is None:
        return secrets.randbits(32)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed}: a whole number of at least 0 is expected")
    return seed


def select_informative(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that were measured, to the end or, as far as they said anything, until they were pruned."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return [
        t
        for t in trials
        if t.state in states and (t.state == TrialState.COMPLETE or _get_partial_values(t) is not None)
    ]


def get_params(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters, those that it has yet to ask for included."""
    # Of a trial that has ended only what it asked for: a proposed parameter that it never wanted does not exist there.
    return {**(trial.system_attrs.get(PROPOSED, {}) if trial.state == TrialState.RUNNING else {}), **trial.params}


def select_params(trial: FrozenTrial, names: set[str]) -> dict[str, Any]:
    """The trial's parameters of these names."""
    return {name: value for name, value in get_params(trial).items() if name in names}
