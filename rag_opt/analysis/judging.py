"""What a judge's errors do to a difference that it has graded: an interval that allows for them, their correction."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from rag_opt.analysis import paired

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Arm, Confirmation
    from rag_opt.records.documents import Scores


def widen_intervals(found: Confirmation, reach: float, error: float) -> Confirmation:
    """The confirmation with its differences' intervals as wide as the judge's own uncertainty makes them.

    `reach` is how far apart the judge grades right and wrong answers, known to a standard `error`. A judge that grades
    them less far apart than they are shrinks every difference in proportion (Rogan and Gladen 1978), so a difference is
    known no better, relatively, than the reach is; by the delta method the two relative errors add as squares. Signs
    and p values stay: the same factor is behind both configurations. Unchanged where nothing is known of the judge.
    """
    if math.isnan(reach) or math.isnan(error) or reach <= 0:
        return found
    width = float(special.ndtri((1 + paired.compute_level(found.look)) / 2)) * error / reach
    return replace(found, arms=tuple(_widen(arm, width) for arm in found.arms))


def _widen(arm: Arm, width: float) -> Arm:
    if math.isnan(arm.difference_low) or math.isnan(arm.difference_high):
        return arm
    more = abs(arm.difference) * width
    low = arm.difference - math.hypot(arm.difference - arm.difference_low, more)
    high = arm.difference + math.hypot(arm.difference_high - arm.difference, more)
    return replace(arm, difference_low=low, difference_high=high)


def correct_scores(scores: Scores, truths: Scores) -> Scores:
    """A judge's grades corrected by people's grades of some of them (`truths`, nan elsewhere), one value a question.

    Their mean is the prediction-powered estimate of what people would have given on average, and their spread that
    estimate's (Angelopoulos et al. 2023, arXiv 2301.09633), the judge weighted by what it is worth, as in PPI++
    (arXiv 2311.01453): one whose grades have nothing to do with people's counts for nothing. Where what people have
    graded is a part of the same questions this is double sampling's regression estimator (Cochran 1977, section 12.6).
    People must have graded questions drawn at random. nan stays nan; unchanged with fewer than three grades of theirs.
    """
    both = ~np.isnan(truths) & ~np.isnan(scores)
    graded, count = int(both.sum()), int((~np.isnan(scores)).sum())
    if graded < 3:
        return scores
    weight = compute_weight(scores[both], truths[both])
    rest = truths[both] - weight * scores[both]
    found: Scores = weight * scores + rest.mean()
    # Around its mean: so that how many were graded, which was chosen, adds no spread of its own.
    found[both] += count / graded * (rest - rest.mean())
    return found


def compute_weight(scores: Scores, truths: Scores) -> float:
    """By how much the judge counts such that the estimate's variance is least: the slope of truths over scores.

    0 where that is below 0, or the judge gave one grade to all.
    """
    variance = float(np.var(scores, ddof=1))
    return max(0.0, float(np.cov(scores, truths, ddof=1)[0, 1]) / variance) if variance else 0.0
