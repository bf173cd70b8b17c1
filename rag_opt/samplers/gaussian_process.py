"""A Gaussian process over agreement: two configurations are alike in so far as their parameters agree.

A name agrees or not, a number by its distance on its scale (or in rank), "does not exist" is a value of its own, so
that conditional parameters are modelled like all others. The kernel adds agreement (main effects) and multiplies it
(what holds only together). Its hyperparameters are not optimised, which fails with few trials, but drawn from a prior
and weighed by their evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import log_ndtr, ndtr

from rag_opt.samplers.space import ABSENT, Axis, Units

Floats = NDArray[np.float64]

# Its mean, SCALE / (SHAPE - 1), is 1: the variance that standardised targets have.
SHAPE, SCALE = 2.0, 1.0
"""Of the inverse gamma prior on the process's variance, targets being standardised."""

JITTER = 1e-6


def compute_distances(axes: Sequence[Axis], left: Units, right: Units) -> Floats:
    """Parameters × left × right, from 0 (agree) to 1; each is a distance of type L1, so kernels of it are positive."""
    found = np.empty((len(axes), len(left), len(right)))
    for column, axis in enumerate(axes):
        a, b = left[:, column, None], right[None, :, column]
        if axis.named:
            found[column] = a != b
        elif axis.ranks is not None:
            ranks = np.append(axis.ranks, 0.5)  # the last is for ABSENT, which is -1
            found[column] = 0.5 * (a != b) + 0.5 * np.abs(ranks[a.astype(int)] - ranks[b.astype(int)])
        else:
            # Taken as 0.5, what does not exist is 0.5 to 1 away from every number; as the -1 that ABSENT is it would be
            # nearest to the low end, and farther than 1 from the high one.
            gone_a, gone_b = a == ABSENT, b == ABSENT
            found[column] = np.abs(np.where(gone_a, 0.5, a) - np.where(gone_b, 0.5, b)) + 0.5 * (gone_a != gone_b)
    return found


@dataclass(frozen=True)
class Draws:
    """Hyperparameters, one row a draw: how the kernel is mixed, how noisy values are, what each parameter weighs."""

    share: Floats
    noise: Floats
    weights: Floats
    rates: Floats
    trust: Floats

    def __len__(self) -> int:
        return len(self.share)

    def select_rows(self, rows: NDArray[np.int_]) -> Draws:
        """These draws alone."""
        return Draws(*(part[rows] for part in vars(self).values()))

    def compute_kernel(self, apart: Floats, foreign: Floats | None = None) -> Floats:
        """Draws × left × right, from `distances`; where `foreign` is 1 the two are of different studies."""
        flat, share = apart.reshape(len(apart), -1), self.share[:, None]
        # In place: most of a draw's time goes here, and most of that into memory.
        mixed = self.weights @ flat
        np.subtract(1, mixed, out=mixed)
        mixed *= share
        joint = (-self.rates) @ flat
        np.exp(joint, out=joint)
        joint *= 1 - share
        mixed += joint
        found = mixed.reshape(len(self), *apart.shape[1:])
        # Trust in an earlier study is a parameter like the others, drawn and weighed by evidence, so that it lasts only
        # as long as this study's own values bear it out.
        return found if foreign is None else found * (1 - (1 - self.trust[:, None, None]) * foreign)


def sample_prior(rng: np.random.Generator, count: int, parameters: int) -> Draws:
    """Draws of what is believed before the first value: few parameters matter, and some only together."""
    # Written down before the first benchmark grid was recorded and never tuned on one, so that every grid in
    # studies/samplers is one that these numbers were not chosen on.
    # 1e-9, since draws of this shape come close to 0, and their sum divides below.
    weights = rng.gamma(0.5, size=(count, parameters)) + 1e-9
    rates = rng.gamma(0.5, 2.0, size=(count, parameters)) * np.exp(rng.normal(0, 1, (count, 1)))
    return Draws(
        share=rng.random(count),
        noise=np.exp(rng.uniform(np.log(1e-4), np.log(0.3), count)),
        # They sum to 1, or the additive part would not be 1 for a configuration with itself.
        weights=weights / weights.sum(axis=1, keepdims=True),
        rates=rates,
        trust=rng.random(count),
    )


