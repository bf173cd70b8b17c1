"""What a judge's grades are worth: its agreement with known grades, its leanings, and whether it repeats itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.console.progress import track
from rag_opt.judge.agreement import compute_kappa, compute_kappa_interval
from rag_opt.judge.labelled import FIRST, LAST, LONG, Labelled
from rag_opt.metrics.aspects import BEST, WORST

if TYPE_CHECKING:
    from rag_opt.metrics.judges import Judges

AT_ONCE = 16
"""Cases after which progress is shown."""

MANY = 10
"""Cases of which one grade for all is no chance."""

STAGE = "judge check"
"""What its calls are paid under."""


@dataclass(frozen=True)
class JudgeCheck:
    """A judge measured on `asked` labelled cases, `graded` of which it gave a readable grade.

    `kappa`: weighted, with its 95 % interval. `right` and `wrong`: its mean grades of what should have 5 and 1, `reach`
    how far they are apart, with the standard `error` of that, question by question. `repeatability`: the share of cases
    graded alike each time. `length_bias`: how much better it grades the same at length; `position_bias`: how much
    better where the right document is read first. nan: not measured. `distinct`: how many different grades it gave.
    """

    aspect: str
    model: str
    asked: int
    graded: int
    kappa: float
    low: float
    high: float
    right: float
    wrong: float
    reach: float
    error: float
    repeatability: float
    length_bias: float
    position_bias: float
    distinct: int

    @property
    def is_constant(self) -> bool:
        """Whether it gave one grade to all of many cases, right and wrong ones."""
        both = not (math.isnan(self.right) or math.isnan(self.wrong))
        return both and self.graded >= MANY and self.distinct == 1

    @property
    def unreadable(self) -> float:
        """The share of cases that brought no grade."""
        return 1 - self.graded / self.asked if self.asked else math.nan

    def format_line(self) -> str:
        """The judge in one line."""
        kappa = format_kappa(self.kappa, self.low, self.high)
        lost = f", {self.unreadable:.0%} unreadable" if self.graded < self.asked else ""
        return f"judge.{self.aspect} by {self.model}: weighted kappa {kappa} on {self.asked} labelled cases{lost}"


def format_kappa(kappa: float, low: float, high: float) -> str:
    """A kappa with its interval, as far as they are known."""
    if math.isnan(kappa):
        return "unknown"
    return f"{kappa:.2f}" if math.isnan(low) else f"{kappa:.2f} [{low:.2f}, {high:.2f}]"


def explain_refusal(found: JudgeCheck, floor: float) -> str:
    """Why a judge of this kappa decides nothing, and what to do."""
    return (
        f"{found.format_line()}, below judge.floor={floor:g}: it gives {found.right:.1f} to right answers and "
        f"{found.wrong:.1f} to wrong ones, so its grades can't decide; choose another judge.model, or judge.trust=true "
        "to have it decide all the same"
    )


def explain_constant(found: JudgeCheck) -> str:
    """Why a judge that grades everything alike decides and tells nothing, though it is trusted."""
    return (
        f"as a judge of {found.aspect} it gives {found.right:g} to each of {found.graded} labelled answers, right and "
        "wrong ones alike, so its grades measure nothing"
    )


def check_judge(judges: Judges, aspect: str, cases: Sequence[Labelled]) -> JudgeCheck:
    """The judge measured on these cases, by as many verdicts each as it has repeats; kept verdicts cost nothing.

    Raises ComponentError where it can't be asked, BudgetSpentError where nothing more may be paid for.
    """
    every: list[list[int]] = []
    with track(f"judge.{aspect}: labelled cases", len(cases)) as advance:
        for start in range(0, len(cases), AT_ONCE):
            shown = [case.shown for case in cases[start : start + AT_ONCE]]
            every += judges.grade_each(aspect, shown, STAGE)
            advance(len(shown))
    return measure_agreement(aspect, judges.model, cases, every)


def measure_agreement(aspect: str, model: str, cases: Sequence[Labelled], every: Sequence[Sequence[int]]) -> JudgeCheck:
    """`check_judge` for grades that have been given; an empty row where a case brought none."""
    # Kappa takes whole grades, and a mean of several verdicts may be none.
    first = [grades[0] if grades else None for grades in every]
    known = [(case, grade) for case, grade in zip(cases, first, strict=True) if grade is not None]
    labelled = [(case.truth, grade, case.question) for case, grade in known if case.truth is not None]
    truths, grades, questions = zip(*labelled, strict=True) if labelled else ((), (), ())
    right, wrong = ([(q, g) for t, g, q in labelled if t == truth] for truth in (BEST, WORST))
    apart = _compute_reaches(right, wrong)
    several = [len({*row}) == 1 for row in every if len(row) > 1]
    return JudgeCheck(
        aspect,
        model,
        len(cases),
        len(known),
        compute_kappa(truths, grades, BEST),
        *compute_kappa_interval(truths, grades, questions, BEST),
        _mean([grade for _, grade in right]),
        _mean([grade for _, grade in wrong]),
        _mean(apart),
        float(np.std(apart, ddof=1) / math.sqrt(len(apart))) if len(apart) > 1 else math.nan,
        _mean(several),
        _compare(known, LONG, ""),
        _compare(known, FIRST, LAST),
        len({grade for _, grade in known}),
    )


def _compute_reaches(right: Sequence[tuple[int, int]], wrong: Sequence[tuple[int, int]]) -> list[float]:
    """By question, where it has both, the mean grade of its right answers less that of its wrong ones."""
    # Within a question, since some are harder to grade than others.
    both = {question for question, _ in right} & {question for question, _ in wrong}
    means = [{each: _mean([g for q, g in rows if q == each]) for each in sorted(both)} for rows in (right, wrong)]
    return [means[0][question] - means[1][question] for question in sorted(both)]


def _compare(known: Sequence[tuple[Labelled, int]], one: str, other: str) -> float:
    """How much better the kinds that end in `one` are graded than the same cases that end in `other`; nan without."""
    grades = {(case.question, case.kind): grade for case, grade in known}
    apart = [
        grade - grades[question, kind.removesuffix(one) + other]
        for (question, kind), grade in grades.items()
        if kind.endswith(one) and (question, kind.removesuffix(one) + other) in grades
    ]
    return _mean(apart)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
