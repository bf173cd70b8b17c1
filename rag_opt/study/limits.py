"""When a search is over, and why."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import optuna

from rag_opt.analysis import history
from rag_opt.config.enumeration import count_configurations
from rag_opt.storages.attributes import get_study_attributes
from rag_opt.study import terminator
from rag_opt.study.sampling import build_sampler
from rag_opt.study.scheduler import Scheduler, count_measured, get_running, has_waiting

if TYPE_CHECKING:
    from rag_opt.storages.snapshot import StudySnapshot
    from rag_opt.study.plan import Plan
    from rag_opt.study.spending import Spending

# All but the first RANDOM_AFTER are drawn at random, so they speak of the space, not of the sampler.
GIVE_UP_AFTER = 200
"""Repeats in a row after which the space counts as exhausted."""


@dataclass
class Limits:
    """Trials, time, money, configurations and what is still to be gained, as one process looks at them.

    `repeated`: how many of its draws in a row have repeated what was measured.
    """

    plan: Plan
    study: optuna.Study
    scheduler: Scheduler
    spending: Spending
    # Of this command: one that resumes a study has the whole timeout again.
    start: float = field(default_factory=time.monotonic)
    repeated: int = 0
    _looked: int = -1
    _size: int = 0
    _enough: bool = False

    def __post_init__(self) -> None:
        self._size = count_configurations(self.plan.space, self.plan.settings.n_trials)

    def is_over(self, now: StudySnapshot, *, exhausted: bool) -> bool:
        """Whether no trial is to begin any more; `exhausted`: there is nothing left to try."""
        # While a worker's end is in doubt (PostgreSQL) somebody stays: its trial would be left RUNNING otherwise.
        complete = count_measured(now) >= self.plan.settings.n_trials and self.scheduler.certain
        # What others are at may end with them, and is then the last that is left to try.
        left = get_running(now) or has_waiting(now)
        return (
            complete
            or self._is_timed_out()
            or (exhausted and not left)
            or not self.spending.can_start_trial(now)
            or self._should_terminate(now)
        )

    def _should_terminate(self, now: StudySnapshot) -> bool:
        """Whether the search is to end early; looked at once for each number of measured trials."""
        count = count_measured(now)
        # The gain takes fitting a Gaussian process: too much for each look of a worker that waits for a place.
        if count != self._looked and not has_waiting(now):
            target, self._looked = self.plan.objective.names[0], count
            groups = self.plan.dev.questions.groups
            self._enough = terminator.should_terminate(self.study, now, target, self.plan.settings, count, groups)
        return self._enough

    def is_exhausted(self, now: StudySnapshot) -> bool:
        """Whether there is nothing left to try: all was, the sampler said so once, or it only repeats itself."""
        # By class: what grid search has exhausted another sampler may search on with the next command.
        said = get_study_attributes(self.study).exhausted == type(build_sampler(self.plan.config, 0)).__name__
        return said or self.repeated >= GIVE_UP_AFTER or self._count_exhausted(now) > 0

    def _count_exhausted(self, now: StudySnapshot) -> int:
        """How many configurations the space holds where all of them were tried, 0 elsewhere."""
        tried = history.count_tried(now)
        # Counted as far as n_trials at first: those that were given up take no place, so more may be tried.
        found = count_configurations(self.plan.space, tried + 1) if tried >= self._size else tried + 1
        return found if found <= tried else 0

    def _is_timed_out(self) -> bool:
        limit = self.plan.settings.timeout
        return limit is not None and time.monotonic() - self.start > limit

    def get_stop_reasons(self, now: StudySnapshot) -> list[str]:
        """Why the search has ended before all its trials were measured, in a line each; [] where it has not."""
        budget, said = self.spending.budget, terminator.format_stop_reason(self.study)
        lines = [f"{budget.empty}; the search stops here, a greater budget goes on from here"] if budget.empty else []
        lines += [f"{said}; stopping=none goes on from here"] if said else []
        if (whole := self._count_exhausted(now)) and count_measured(now) < self.plan.settings.n_trials:
            lines.append(f"nothing new to try: all {whole} configurations of the space were tried")
        elif self.repeated >= GIVE_UP_AFTER:
            lines.append(f"nothing new to try: {GIVE_UP_AFTER} draws in a row repeated what was measured")
        return lines
