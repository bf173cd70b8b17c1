"""How well a judge's grades agree with what people, or the way an answer was made, say of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 2_000
LEVEL = 0.95


def compute_kappa(truths: Sequence[int], grades: Sequence[int], best: int) -> float:
    """Cohen's kappa of whole grades from 1 to `best`, disagreement weighted by its square (Cohen 1968).

    1: equal everywhere, 0: no better than grades drawn at random, below 0: worse. nan without a pair, and where both
    gave one and the same grade to all, of which nothing can be said.
    """
    return float(_compute_kappas(_count_pairs(truths, grades, [0] * len(truths), best))[0])


def compute_kappa_interval(
    truths: Sequence[int], grades: Sequence[int], groups: Sequence[int], best: int, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of `compute_kappa`, groups (such as one question's answers) drawn whole.

    (nan, nan) below two groups, and where no resample has a kappa.
    """
    tables = _count_pairs(truths, grades, groups, best)
    count = len(tables)
    if count < 2:
        return math.nan, math.nan
    # How often each group is drawn: their tables, added up so many times, are the resample's.
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    kappas = _compute_kappas(np.tensordot(drawn, tables, axes=1))
    if np.isnan(kappas).all():
        return math.nan, math.nan
    low, high = np.nanquantile(kappas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _count_pairs(truths: Sequence[int], grades: Sequence[int], groups: Sequence[int], best: int) -> NDArray[np.float64]:
    """By group how often each truth met each grade: [groups, best, best]."""
    names, of = np.unique(np.asarray(groups, int), return_inverse=True)
    # One empty table where there is no pair, whose kappa is nan.
    tables = np.zeros((max(1, len(names)), best, best))
    np.add.at(tables, (of, np.asarray(truths, int) - 1, np.asarray(grades, int) - 1), 1.0)
    return tables


def _compute_kappas(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weighted kappa of each table of counts."""
    place = np.arange(tables.shape[-1])
    weights = (place[:, None] - place[None, :]) ** 2
    # How often each pair would come, were grades given without looking.
    chance = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None, :]
    total = tables.sum(axis=(1, 2))
    apart, expected = (weights * tables).sum(axis=(1, 2)) * total, (weights * chance).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        kappas: NDArray[np.float64] = np.where(expected > 0, 1 - apart / expected, np.nan)
    return kappas
