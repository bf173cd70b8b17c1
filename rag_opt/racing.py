"""Stopping a trial as soon as its questions show that it will not win, however often one looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rag_opt.errors import ConfigError
from rag_opt.records import Scores

TUNED_FOR = 50
"""Questions at which the confidence sequence is narrowest."""


@dataclass(frozen=True)
class Race:
    """A trial is stopped when it is dominated with confidence: in every objective no better than an earlier trial.

    Paired question by question. `alpha` bounds the chance that a trial which is not worse is ever stopped, over all
    looks together; `least` is the number of questions before the first look.
    """

    alpha: float = 0.02
    least: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ConfigError(f"pruner: alpha must be above 0 and below 1, not {self.alpha}")
        if self.least < 2:
            raise ConfigError(f"pruner: least must be at least 2 questions, not {self.least}")

    def lost(self, ours: Mapping[str, Scores], theirs: Mapping[str, Scores], directions: Mapping[str, float]) -> bool:
        """Whether ours, over its first questions, is dominated by theirs; `directions` has 1 where more is better.

        Questions measured for one of them only do not count.
        """
        bounds = [self._best_case(sign * _paired(ours[name], theirs[name])) for name, sign in directions.items()]
        return all(bound <= 0 for bound in bounds) and any(bound < 0 for bound in bounds)

    def _best_case(self, ahead: Scores) -> float:
        """The most that we may be ahead by on average."""
        return math.inf if len(ahead) < self.least else float(ahead.mean()) + radius(ahead, self.alpha)


def radius(values: Scores, alpha: float) -> float:
    """How far the true mean may lie above the values', at every look at once; 0 where all are equal.

    The one-sided asymptotic confidence sequence with a normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
    2024, Annals of Statistics 52:2613).
    """
    count = len(values)
    spread = float(np.std(values))
    reach = -2 * math.log(2 * alpha)
    scale = (reach + math.log(reach + 1)) / TUNED_FOR if reach > 0 else 1 / TUNED_FOR
    grown = count * scale + 1
    return spread * math.sqrt(2 * grown / (count**2 * scale) * math.log(1 + math.sqrt(grown) / (2 * alpha)))


def _paired(ours: Scores, theirs: Scores) -> Scores:
    ahead: Scores = ours - theirs[: len(ours)]
    return ahead[~np.isnan(ahead)]
