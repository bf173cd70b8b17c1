"""The loop of a study: ask, run, tell; resumable at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from rag_opt.analysis import history
from rag_opt.config.overrides import words
from rag_opt.errors import StorageError
from rag_opt.storages.attributes import TrialAttributes, attributes_of
from rag_opt.storages.moment import Moment
from rag_opt.storages.opening import DATABASE_ERRORS
from rag_opt.study import failures, outlook
from rag_opt.study.at_work import AtWork
from rag_opt.study.limits import Limits
from rag_opt.study.measuring import Measuring
from rag_opt.study.messages import told
from rag_opt.study.noting import Noting
from rag_opt.study.outcomes import Outcomes
from rag_opt.study.scheduler import Places, measured, waiting
from rag_opt.study.spending import Spending

if TYPE_CHECKING:
    from rag_opt.config.search_space import Value
    from rag_opt.console.progress import Line

POLL = 0.1
"""Seconds between two looks at whether a place has become free."""


class Claim(NamedTuple):
    """A trial of this process, with the values that it measures."""

    trial: Trial
    values: dict[str, Value]


class Turn(Enum):
    """What a process does that was given no trial."""

    WAIT = "others are at the last ones, which may die"
    AGAIN = "the trial is finished already: it repeats another one, or failed as it was drawn"
    OVER = "no more trials"


@dataclass
class Session(AtWork):
    """One process that measures, alone or beside others: the loop, and what is said of each trial."""

    spending: Spending = field(init=False)
    places: Places = field(init=False)
    limits: Limits = field(init=False)
    measuring: Measuring = field(init=False)
    outcomes: Outcomes = field(init=False)
    _now: Moment = field(init=False)

    def __post_init__(self) -> None:
        plan, study, files = self.plan, self.study, self.plan.files(self.study)
        self.spending = Spending(plan, study)
        self.places = Places(plan, study, self.gate, self.crew)
        self.limits = Limits(plan, study, self.places, self.spending)
        self.measuring = Measuring(study, Noting(plan, files), self.spending, self.stopping)
        self.outcomes = Outcomes(plan, study, files, self.places.since)

    def run(self) -> None:
        """Trials until n_trials were measured, the time is over, or there is nothing left to try."""
        total = self.plan.settings.n_trials
        self._now = Moment(self.study)
        self.stopping.gentle = True
        try:
            with self.screen.trials(total, measured(self._now)) as line:
                while (claim := self._claimed(line)) is not Turn.OVER:
                    if isinstance(claim, Claim):
                        line.describe(f"trial {claim.trial.number}")
                        self._run(claim, line.describe)
                        self._ended(claim.trial, line)
                        self._pause(claim.trial)
                    elif claim is Turn.WAIT:
                        time.sleep(POLL)
        except KeyboardInterrupt:
            with self.gate.alone():
                self.places.released()
            raise
        finally:
            self.stopping.gentle = False
        for reason in self.limits.reasons(self._now):
            self.screen.say(reason)

    def _claimed(self, line: Line) -> Claim | Turn:
        """A trial that no other process has; alone in here among all processes."""
        self.stopping.check()
        with self.gate.alone():
            self._now = self.places.swept()
            if self.limits.over(self._now):
                return Turn.OVER
            failures.check(self._now, self.places.since)
            exhausted = self.limits.exhausted(self._now)
            if not self.places.free(self._now) or (exhausted and not waiting(self._now)):
                return Turn.WAIT
            trial = self.places.asked(self._now, last=exhausted)
            if not self.gate.kept():
                # The server was restarted meanwhile, so others may have taken the same place.
                self.outcomes.give_back(trial)
                return Turn.AGAIN
            try:
                if (values := self._drawn(trial)) is not None:
                    return Claim(trial, values)
            except (StorageError, *DATABASE_ERRORS):
                raise
            except UpdateFinishedTrialError:
                return self._taken_away(trial)
            except Exception as error:
                # A sampler may fail in any way; the study goes on.
                self.outcomes.fail(trial, error)
        self._ended(trial, line)
        return Turn.AGAIN

    def _drawn(self, trial: Trial) -> dict[str, Value] | None:
        """The values that the trial is to measure; None where they were measured before, and it is told so."""
        values = self.plan.space.suggest(trial)
        if not attributes_of(trial).origin:
            TrialAttributes.origin.note(trial, history.drawn(self.study.sampler, trial))
        earlier = history.measured_before(self._now, values)
        self.limits.repeated = 0 if earlier is None else self.limits.repeated + 1
        if earlier is None:
            return values
        self.outcomes.repeat(trial, earlier)
        return None

    def _taken_away(self, trial: Trial) -> Turn:
        """A restart of the database took this process's locks, and another has ended the trial."""
        self.screen.say(f"trial {trial.number}: taken for a dead process's meanwhile, so its place was given again")
        return Turn.AGAIN

    def _run(self, claim: Claim, describe: Callable[[str], None]) -> None:
        try:
            self._measure(claim, describe)
        except UpdateFinishedTrialError:
            self._taken_away(claim.trial)

    def _measure(self, claim: Claim, describe: Callable[[str], None]) -> None:
        try:
            values = self.measuring.measured(claim.trial, words(claim.values), self._now, describe)
        except (KeyboardInterrupt, StorageError, StorageInternalError, UpdateFinishedTrialError):
            raise
        except BaseException as error:
            # A trial may fail in any way that its components can, even by leaving; the study goes on.
            if self.spending.budget.empty:
                # Its place is taken again once there is a greater budget.
                self.outcomes.give_back(claim.trial)
            else:
                self.outcomes.fail(claim.trial, error)
        else:
            self.outcomes.tell(claim.trial, TrialState.PRUNED if values is None else TrialState.COMPLETE, values)

    def _ended(self, trial: Trial, line: Line) -> None:
        """Have everyone know of a trial that has ended."""
        self._now = Moment(self.study)
        finished = self._now.get_trials()[trial.number]
        for callback in self.callbacks:
            callback(self.study, finished)
        left = self.plan.settings.n_trials - measured(self._now)
        line.advance(
            told(self.plan, self._now, finished, self.spending.outlook(left)),
            left,
            measured(self._now),
            after=outlook.seconds(self.plan, self._now),
            failed=finished.state == TrialState.FAIL and attributes_of(finished).repeats is None,
        )
        if attributes_of(finished).origin == history.BASELINE and (said := outlook.line(self.plan, self._now)):
            self.screen.say(said)

    def _pause(self, trial: Trial) -> None:
        """Give what has failed around this trial a moment to come back."""
        cause = failures.outage_of(self._now.get_trials()[trial.number])
        row = failures.in_a_row(self._now, self.places.since)
        if cause is None or not cause.certain or len(row) >= failures.ALIKE:
            return
        until = time.monotonic() + failures.PAUSES[min(len(row), len(failures.PAUSES)) - 1]
        while time.monotonic() < until:
            self.stopping.check()
            time.sleep(min(POLL, max(0.0, until - time.monotonic())))
