"""What a judge's errors do to a difference that it has graded: an interval that allows for them, their correction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from rag_opt.analysis import paired
from rag_opt.metrics.aspects import BEST, WORST

if TYPE_CHECKING:
    from collections.abc import Collection

    from rag_opt.analysis.confirmation import Arm, Confirmation
    from rag_opt.records.documents import Scores


FEWEST_GRADED = 30
"""Questions that people must have graded: with fewer the slope that is fitted to them makes the interval too narrow."""

SCALE = float(BEST - WORST)
"""How far apart two grades can be."""


@dataclass(frozen=True)
class CorrectedDifference:
    """A difference in what people would have given, with its interval and p, by so many questions that they graded."""

    difference: float
    low: float
    high: float
    p: float
    graded: int


def widen_intervals(found: Confirmation, reach: float, error: float, spared: Collection[int] = ()) -> Confirmation:
    """The confirmation with its differences' intervals as wide as the judge's own uncertainty makes them.

    `reach` is how far apart the judge grades right and wrong answers, known to a standard `error`. A judge that grades
    them less far apart than they are shrinks every difference in proportion (Rogan and Gladen 1978), so a difference is
    known no better, relatively, than the reach is; by the delta method the two relative errors add as squares. Signs
    and p values stay: the same factor is behind both configurations. Of a judge that grades wrong answers as right ones
    nothing is known: any difference that the scale has. Unchanged for the `spared` trials, and where nothing was
    measured of the judge.
    """
    if math.isnan(reach) or math.isnan(error):
        return found
    width = math.inf
    if reach > 0:
        width = float(special.ndtri((1 + paired.compute_level(found.look)) / 2)) * error / reach
    arms = (arm if arm.trial in spared else _widen(arm, width) for arm in found.arms)
    return replace(found, arms=tuple(arms))


def _widen(arm: Arm, width: float) -> Arm:
    if math.isnan(arm.difference_low) or math.isnan(arm.difference_high):
        return arm
    if math.isinf(width):
        return replace(arm, difference_low=-SCALE, difference_high=SCALE)
    more = abs(arm.difference) * width
    # Each side by itself: a bootstrap interval need not be symmetric.
    low = arm.difference - math.hypot(arm.difference - arm.difference_low, more)
    high = arm.difference + math.hypot(arm.difference_high - arm.difference, more)
    return replace(arm, difference_low=max(-SCALE, low), difference_high=min(SCALE, high))


def correct_difference(scores: Scores, truths: Scores, level: float) -> CorrectedDifference | None:
    """The mean difference that people would have given, of a judge's differences and people's of some questions.

    `scores` are the judge's, one a question, `truths` people's, nan where they have not graded both answers. The
    estimate is the prediction-powered one (Angelopoulos et al. 2023, arXiv 2301.09633), the judge weighted by what it
    is worth, as in PPI++ (arXiv 2311.01453): one whose grades have nothing to do with people's counts for nothing.
    Where what people have graded is a part of the same questions this is double sampling's regression estimator
    (Cochran 1977, section 12.6), with Student's t for the two that are fitted. People must have graded questions drawn
    at random. None below FEWEST_GRADED of them.
    """
    known = scores[~np.isnan(scores)]
    both = ~np.isnan(truths) & ~np.isnan(scores)
    graded = int(both.sum())
    if graded < FEWEST_GRADED:
        return None
    weight = compute_weight(scores[both], truths[both])
    rest = truths[both] - weight * scores[both]
    difference = float(weight * known.mean() + rest.mean())
    freedom = graded - 2
    # Slope and mean are fitted to the same grades, hence graded - 2.
    variance = weight**2 * known.var(ddof=1) / len(known) + rest.var(ddof=1) * (graded - 1) / freedom / graded
    error = math.sqrt(float(variance))
    half = float(special.stdtrit(freedom, (1 + level) / 2)) * error
    # An error of 0 can't be divided by: a difference is certain then, and so is that there is none.
    p = float(difference == 0.0) if error == 0.0 else 2 * float(special.stdtr(freedom, -abs(difference) / error))
    return CorrectedDifference(difference, difference - half, difference + half, p, graded)


def compute_weight(scores: Scores, truths: Scores) -> float:
    """By how much the judge counts such that the estimate's variance is least: the slope of truths over scores.

    0 where that is below 0, or the judge gave one grade to all.
    """
    variance = float(np.var(scores, ddof=1))
    return max(0.0, float(np.cov(scores, truths, ddof=1)[0, 1]) / variance) if variance else 0.0
