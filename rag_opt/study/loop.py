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
from rag_opt.config.overrides import format_overrides
from rag_opt.errors import StorageError
from rag_opt.storages.attributes import TrialAttributes, get_attributes
from rag_opt.storages.opening import DATABASE_ERRORS
from rag_opt.storages.snapshot import StudySnapshot
from rag_opt.study import eta, failures
from rag_opt.study.limits import Limits
from rag_opt.study.measuring import Measuring
from rag_opt.study.messages import format_trial
from rag_opt.study.outcomes import Outcomes
from rag_opt.study.power import format_power
from rag_opt.study.recording import Recorder
from rag_opt.study.runtime import Runtime
from rag_opt.study.scheduler import Scheduler, count_measured, has_waiting
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
class Session(Runtime):
    """One process that measures, alone or beside others: the loop, and what is said of each trial."""

    spending: Spending = field(init=False)
    scheduler: Scheduler = field(init=False)
    limits: Limits = field(init=False)
    measuring: Measuring = field(init=False)
    outcomes: Outcomes = field(init=False)
    _now: StudySnapshot = field(init=False)

    def __post_init__(self) -> None:
        plan, study, files = self.plan, self.study, self.plan.get_files(self.study)
        self.spending = Spending(plan, study)
        self.scheduler = Scheduler(plan, study, self.member, self.origin)
        self.limits = Limits(plan, study, self.scheduler, self.spending)
        self.measuring = Measuring(study, Recorder(plan, files), self.spending, self.stopping)
        self.outcomes = Outcomes(plan, study, files, self.scheduler.since)

    def run(self) -> None:
        """Trials until n_trials were measured, the time is over, or there is nothing left to try."""
        total = self.plan.settings.n_trials
        self._now = StudySnapshot(self.study)
        # Only in here there is a batch whose end a first Ctrl-C can wait for.
        self.stopping.gentle = True
        try:
            with self.screen.show_trials(total, count_measured(self._now)) as line:
                while (claim := self._claim_trial(line)) is not Turn.OVER:
                    if isinstance(claim, Claim):
                        line.describe(f"trial {claim.trial.number}")
                        self._run_trial(claim, line.describe)
                        self._report_end(claim.trial, line)
                        self._pause(claim.trial)
                    elif claim is Turn.WAIT:
                        time.sleep(POLL)
        except KeyboardInterrupt:
            # Given back by this process: ended as a dead one's, the trial would count as a death of its configuration.
            with self.member.take_turn():
                self.scheduler.interrupt_own_trial()
            raise
        finally:
            self.stopping.gentle = False
        for reason in self.limits.get_stop_reasons(self._now):
            self.screen.report_line(reason)

    def _claim_trial(self, line: Line) -> Claim | Turn:
        """A trial that no other process has; alone in here among all processes."""
        self.stopping.check()
        with self.member.take_turn():
            # First: a dead process's trial holds a place, and its configuration is what is to be asked for next.
            self._now = self.scheduler.interrupt_dead_trials()
            exhausted = self.limits.is_exhausted(self._now)
            if self.limits.is_over(self._now, exhausted=exhausted):
                return Turn.OVER
            failures.check_outage(self._now, self.scheduler.since)
            if not self.scheduler.has_place(self._now) or (exhausted and not has_waiting(self._now)):
                return Turn.WAIT
            trial = self.scheduler.ask_trial(self._now, last=exhausted)
            if not self.member.has_turn():
                # The server was restarted meanwhile, so others may have taken the same place.
                self.outcomes.requeue(trial)
                return Turn.AGAIN
            try:
                # Still in its turn: outside, two processes could draw the same configuration unseen by each other.
                if (values := self._sample_values(trial)) is not None:
                    return Claim(trial, values)
            except (StorageError, *DATABASE_ERRORS):
                # The database is away: the trial could not be told as failed either.
                raise
            except UpdateFinishedTrialError:
                return self._report_lost_trial(trial)
            except Exception as error:
                # A sampler may fail in any way; the study goes on.
                self.outcomes.fail(trial, error)
        # Outside its turn: a callback may wait for a tracking server, and no other process should wait with it.
        self._report_end(trial, line)
        return Turn.AGAIN

    def _sample_values(self, trial: Trial) -> dict[str, Value] | None:
        """The values that the trial is to measure; None where they were measured before, and it is told so."""
        values = self.plan.space.suggest(trial)
        if not get_attributes(trial).origin:
            # After the last parameter, never before: `is_sampled` takes an origin as the sign that all were drawn.
            TrialAttributes.origin.save(trial, history.find_origin(self.study.sampler, trial))
        earlier = history.find_measured(self._now, values)
        self.limits.repeated = 0 if earlier is None else self.limits.repeated + 1
        if earlier is None:
            return values
        self.outcomes.tell_repeat(trial, earlier)
        return None

    def _report_lost_trial(self, trial: Trial) -> Turn:
        """A restart of the database took this process's locks, and another has ended the trial."""
        self.screen.report_line(
            f"trial {trial.number}: taken for a dead process's meanwhile, so its place was given again"
        )
        return Turn.AGAIN

    def _run_trial(self, claim: Claim, describe: Callable[[str], None]) -> None:
        try:
            self._measure(claim, describe)
        except UpdateFinishedTrialError:
            self._report_lost_trial(claim.trial)

    def _measure(self, claim: Claim, describe: Callable[[str], None]) -> None:
        try:
            values = self.measuring.measure_trial(claim.trial, format_overrides(claim.values), self._now, describe)
        except (KeyboardInterrupt, StorageError, StorageInternalError, UpdateFinishedTrialError):
            # No failure of the configuration: the process is to end, the database is away, or another ended the trial.
            raise
        except BaseException as error:
            # A trial may fail in any way that its components can, even by leaving; the study goes on.
            if self.spending.budget.empty:
                # Its place is taken again once there is a greater budget.
                self.outcomes.requeue(claim.trial)
            else:
                self.outcomes.fail(claim.trial, error)
        else:
            self.outcomes.tell(claim.trial, TrialState.PRUNED if values is None else TrialState.COMPLETE, values)

    # A repeat of a trial that is still being measured ends as FAIL, and has not failed.
    def _report_end(self, trial: Trial, line: Line) -> None:
        """Have everyone know of a trial that has ended."""
        self._now = StudySnapshot(self.study)
        finished = self._now.get_trials()[trial.number]
        for callback in self.callbacks:
            callback(self.study, finished)
        left = self.plan.settings.n_trials - count_measured(self._now)
        line.advance(
            format_trial(self.plan, self._now, finished, self.spending.format_spending(left)),
            left,
            count_measured(self._now),
            after=eta.estimate_seconds(self.plan, self._now),
            failed=finished.state == TrialState.FAIL and get_attributes(finished).repeats is None,
        )
        origin = get_attributes(finished).origin
        told = [eta.format_estimate(self.plan, self._now)] if origin == history.BASELINE else []
        if origin in (history.BASELINE, history.SEED):
            told.append(format_power(self.plan, self.plan.get_files(self.study), self._now))
        for said in filter(None, told):
            self.screen.report_line(said)

    def _pause(self, trial: Trial) -> None:
        """Give what has failed around this trial a moment to come back."""
        cause = failures.get_outage(self._now.get_trials()[trial.number])
        row = failures.get_failure_streak(self._now, self.scheduler.since)
        # Where a configuration may be at fault another one is measured first; after ALIKE failures the study stops.
        if cause is None or not cause.certain or len(row) >= failures.ALIKE:
            return
        until = time.monotonic() + failures.PAUSES[min(len(row), len(failures.PAUSES)) - 1]
        # In short steps: a first Ctrl-C raises nothing by itself here, it is found by `check`.
        while time.monotonic() < until:
            self.stopping.check()
            time.sleep(min(POLL, max(0.0, until - time.monotonic())))