@dataclass(frozen=True)
class Process:
    """The draws that explain the values, with their weights; what they say of a configuration is their mixture."""

    draws: Draws
    weights: Floats
    inverses: Floats
    alphas: Floats
    scales: Floats

    def predict(self, apart: Floats, foreign: Floats | None = None) -> tuple[Floats, Floats]:
        """Mean and standard deviation, draws × points, of `distances` points × known."""
        cross = self.draws.compute_kernel(apart, foreign)
        mean = np.einsum("mpn,mn->mp", cross, self.alphas)
        spared = np.einsum("mpn,mpn->mp", cross @ self.inverses, cross)
        # The kernel of a point with itself is 1; rounding may subtract a little more than that.
        return mean, np.sqrt(np.maximum(1 - spared, 1e-9) * self.scales[:, None])

    def predict_mean(self, apart: Floats, foreign: Floats | None = None) -> Floats:
        """What is expected of the points, over all draws."""
        return self.weights @ self.predict(apart, foreign)[0]


def fit_process(
    draws: Draws,
    apart: Floats,
    targets: Floats,
    noise: Floats,
    foreign: Floats | None = None,
    keep: int = 12,
) -> Process:
    """The process given `targets` (standardised) at points of these distances to each other.

    `noise` multiplies the drawn variance of each value: 1 for a whole evaluation, more for a part of one. `apart` is
    parameters × points × points, `foreign` (points × points) 1 where two points are of different studies; the `keep`
    draws with the most evidence stay.
    """
    count, kernels = len(targets), _build_covariance(draws, apart, noise, foreign)
    lower = np.linalg.cholesky(kernels)
    # Not checked for being finite: collecting the values has left out what is not.
    whitened = np.array([solve_triangular(each, targets, lower=True, check_finite=False) for each in lower])
    misfit = SCALE + 0.5 * (whitened**2).sum(axis=1)
    # The variance is integrated out: a Student's t.
    log_evidence = -np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1) - (SHAPE + count / 2) * np.log(misfit)
    # Fewer draws are kept than were made for speed alone: they are what a prediction's time grows with.
    best = np.argsort(-log_evidence, kind="stable")[:keep]
    # Relative to the best draw: evidence itself underflows to 0 where there are many values.
    weights = np.exp(log_evidence[best] - log_evidence[best[0]])
    inverses = np.asarray(np.linalg.inv(kernels[best]), np.float64)
    return Process(
        draws=draws.select_rows(best),
        weights=weights / weights.sum(),
        inverses=inverses,
        alphas=inverses @ targets,
        scales=misfit[best] / (SHAPE + count / 2),
    )


def extend_process(process: Process, apart: Floats, targets: Floats, noise: Floats, foreign: Floats | None) -> Process:
    """The same draws and weights with further points, the distances of all given."""
    # What was only expected is no evidence, so the draws keep their weights and scales.
    inverses = np.asarray(np.linalg.inv(_build_covariance(process.draws, apart, noise, foreign)), np.float64)
    return replace(process, inverses=inverses, alphas=inverses @ targets)


def _build_covariance(draws: Draws, apart: Floats, noise: Floats, foreign: Floats | None) -> Floats:
    kernels = draws.compute_kernel(apart, foreign)
    diagonal = np.einsum("mii->mi", kernels)  # a view
    diagonal += draws.noise[:, None] * noise + JITTER
    return kernels


def expected_improvement(process: Process, mean: Floats, deviation: Floats, best: Floats) -> Floats:
    """Points: by how much each is expected to exceed its draw's `best`, over the draws (Jones et al. 1998).

    `mean` and `deviation` are draws × points, as `predict` gives them; `best` has one value a draw.
    """
    z = (mean - best[:, None]) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    improvement: Floats = process.weights @ (deviation * (z * ndtr(z) + density))
    return improvement


def log_feasibility(process: Process, apart: Floats, limit: float) -> Floats:
    """Points: the logarithm of the probability that a value is at most `limit`, which is standardised as targets are.

    `apart` is parameters × points × known configurations.
    """
    mean, deviation = process.predict(apart)
    # In logarithms: far beyond the limit the probability is 0 as a float, and no candidate better than another.
    logs = log_ndtr((limit - mean) / deviation)
    top = logs.max(axis=0)
    found: Floats = np.log(process.weights @ np.exp(logs - top)) + top
    return found
