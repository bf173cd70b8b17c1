"""Two configurations compared question by question: interval, test, correction, and how many questions it would take.

`differences` are ours less theirs, one a question, so that what is hard for both cancels out. `groups`, where given,
says which questions repeat each other (equal numbers): those are one observation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

if TYPE_CHECKING:
    from rag_opt.records.documents import Ints, Scores

RESAMPLES = 10_000
# Met from the fourth test on.
MOST_RESAMPLES = 200_000
LEVEL = 0.95
POWER = 0.8
LATER = 0.2
"""Of what a look at the unseen questions may spend of the error rate, what the next may."""
FEWEST = 6
"""Of fewer pairs no randomisation test says p < 0.05: 2 / 2^5 is 0.0625."""

# 32 MiB of places, and as much again for the values at them.
DRAWN = 2**22
"""Draws held in memory at once."""


def compute_differences(ours: Scores, theirs: Scores) -> Scores:
    """Ours less theirs, for the questions that were measured for both; float64, at most as long as either."""
    values: Scores = ours - theirs
    return values[~np.isnan(values)]


def average_groups(values: Scores, groups: Ints | None) -> Scores:
    """One value a group: its sum by the mean size of a group, so that their mean is that of all values.

    The values themselves where no two are of a group.
    """
    sums, sizes = _sum_groups(values, groups)
    return values if sizes is None else sums / sizes.mean()


def _sum_groups(values: Scores, groups: Ints | None) -> tuple[Scores, Scores | None]:
    """The sum and the size of each group; the values and None where no two are of a group."""
    if groups is None:
        return values, None
    of = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(of).astype(np.float64)
    sums: Scores = np.bincount(of, weights=values).astype(np.float64)
    # In the questions' own order, so that groups of one change no draw, and no figure of a study without repeats.
    return (values, None) if len(sizes) == len(values) else (sums, sizes)


def compute_share(test: int) -> float:
    """The share of the error rate that the test of this number, from 1, may spend: 0.8, 0.16, 0.032 and so on.

    All shares together are 1, so that of any number of tests, each of what is selected when it is made, the chance that
    one makes a false claim is at most 5 % (alpha spending, Lan and DeMets 1983, by Bonferroni's inequality).
    """
    return (1 - LATER) * LATER ** (test - 1)


def compute_level(test: int) -> float:
    """The level of the intervals at the test of this number, from 1: 0.96, 0.992, 0.9984 and so on.

    So that an interval lies beside 0 where the test shows something, and not elsewhere. 0.95 for 0, which stands for
    findings of before tests were counted.
    """
    return 1 - (1 - LEVEL) * (compute_share(test) if test else 1)


def count_resamples(test: int) -> int:
    """How many resamples the test of this number takes, so that its tails are still made of many."""
    return min(MOST_RESAMPLES, max(RESAMPLES, round(100 / (1 - compute_level(test)))))


def is_spent(test: int) -> bool:
    """Whether the test of this number may spend so little that no number of resamples taken can show anything."""
    # So it is from the seventh test on.
    return (1 - LEVEL) * compute_share(test) < 1 / count_resamples(test)


def bootstrap_interval(
    values: Scores, seed: int, resamples: int = RESAMPLES, groups: Ints | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """The bootstrap interval of the mean at this level; (nan, nan) below two values, or below two groups.

    Percentiles (Efron and Tibshirani 1993), moved outwards for small samples as Student's t is wider than the normal
    (the expanded percentile interval, Hesterberg 2015, The American Statistician 69:371). Groups are drawn whole (the
    cluster bootstrap, Davison and Hinkley 1997, section 3.8).
    """
    sums, sizes = _sum_groups(values, groups)
    count = len(sums)
    if count < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    block = max(1, DRAWN // count)
    draws = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = np.concatenate([_compute_means(sums, sizes, generator.integers(0, count, (draw, count))) for draw in draws])
    # A bootstrap's spread divides by n instead of n - 1, and percentiles take that spread for known: for few values
    # both make the interval too narrow.
    tail = special.ndtr(math.sqrt(count / (count - 1)) * special.stdtrit(count - 1, (1 - level) / 2))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _compute_means(sums: Scores, sizes: Scores | None, drawn: NDArray[np.int64]) -> Scores:
    """The mean of each draw, a row each."""
    # Sums by sizes, no mean of means: groups differ in size, and each question counts the same.
    means: Scores = sums[drawn].mean(axis=1) if sizes is None else sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def compute_p_value(values: Scores, seed: int, resamples: int = RESAMPLES, groups: Ints | None = None) -> float:
    """The two-sided p of a mean difference this far from 0, had each group's sign been a coin's; 1 below two of them.

    Fisher's randomisation test, by scipy; exact where all sign patterns can be tried (Smucker et al. 2007 compare it
    with others for rankings).
    """
    values = average_groups(values, groups)
    if len(values) < 2 or not np.any(values):
        return 1.0
    # scipy.stats takes a second to load, which is not due before there is something to confirm.
    from scipy import stats

    # Of a single sample scipy's "samples" flips signs, which swaps ours and theirs question by question.
    found = stats.permutation_test(
        (values,),
        # By the name `axis` scipy knows that it may hand over many resamples at once.
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        # Otherwise all resamples are held in memory.
        batch=max(1, DRAWN // len(values)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for being several (Holm 1979): below 0.05, the chance of any false claim is at most 5 %."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        # Holm stops at the first that shows nothing, so no p is adjusted to less than one before it.
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def estimate_sample_size(values: Scores, groups: Ints | None = None) -> int | None:
    """How many questions, all different, would show a difference of this mean and spread, four times out of five.

    None for mean 0. The paired z test's sample size at the first look's 4 %, and no fewer than the randomisation test
    can show anything with.
    """
    values = average_groups(values, groups)
    return None if len(values) < 2 else estimate_count(float(values.mean()), float(values.std(ddof=1)))


def estimate_count(mean: float, deviation: float) -> int | None:
    """`estimate_sample_size` for a difference of this mean, each question's having this deviation."""
    return max(FEWEST, math.ceil((_compute_reach() * deviation / mean) ** 2)) if mean else None


def compute_detectable(deviation: float, count: int) -> float:
    """The mean difference that so many questions show four times out of five, each question's having this deviation.

    By the paired z test at the first look's 4 %, as `estimate_sample_size`.
    """
    return _compute_reach() * deviation / math.sqrt(count)


def _compute_reach() -> float:
    """How many standard errors a difference must be, to be shown so often at the first look."""
    return float(special.ndtri((1 + compute_level(1)) / 2) + special.ndtri(POWER))


def is_tied(best: Scores, other: Scores, sign: float, groups: Ints | None = None) -> bool:
    """Whether the other is as good as the best within noise: behind by no more than the difference's standard error.

    The one-standard-error rule (Breiman et al. 1984), paired. `sign` is 1 where more is better, -1 where less is.
    """
    apart = sign * (best - other)
    known = ~np.isnan(apart)
    behind = average_groups(apart[known], None if groups is None else groups[known])
    if not len(behind):
        return False
    # A single pair has no spread: it is tied where it is not behind at all.
    error = behind.std(ddof=1) / math.sqrt(len(behind)) if len(behind) > 1 else 0.0
    return bool(behind.mean() <= error)


def count_wins(values: Scores, sign: float, groups: Ints | None = None) -> tuple[int, int, int]:
    """Different questions won, lost and tied."""
    values = average_groups(values, groups)
    won, lost = int((sign * values > 0).sum()), int((sign * values < 0).sum())
    return won, lost, len(values) - won - lost
