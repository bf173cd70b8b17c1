"""Dev selects, test confirms: which configurations go to the unseen questions, and what these allow to say.

Which one is selected is decided on the dev questions alone, so its difference on the test questions is not the greatest
of several: it needs no allowance for having been selected. Whether it is recommended, or the baseline stays: `advice`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.analysis import paired

if TYPE_CHECKING:
    from rag_opt.analysis.selection import Selection
    from rag_opt.records.documents import Ints, Scores

BEST, TIED, BASELINE = "best", "tied", "baseline"
UNTESTED: Mapping[str, Any] = {
    **dict.fromkeys(("low", "high", "difference_low", "difference_high", "p"), math.nan),
    "needed": None,
}
"""What is not known of a metric that has one value for all questions."""


@dataclass(frozen=True)
class Arm:
    """A configuration on the test questions, and against the baseline (difference in the metric's own unit).

    `p` is the paired randomisation test's, `adjusted` for there being several comparisons; `needed` are the questions
    that would show this difference. For the baseline itself the comparison is nan. `marks` say where it lies on the
    front of several objectives. `level`: behind the baseline by no more than the difference's standard error.
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
    level: bool = False


@dataclass(frozen=True)
class Confirmation:
    """The finalists on the questions the search never saw; `sign` is 1 where more is better, -1 where less is.

    `best` is the trial that dev found best, `selected` the one that it chose to confirm (-1: not kept), `recommended`
    what one should use, by the `case` of `advice`. `baseline_kept` is False where the baseline breaks a constraint: it
    is measured all the same, but is no choice. `questions` are the different ones of those `asked` (0: not kept, as in
    older findings). `alike`: as in the selection. `method`: "split", or "crossfit" where no question was kept from the
    search: the selected one's scores are then of what judges each question. `look`: which of the different choices that
    these questions have judged this is, from 1; p values and intervals allow for the others (0: findings of before
    they did). `grouped`: what counts
    as one are groups of questions that were told to belong together, and `questions` is their number.
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
    selected: int = -1
    case: str = ""
    method: str = "split"
    look: int = 0
    grouped: bool = False

    @property
    def crossfitted(self) -> bool:
        """Whether all questions were searched, and each is judged by a choice that was made without it."""
        return self.method == "crossfit"

    def get_arm(self, trial: int) -> Arm:
        """The arm of a trial."""
        return next(arm for arm in self.arms if arm.trial == trial)

    @property
    def selected_arm(self) -> Arm:
        """The configuration that dev has selected; of older findings the recommended one, which was the same."""
        return self.get_arm(self.recommended if self.selected < 0 else self.selected)

    @property
    def recommended_arm(self) -> Arm:
        return self.get_arm(self.recommended)

    @property
    def keeps_baseline(self) -> bool:
        """Whether the baseline is recommended although dev has selected another."""
        return self.recommended != self.selected_arm.trial

    @property
    def baseline(self) -> Arm | None:
        return next((arm for arm in self.arms if arm.role == BASELINE), None)

    @property
    def shown(self) -> bool:
        """Whether the selected one is better than the baseline beyond doubt, all comparisons considered."""
        arm = self.selected_arm
        # Both must agree: interval and p value come from different resamplings, and may differ at the border.
        edge = arm.difference_low if self.sign > 0 else -arm.difference_high
        return arm.adjusted <= 1 - paired.LEVEL and edge > 0

    @property
    def worse(self) -> bool:
        """Whether the selected one is worse than the baseline beyond doubt."""
        arm = self.selected_arm
        edge = arm.difference_high if self.sign > 0 else -arm.difference_low
        return arm.adjusted <= 1 - paired.LEVEL and edge < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, node: Mapping[str, Any]) -> Confirmation:
        """The confirmation of such containers."""
        lists = ("words", "outcome", "marks")
        # Findings of an older version lack what was added since.
        arms = (Arm(**{**arm, **{key: tuple(arm[key]) for key in lists if key in arm}}) for arm in node["arms"])
        return cls(**{**node, "arms": tuple(arms)})


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
    handed: Scores | None = None


def build_confirmation(
    metric: str,
    sign: float,
    cost: str,
    selection: Selection,
    measured: Sequence[MeasuredConfiguration],
    seed: int,
    resamples: int | None = None,
    groups: Ints | None = None,
    *,
    once: bool = False,
    look: int = 1,
) -> Confirmation:
    """What the test questions say of these configurations, each against the one whose role is the baseline.

    Questions of one of the `groups` repeat each other: they count as one. A metric that is measured `once` for all
    questions gets differences, and neither intervals nor tests.
    """
    baseline = next((each for each in measured if each.role == BASELINE), None)
    level, resamples = paired.compute_level(look), resamples or paired.count_resamples(look)
    arms = [_build_arm(each, baseline, seed, resamples, groups, level) for each in measured]
    arms = [
        replace(arm, level=baseline is not None and _is_level(each, baseline, sign, groups))
        for arm, each in zip(arms, measured, strict=True)
    ]
    arms = [replace(arm, **UNTESTED) for arm in arms] if once else arms
    corrected = _adjust_p_values({arm.trial: arm.p for arm in arms if not math.isnan(arm.p)}, selection.recommended)
    final = tuple(
        replace(arm, adjusted=corrected.get(arm.trial, math.nan), outcome=_orient_outcome(arm.outcome, sign))
        for arm in arms
    )
    # Their number alone, so scores that are nan do no harm.
    count = len(paired.average_groups(measured[0].scores, groups))
    found = Confirmation(metric, sign, cost, count, selection.recommended, selection.all_tied, final)
    return replace(
        found,
        best=selection.best,
        selected=selection.recommended,
        asked=len(measured[0].scores),
        alike=selection.alike,
        look=look,
    )


def spend_error(found: Confirmation) -> Confirmation:
    """The confirmation with its adjusted p values allowing for what these questions may judge at other looks, too."""
    share = paired.compute_share(found.look)
    spent = (
        # The baseline has none.
        arm if math.isnan(arm.adjusted) else replace(arm, adjusted=min(1.0, arm.adjusted / share))
        for arm in found.arms
    )
    return replace(found, arms=tuple(spent))


def _is_level(one: MeasuredConfiguration, baseline: MeasuredConfiguration, sign: float, groups: Ints | None) -> bool:
    """Whether one is as good as the baseline within noise, by what it hands on, too, where both are known.

    Of fewer than two questions nothing is known.
    """
    pairs = [(baseline.scores, one.scores)]
    if (~np.isnan(one.scores - baseline.scores)).sum() < 2:
        return False
    if baseline.handed is not None and one.handed is not None:
        pairs.append((baseline.handed, one.handed))
    return all(paired.is_tied(theirs, ours, sign, groups) for theirs, ours in pairs)


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
    the others count, by Holm among themselves (a fixed sequence, Maurer, Hothorn and Lehmacher 1995). Where that is the
    baseline itself, nothing is tested.
    """
    if first not in p_values:
        return {}
    others = [trial for trial in p_values if trial != first]
    held = zip(others, paired.adjust_holm([p_values[trial] for trial in others]), strict=True)
    return {first: p_values[first], **{trial: max(p_values[first], p) for trial, p in held}}


def _drop_missing(scores: Scores, groups: Ints | None) -> tuple[Scores, Ints | None]:
    """The scores that were measured, and their groups."""
    known = ~np.isnan(scores)
    return scores[known], None if groups is None else groups[known]


def _build_arm(
    one: MeasuredConfiguration,
    baseline: MeasuredConfiguration | None,
    seed: int,
    resamples: int,
    groups: Ints | None,
    level: float,
) -> Arm:
    own, own_groups = _drop_missing(one.scores, groups)
    low, high = paired.bootstrap_interval(own, seed, resamples, own_groups, level)
    test = float(own.mean()) if len(own) else math.nan
    arm = Arm(one.role, one.trial, one.words, one.dev, test, low, high, one.cost, one.coverage, marks=one.marks)
    if baseline is None or one is baseline:
        return arm
    apart, pairs = _drop_missing(one.scores - baseline.scores, groups)
    if not len(apart):
        return arm
    difference_low, difference_high = paired.bootstrap_interval(apart, seed, resamples, pairs, level)
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
