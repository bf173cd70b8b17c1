"""What one should do: the rule by which a study recommends what its search has selected, or to keep the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rag_opt.analysis.formats import NEGLIGIBLE

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Arm, Confirmation

SAME, ALONE, BROKEN = "same", "alone", "broken"
BETTER, ELSEWHERE, CHEAPER = "better", "better elsewhere", "cheaper"
WORSE, UNPROVEN = "worse", "unproven"
CASES = (ALONE, SAME, BROKEN, BETTER, WORSE, ELSEWHERE, CHEAPER, UNPROVEN)
"""The cases of the rule in the order in which they are looked at; the first that holds decides."""

KEPT = (WORSE, UNPROVEN)
"""Those in which the baseline is kept, although the search has selected another configuration."""


class Advice(NamedTuple):
    """The trial that is recommended, and which case of the rule it was."""

    trial: int
    case: str


def decide(found: Sequence[Confirmation]) -> Advice:
    """What the unseen questions say to do, by all objectives, the first one first; `found` must not be empty.

    A change has to be worth it: the selected configuration is recommended where it is better than the baseline beyond
    noise, or as good within noise and cheaper, and wherever the baseline is no choice.
    """
    first = found[0]
    case = _find_case(first, found[1:])
    kept = first.baseline if case in KEPT else None
    return Advice(first.selected_arm.trial if kept is None else kept.trial, case)


def _find_case(first: Confirmation, others: Sequence[Confirmation]) -> str:
    if first.baseline is None:
        return ALONE
    if first.baseline is first.selected_arm:
        return SAME
    return _compare(first, others, first.baseline) if first.baseline_kept else BROKEN


def _compare(first: Confirmation, others: Sequence[Confirmation], baseline: Arm) -> str:
    directions = [_find_direction(each) for each in (first, *others)]
    if directions[0]:
        return BETTER if directions[0] > 0 else WORSE
    if min(directions) < 0 or not first.selected_arm.level:
        return UNPROVEN
    if max(directions) > 0:
        return ELSEWHERE
    return CHEAPER if is_cheaper(first.selected_arm, baseline) else UNPROVEN


def _find_direction(found: Confirmation) -> int:
    """1 where the selected one is better beyond noise in this objective, -1 where it is worse, 0 where neither."""
    if found.shown or found.worse:
        return 1 if found.shown else -1
    arm, baseline = found.selected_arm, found.baseline
    # One measurement for all questions has no noise to look at: a change that would not be told counts as none.
    if baseline is None or not math.isnan(arm.p) or not abs(arm.difference) > NEGLIGIBLE * abs(baseline.test):
        return 0
    return 1 if found.sign * arm.difference > 0 else -1


def is_cheaper(arm: Arm, baseline: Arm) -> bool:
    """Whether one costs less than the other, by more than what is told as no change; False where either is unknown."""
    # A cost that was not measured is inf, and nothing is cheaper than that.
    return math.isfinite(baseline.cost) and arm.cost < (1 - NEGLIGIBLE) * baseline.cost
