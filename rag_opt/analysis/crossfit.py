"""All questions confirm, each by a choice that was made without it: a fold is judged by what the other folds select.

Unlike a split it keeps no question from the search. What the search itself has learnt from a fold is not undone: it may
have measured what does well there. On simulated studies that bias was small beside the interval (studies/README.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rag_opt.analysis.formats import NEGLIGIBLE
from rag_opt.analysis.paired import LEVEL, average_groups, compute_level, estimate_count

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Arm, Confirmation
    from rag_opt.analysis.selection import Candidate
    from rag_opt.records.documents import Ints, Scores
    from rag_opt.records.scores import Evaluation

METHOD = "crossfit"
FOLDS = 5
RESAMPLES = 200
"""Of the questions, each with the whole selection made again: the choice differs from sample to sample, too."""

DIGITS = 12

SHRINK = 0.85
"""Of the bootstrap's standard error. A sample with repeats has fewer different questions, so its choices differ more.

Without it 98 to 99 % of intervals hold what they are to hold, with it about 96 % (studies/confirmation.py).
"""


@dataclass(frozen=True)
class Crossfit:
    """For each question the trial that judges it, and the standard error of the mean difference from the baseline."""

    trials: NDArray[np.int_]
    error: float
    groups: int

    def compute_interval(self, difference: float, level: float = LEVEL) -> tuple[float, float]:
        """The interval of this mean difference, by Student's t; both nan for a single group of questions."""
        half = float(special.stdtrit(self.groups - 1, (1 + level) / 2)) * self.error if self.groups > 1 else math.nan
        return difference - half, difference + half

    def compute_p_value(self, difference: float) -> float:
        """The two-sided p of a mean difference this far from 0, by Student's t; 1 where all is equal."""
        if not self.error > 0:
            return 1.0
        return float(2 * special.stdtr(self.groups - 1, -abs(difference) / self.error))


def crossfit(candidates: Sequence[Candidate], baseline: int, sign: float, groups: Ints, seed: int) -> Crossfit:
    """What judges each question, and how sure the mean difference from the trial `baseline` is.

    Questions of one of the `groups` are of one fold, and drawn together. `baseline` must be one of the candidates;
    scores must be measured for at least two groups.
    """
    rng = np.random.default_rng(seed)
    table = _Table.build(candidates, sign, groups)
    count = table.scores.shape[1]
    # Of groups, not questions: a copy in another fold would judge by itself.
    folds = rng.permutation(np.arange(count) % min(FOLDS, count))
    rows = table.judge(np.arange(count), folds)
    row = next(place for place, each in enumerate(candidates) if each.number == baseline)
    # A question drawn twice stays in its fold, so that none is judged by a choice made on its copy.
    drawn: list[NDArray[np.int_]] = list(rng.integers(0, count, (RESAMPLES, count)))
    means = [table.compare(sample, table.judge(sample, folds[sample]), row) for sample in drawn]
    of = np.unique(groups, return_inverse=True)[1]
    numbers = np.array([each.number for each in candidates])
    return Crossfit(numbers[rows][of], SHRINK * float(np.std(means, ddof=1)), count)


def merge_evaluations(evaluations: Mapping[int, Evaluation], judges: Sequence[int]) -> Evaluation:
    """One evaluation in which each question has what the trial that judges it has made of it."""
    every = [evaluations[number] for number in dict.fromkeys(judges)]
    first = every[0]

    def pick(get: Callable[[Evaluation], Sequence[Any]]) -> tuple[Any, ...]:
        if not all(get(each) for each in every):
            return ()
        return tuple(get(evaluations[number])[row] for row, number in enumerate(judges))

    scores = {
        name: np.array([evaluations[number].per_query[name][row] for row, number in enumerate(judges)], np.float64)
        for name in first.per_query
    }
    return replace(
        first,
        per_query=scores,
        # Of nan alone nanmean makes a warning.
        means={name: float(np.nanmean(values)) for name, values in scores.items() if not np.isnan(values).all()},
        retrieved=pick(lambda each: each.retrieved),
        answers=pick(lambda each: each.answers),
        coverage={name: min(each.coverage[name] for each in every) for name in first.coverage},
        served={name: min(each.served.get(name, 1.0) for each in every) for each in every for name in each.served},
    )


def replace_interval(found: Confirmation, fitted: Crossfit) -> Confirmation:
    """The confirmation with the interval, the p value and the questions needed that allow for choices that differ."""
    return replace(
        found, method=METHOD, arms=tuple(_replace_arm(arm, fitted, compute_level(found.look)) for arm in found.arms)
    )


def _replace_arm(arm: Arm, fitted: Crossfit, level: float) -> Arm:
    if math.isnan(arm.difference):
        return arm
    low, high = fitted.compute_interval(arm.difference, level)
    p = fitted.compute_p_value(arm.difference)
    needed = estimate_count(arm.difference, fitted.error * math.sqrt(fitted.groups))
    # p is not adjusted: beside the baseline a crossfit confirms nobody else.
    return replace(arm, difference_low=low, difference_high=high, p=p, adjusted=p, needed=needed)


@dataclass(frozen=True)
class _Table:
    """Candidates × groups of questions: scores, more being better, those of what is handed on, and costs."""

    scores: Scores
    handed: Scores | None
    costs: Scores

    @classmethod
    def build(cls, candidates: Sequence[Candidate], sign: float, groups: Ints) -> _Table:
        every = [each.handed for each in candidates if each.handed is not None]
        lists = [average_groups(each.scores, groups) for each in candidates]
        handed = np.stack([average_groups(each, groups) for each in every]) if len(every) == len(candidates) else None
        costs = np.array([each.cost for each in candidates])
        return cls(sign * np.stack(lists), None if handed is None else sign * handed, costs)

    def judge(self, sample: NDArray[np.int_], folds: NDArray[np.int_]) -> NDArray[np.int_]:
        """For each column of the sample the row that the columns of other folds select."""
        rows = np.zeros(len(sample), int)
        for fold in np.unique(folds):
            others = sample[folds != fold]
            # A sample may be of one fold alone, and then there is nothing to choose by.
            rows[folds == fold] = self.select(others) if len(others) > 1 else 0
        return rows

    def select(self, columns: NDArray[np.int_]) -> int:
        """The row that `select_finalists` recommends by these columns: the cheapest of those tied with the best."""
        # Rounded, since sums of the same numbers in another order differ in their last digit: of equal means the first
        # is taken, as the study does.
        means: Scores = np.nanmean(self.scores[:, columns], axis=1).round(DIGITS)
        best = int(np.argmax(means))
        tied = _find_tied(self.scores[:, columns], best)
        if self.handed is not None:
            tied &= _find_tied(self.handed[:, columns], best)
        tied[best] = True
        tied &= self.costs <= (1 + NEGLIGIBLE) * self.costs[tied].min()
        rows = np.flatnonzero(tied)
        return int(rows[means[rows].argmax()])

    def compare(self, sample: NDArray[np.int_], rows: NDArray[np.int_], baseline: int) -> float:
        """The mean difference of what judges each column from the baseline."""
        return float(np.nanmean(self.scores[rows, sample] - self.scores[baseline, sample]))


def _find_tied(scores: Scores, best: int) -> NDArray[np.bool_]:
    """Which rows are behind the best by no more than the standard error of the difference, as `paired.is_tied`."""
    behind = scores[best] - scores
    known = np.maximum(1, (~np.isnan(behind)).sum(axis=1))
    error = np.nanstd(behind, axis=1, ddof=1) / np.sqrt(known)
    tied: NDArray[np.bool_] = np.nanmean(behind, axis=1) <= error
    return tied
