"""The best configuration and the baseline on questions that the search never saw, paired question by question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rag_opt.evaluate import mean
from rag_opt.records import Evaluation, Scores

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Confirmation:
    """Test means of both, and the mean paired difference with its 95 % bootstrap interval (metric's own unit)."""

    metric: str
    direction: str
    best: float
    baseline: float
    difference: float
    low: float
    high: float
    questions: int

    @property
    def shown(self) -> bool:
        """Whether the interval lies wholly on the better side of zero."""
        return self.low > 0 if self.direction == "maximize" else self.high < 0

    def sentence(self) -> str:
        """What the evidence allows to say."""
        span = f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"
        where = f"on {self.questions} questions the search never saw"
        if self.questions < 2:
            return f"{self.metric}: nothing can be shown with {self.questions} questions kept to confirm; bring more"
        if self.difference == self.low == self.high == 0.0:
            return f"{self.metric}: no difference from the baseline {where}"
        if self.shown:
            return f"{self.metric}: better than the baseline by {span} {where}"
        return f"{self.metric}: no difference from the baseline could be shown {where}: {span}"


def confirmed(metric: str, direction: str, best: Evaluation, baseline: Evaluation, seed: int) -> Confirmation:
    """The comparison of two evaluations of the same questions; below two of them the interval is (nan, nan)."""
    ours, theirs = best.per_query[metric], baseline.per_query[metric]
    difference = ours - theirs
    difference = difference[~np.isnan(difference)]
    low, high = interval(difference, seed)
    return Confirmation(metric, direction, mean(ours), mean(theirs), mean(difference), low, high, len(difference))


def interval(values: Scores, seed: int) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean (Efron and Tibshirani 1993); (nan, nan) below two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    # One resample at a time: all at once would need gigabytes for ten thousand questions.
    resampled = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)
