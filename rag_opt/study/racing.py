"""Stopping a trial as soon as its questions show that it will not win, however often one looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.analysis.paired import average_groups
from rag_opt.errors import ConfigError

if TYPE_CHECKING:
    from rag_opt.records.documents import Ints, Scores

TUNED_FOR = 50
"""Questions at which the confidence sequence is narrowest."""


@dataclass(frozen=True)
class Race:
    """A trial is stopped when it is dominated with confidence: in every objective behind an earlier trial.

    Paired question by question. Against a rival that was named beforehand, a trial which is not worse is ever stopped
    with a chance of at most `alpha`, over all looks together; several rivals share it. The best of many earlier trials
    is flattered by the same questions, which costs some of that (the simulations are in tests/unit/test_racing.py).
    `least` is the number of questions before the first look.
    """

    alpha: float = 0.01
    least: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ConfigError(f"pruner: alpha must be above 0 and below 1, not {self.alpha}")
        if not 2 <= self.least < math.inf:
            raise ConfigError(f"pruner: least must be at least 2 questions, not {self.least}")

    def is_dominated(
        self,
        ours: Mapping[str, Scores],
        rivals: Sequence[Mapping[str, Scores]],
        signs: Mapping[str, float],
        groups: Ints | None = None,
    ) -> bool:
        """Whether ours, over its first questions, is dominated by one of the rivals; `signs` is 1 where more is better.

        Questions measured for one of two only do not count; those of one of the `groups` (equal numbers) count as one.
        """
        # Losing to any rival stops a trial, so rivals share alpha; all objectives must be lost, so these need not.
        alpha = self.alpha / max(1, len(rivals))
        return any(
            all(
                self._is_behind(sign * _compute_differences(ours[name], theirs[name], groups), alpha)
                for name, sign in signs.items()
            )
            for theirs in rivals
        )

    def _is_behind(self, ahead: Scores, alpha: float) -> bool:
        # Differences that are all the same say nothing of their spread: the next question may be another.
        if len(ahead) < self.least or not np.ptp(ahead):
            return False
        return bool(ahead.mean() + confidence_radius(ahead, alpha) < 0)


def format_pruner_warning(pruner: object, names: Sequence[str]) -> str:
    """What to say of a pruner that can stop no trial; "" where it can, or is meant to stop none.

    A trial of several objectives has no single value that Optuna's pruners could compare.
    """
    kind = type(pruner).__name__
    if len(names) < 2 or kind == "NopPruner":
        return ""
    return f"pruner: {kind} stops no trial of several objectives ({', '.join(names)}); pruner=race does"


def confidence_radius(values: Scores, alpha: float) -> float:
    """How far the true mean may lie above the values', at every look at once; `values` are one or more, none nan.

    The one-sided asymptotic confidence sequence with a normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
    2024, Annals of Statistics 52:2613).
    """
    count = len(values)
    spread = float(np.std(values))
    # The variance of the mixture that is best after TUNED_FOR questions; 2 alpha, as the bound has one side only.
    reach = -2 * math.log(2 * alpha)
    scale = (reach + math.log(reach + 1)) / TUNED_FOR if reach > 0 else 1 / TUNED_FOR
    grown = count * scale + 1
    return spread * math.sqrt(2 * grown / (count**2 * scale) * math.log(1 + math.sqrt(grown) / (2 * alpha)))


def _compute_differences(ours: Scores, theirs: Scores, groups: Ints | None) -> Scores:
    # Every trial is asked the questions in the same order, so a beginning pairs with a beginning.
    ahead: Scores = ours - theirs[: len(ours)]
    known = ~np.isnan(ahead)
    return average_groups(ahead[known], None if groups is None else groups[: len(ours)][known])
