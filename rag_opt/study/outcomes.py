"""How a trial of this process ends: told to the study and its sampler, or given back to be tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from rag_opt.evaluation.coverage import UncoveredError
from rag_opt.samplers.internals import allow_stop, is_stopped
from rag_opt.storages.attributes import StudyAttributes, TrialAttributes
from rag_opt.storages.interruptions import interrupt_trial
from rag_opt.storages.snapshot import StudySnapshot
from rag_opt.study import failures

if TYPE_CHECKING:
    from rag_opt.storages.trial_files import TrialFiles
    from rag_opt.study.plan import Plan


@dataclass(frozen=True)
class Outcomes:
    """Ends the trials of one process; `since` is the first number that a trial of its session may have."""

    plan: Plan
    study: optuna.Study
    files: TrialFiles
    since: int

    def tell(self, trial: Trial, state: TrialState, values: list[float] | None = None) -> None:
        """Tell the study that the trial ended in this state, with these values where it is complete."""
        # Before it is told: a trial that counts has its scores.
        self.files.store_trial(trial.number)
        # Grid and brute-force samplers call study.stop() after their last trial, which raises outside optimize().
        with allow_stop(self.study):
            self.study.tell(trial, values, state)
        if is_stopped(self.study):
            # The flag is this process's alone; other workers and the next command have to know as well.
            StudyAttributes.exhausted.save(self.study, type(self.study.sampler).__name__)

    def fail(self, trial: Trial, error: BaseException) -> None:
        """End the trial with its reason; where that lies outside of it, it will be tried again."""
        troubles, now = self.plan.resources.llm.troubles, StudySnapshot(self.study)
        # Failed calls are the cause where a trial failed for want of answers, not of an error from elsewhere.
        unanswered = troubles if isinstance(error, UncoveredError) else {}
        cause, reason = failures.find_cause(error, unanswered), failures.format_reason(error, troubles)
        if cause is None or failures.is_own_failure(now, trial.number, cause, self.since):
            TrialAttributes.reason.save(trial, reason)
            self.tell(trial, TrialState.FAIL)
        else:
            told = {TrialAttributes.reason.name: f"{cause.told}: {reason}", TrialAttributes.outage.name: cause.name}
            # Without `retries`: those count deaths, and this process lives.
            interrupt_trial(self.study, now.get_trials()[trial.number], told=told)

    def tell_repeat(self, trial: Trial, earlier: FrozenTrial) -> None:
        """End the trial as the earlier one of its configuration did, so that the sampler knows of that."""
        TrialAttributes.repeats.save(trial, earlier.number)
        for name in (TrialAttributes.command.name, TrialAttributes.metrics.name):
            if name in earlier.user_attrs:
                trial.set_user_attr(name, earlier.user_attrs[name])
        # Optuna takes a constraint that is not set for one that is kept.
        for name, value in earlier.constraints.items():
            trial.set_constraint(name, value)
        # Of one that is being measured nothing is known yet.
        state = earlier.state if earlier.state.is_finished() else TrialState.FAIL
        self.tell(trial, state, earlier.values if state == TrialState.COMPLETE else None)

    def requeue(self, trial: Trial) -> None:
        """End the trial so that another takes its place, with the same configuration."""
        interrupt_trial(self.study, self.study.get_trials(deepcopy=False)[trial.number])
