"""Dev selects, test confirms: which configurations go to the unseen questions, and what these allow to say.

What is recommended is decided on the dev questions alone, so its difference on the test questions is not the greatest
of several: it needs no allowance for having been selected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.analysis import paired
from rag_opt.analysis.formats import format_cost, format_signed, round_count

if TYPE_CHECKING:
    from rag_opt.analysis.selection import Selection
    from rag_opt.records.documents import Ints, Scores

BEST, TIED, BASELINE = "best", "tied", "baseline"
UNTESTED: Mapping[str, Any] = {
    **dict.fromkeys(("low", "high", "difference_low", "difference_high", "p"), math.nan),
    "needed": None,
}
"""What is not known of a metric that has one value for all questions."""

MANY = 10_000
"""More questions than this are told as such."""


@dataclass(frozen=True)
class Arm:
    """A configuration on the test questions, and against the baseline (difference in the metric's own unit).

    `p` is the paired randomisation test's, `adjusted` for there being several comparisons; `needed` are the questions
    that would show this difference. For the baseline itself the comparison is nan. `marks` say where it lies on the
    front of several objectives.
    """

    role: str
    trial: int
    words: tuple[str, ...]
    dev: float
    test: float
    low: float
    high: float
    cost: float
    coverage: float
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    p: float = math.nan
    adjusted: float = math.nan
    outcome: tuple[int, int, int] = (0, 0, 0)
    needed: int | None = None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confirmation:
    """The finalists on the questions the search never saw; `sign` is 1 where more is better, -1 where less is.

    `best` is the trial that dev found best (-1: not kept). `baseline_kept` is False where the baseline breaks a
    constraint: it is measured all the same, but is no choice. `questions` are the different ones of those `asked` (0:
    not kept, as in older findings). `alike`: as in the selection.
    """

    metric: str
    sign: float
    cost: str
    questions: int
    recommended: int
    all_tied: int
    arms: tuple[Arm, ...]
    baseline_kept: bool = True
    best: int = -1
    asked: int = 0
    alike: int = 0

    def get_arm(self, trial: int) -> Arm:
        """The arm of a trial."""
        return next(arm for arm in self.arms if arm.trial == trial)

    @property
    def chosen(self) -> Arm:
        return self.get_arm(self.recommended)

    @property
    def baseline(self) -> Arm | None:
        return next((arm for arm in self.arms if arm.role == BASELINE), None)

    @property
    def shown(self) -> bool:
        """Whether the recommended one is better than the baseline beyond doubt, all comparisons considered."""
        arm = self.chosen
        edge = arm.difference_low if self.sign > 0 else -arm.difference_high
        return arm.adjusted <= 1 - paired.LEVEL and edge > 0

    @property
    def worse(self) -> bool:
        """Whether the recommended one is worse than the baseline beyond doubt."""
        arm = self.chosen
        edge = arm.difference_high if self.sign > 0 else -arm.difference_low
        return arm.adjusted <= 1 - paired.LEVEL and edge < 0

    def format_evidence(self) -> str:
        """What the evidence allows to say."""
        arm = self.chosen
        different = "different " if self.asked > self.questions else ""
        where = f"on {self.questions} {different}questions the search never saw"
        if self.baseline is None:
            return f"{self.metric} {arm.test:.4f} {where}; the baseline was not completed: nothing to compare with"
        if arm.role == BASELINE:
            return f"{self.metric}: the baseline stays: no configuration was better beyond noise and as cheap"
        pairs = sum(arm.outcome)
        if pairs < 2:
            return f"{self.metric}: nothing can be shown with {pairs} {different}questions kept to confirm; bring more"
        where = f"on {pairs} {different}questions the search never saw"
        apart = "" if self.baseline_kept else " (the baseline itself breaks a constraint)"
        return f"{self.metric}: {self._format_difference(arm, where)}{apart}"

    def _format_difference(self, arm: Arm, where: str) -> str:
        difference, low, high = map(format_signed, (arm.difference, arm.difference_low, arm.difference_high))
        span = f"{difference} [{low}, {high}]"
        if math.isnan(arm.p):
            return (
                f"{format_signed(arm.difference)} against the baseline (one measurement for all questions: no interval)"
            )
        if arm.difference_low == arm.difference_high == 0.0:
            return f"no difference from the baseline {where}"
        if self.shown:
            return f"better than the baseline by {span} {where}"
        if self.worse:
            return f"worse than the baseline by {span} {where}{'; keep the baseline' if self.baseline_kept else ''}"
        needed = _format_needed(arm.needed, sum(arm.outcome))
        return f"no difference from the baseline could be shown {where}: {span}{needed}"

    def explain_choice(self) -> str:
        """Why this one is recommended."""
        arm = self.chosen
        name = f"trial {arm.trial}" + (" (the baseline)" if arm.role == BASELINE else "")
        if not self.all_tied:
            return f"{name}: no other is within noise of it on the questions that were searched"
        if arm.trial == (self.arms[0].trial if self.best < 0 else self.best):
            return f"{name}: the best; of {self.all_tied} tied with it within noise none is cheaper ({self.cost})"
        told = f"{name}: the cheapest of {self.all_tied + 1} tied within noise: {self.cost} {format_cost(arm.cost)}"
        best = next((other for other in self.arms if other.trial == self.best), self.arms[0])
        return told if best is arm else f"{told}, against {format_cost(best.cost)} of the best, trial {best.trial}"

    def explain_alike(self) -> str:
        """What there is to say of an objective that tells no configuration from another."""
        arm = self.chosen
        return (
            f"Nothing to choose by: all {self.alike} configurations have the very same {self.metric} for every "
            f"question; trial {arm.trial} is as cheap as any ({self.cost} {format_cost(arm.cost)}). Choose "
            "objective.metrics that tell them apart"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, node: Mapping[str, Any]) -> Confirmation:
        """The confirmation of such containers."""
        lists = ("words", "outcome", "marks")
        arms = (Arm(**{**arm, **{key: tuple(arm[key]) for key in lists if key in arm}}) for arm in node["arms"])
        return cls(**{**node, "arms": tuple(arms)})


def _format_needed(count: int | None, asked: int) -> str:
    # So many there were: what was in the way is that several configurations were compared.
    if count is None or count <= asked:
        return ""
    return (
        f"; more than {MANY:,} would be needed" if count > MANY else f"; about {round_count(count):,} would be needed"
    )


@dataclass(frozen=True)
class MeasuredConfiguration:
    """A configuration measured on the test questions."""

    role: str
    trial: int
    words: tuple[str, ...]
    dev: float
    cost: float
    scores: Scores
    coverage: float = 1.0
    marks: tuple[str, ...] = ()


def build_confirmation(
    metric: str,
    sign: float,
    cost: str,
    selection: Selection,
    measured: Sequence[MeasuredConfiguration],
    seed: int,
    resamples: int = paired.RESAMPLES,
    groups: Ints | None = None,
    *,
    once: bool = False,
) -> Confirmation:
    """What the test questions say of these configurations, each against the one whose role is the baseline.

    Questions of one of the `groups` repeat each other: they count as one. A metric that is measured `once` for all
    questions gets differences, and neither intervals nor tests.
    """
    baseline = next((each for each in measured if each.role == BASELINE), None)
    arms = [_build_arm(each, baseline, seed, resamples, groups) for each in measured]
    arms = [replace(arm, **UNTESTED) for arm in arms] if once else arms
    corrected = _adjust_p_values({arm.trial: arm.p for arm in arms if not math.isnan(arm.p)}, selection.recommended)
    final = tuple(
        replace(arm, adjusted=corrected.get(arm.trial, math.nan), outcome=_orient_outcome(arm.outcome, sign))
        for arm in arms
    )
    count = len(paired.average_groups(measured[0].scores, groups))
    found = Confirmation(metric, sign, cost, count, selection.recommended, selection.all_tied, final)
    return replace(found, best=selection.best, asked=len(measured[0].scores), alike=selection.alike)


def adjust_confirmations(found: Sequence[Confirmation]) -> tuple[Confirmation, ...]:
    """The confirmations of several objectives, their p values adjusted for all comparisons of all objectives, by Holm.

    None comes first: a recommended one that is no better in one objective may be so in another. One stays as it is.
    """
    if len(found) < 2:
        return tuple(found)
    keys = [(place, arm) for place, each in enumerate(found) for arm in each.arms if not math.isnan(arm.p)]
    adjusted = {
        (place, arm.trial): p
        for (place, arm), p in zip(keys, paired.adjust_holm([arm.p for _, arm in keys]), strict=True)
    }
    return tuple(
        replace(
            each, arms=tuple(replace(arm, adjusted=adjusted.get((place, arm.trial), math.nan)) for arm in each.arms)
        )
        for place, each in enumerate(found)
    )


def _adjust_p_values(p_values: Mapping[int, float], first: int) -> dict[int, float]:
    """By trial the p value adjusted for there being several: the chance of any false claim stays at most 5 %.

    The recommended one was named before the test, so it is tested first and alone; only where that shows something do
    the others count, by Holm among themselves (a fixed sequence, Maurer, Hothorn and Lehmacher 1995).
    """
    others = [trial for trial in p_values if trial != first]
    gate = p_values.get(first, 0.0)
    held = zip(others, paired.adjust_holm([p_values[trial] for trial in others]), strict=True)
    return {**({first: gate} if first in p_values else {}), **{trial: max(gate, p) for trial, p in held}}


def _drop_missing(scores: Scores, groups: Ints | None) -> tuple[Scores, Ints | None]:
    """The scores that were measured, and their groups."""
    known = ~np.isnan(scores)
    return scores[known], None if groups is None else groups[known]


def _build_arm(
    one: MeasuredConfiguration, baseline: MeasuredConfiguration | None, seed: int, resamples: int, groups: Ints | None
) -> Arm:
    own, own_groups = _drop_missing(one.scores, groups)
    low, high = paired.bootstrap_interval(own, seed, resamples, own_groups)
    test = float(own.mean()) if len(own) else math.nan
    arm = Arm(one.role, one.trial, one.words, one.dev, test, low, high, one.cost, one.coverage, marks=one.marks)
    if baseline is None or one is baseline:
        return arm
    apart, pairs = _drop_missing(one.scores - baseline.scores, groups)
    if not len(apart):
        return arm
    difference_low, difference_high = paired.bootstrap_interval(apart, seed, resamples, pairs)
    compared: dict[str, Any] = {
        "difference": float(apart.mean()),
        "difference_low": difference_low,
        "difference_high": difference_high,
        "p": paired.compute_p_value(apart, seed, resamples, pairs),
        "outcome": paired.count_wins(apart, 1.0, pairs),
        "needed": paired.estimate_sample_size(apart, pairs),
    }
    return replace(arm, **compared)


def _orient_outcome(outcome: tuple[int, int, int], sign: float) -> tuple[int, int, int]:
    up, down, level = outcome
    return (up, down, level) if sign > 0 else (down, up, level)
