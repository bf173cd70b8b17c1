"""The loop of a study: ask, run, tell; resumable at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import NamedTuple

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from rag_opt import archive, enough, failures, history, outlook, timings
from rag_opt.attributes import StudyAttributes, TrialAttributes, attributes_of, study_attributes
from rag_opt.configurations import size
from rag_opt.drift import check_fingerprints
from rag_opt.errors import StorageError
from rag_opt.evaluate import Progress, UncoveredError, check_served
from rag_opt.experiments import measured_config, replay_command
from rag_opt.gate import Gate, creating
from rag_opt.intact import check_study
from rag_opt.internals import stoppable, stopped
from rag_opt.interruptions import interrupt
from rag_opt.moment import Moment
from rag_opt.notes import name_metrics, note
from rag_opt.places import Places, measured, running, waiting
from rag_opt.plan import Plan, pruner_of, sampler_of
from rag_opt.processes import NOBODY, Crew
from rag_opt.progress import Line, Screen
from rag_opt.racing import Race
from rag_opt.results import Evaluation
from rag_opt.samplers import RagSampler
from rag_opt.search_space import Value, words
from rag_opt.spending import Spending
from rag_opt.stopping import Stopping
from rag_opt.storage import DATABASE_ERRORS, close, explained, gate_for, ledger_of, opened, rescuing
from rag_opt.telling import told
from rag_opt.trial_files import TrialFiles

POLL = 0.1
"""Seconds between two looks at whether a place has become free."""

GIVE_UP_AFTER = 200
"""Repeats in a row after which the space counts as exhausted."""

RIVALS = 5
"""Of a Pareto front so many trials are raced against."""

Callback = Callable[[optuna.Study, FrozenTrial], None]


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
class AtWork:
    """What a process at work on a study has, whether it measures or has others measure."""

    plan: Plan
    study: optuna.Study
    screen: Screen
    gate: Gate
    stopping: Stopping
    callbacks: Sequence[Callback] = ()
    crew: Crew = NOBODY


@dataclass
class Session(AtWork):
    """One process that measures, alone or beside others."""

    race: Race | None = field(init=False)
    spending: Spending = field(init=False)
    places: Places = field(init=False)
    files: TrialFiles = field(init=False)
    _now: Moment = field(init=False)
    start: float = field(default_factory=time.monotonic)
    _rivals: Sequence[FrozenTrial] = ()
    _again: int = 0
    _looked: int = -1
    _size: int = 0
    _enough: bool = False

    def __post_init__(self) -> None:
        self.race = pruner_of(self.plan.config)[1]
        self._size = size(self.plan.space, self.plan.settings.n_trials)
        self.spending = Spending(self.plan, self.study)
        self.files = self.plan.files(self.study)
        self.places = Places(self.plan, self.study, self.gate, self.crew)

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
        self._say_why()

    def _claimed(self, line: Line) -> Claim | Turn:
        """A trial that no other process has; alone in here among all processes."""
        self.stopping.check()
        with self.gate.alone():
            self._now = self.places.swept()
            if self._over():
                return Turn.OVER
            failures.check(self._now, self.places.since)
            if not self.places.free(self._now) or (self._exhausted() and not waiting(self._now)):
                return Turn.WAIT
            trial = self.places.asked(self._now, last=self._exhausted())
            if not self.gate.kept():
                # The server was restarted meanwhile, so others may have taken the same place.
                interrupt(self.study, self.study.get_trials(deepcopy=False)[trial.number])
                return Turn.AGAIN
            try:
                values = self.plan.space.suggest(trial)
                if not attributes_of(trial).origin:
                    TrialAttributes.origin.note(trial, history.drawn(self.study.sampler, trial))
                if not self._repeated(trial, values):
                    return Claim(trial, values)
            except (StorageError, *DATABASE_ERRORS):
                raise
            except UpdateFinishedTrialError:
                return self._taken_away(trial)
            except Exception as error:
                # A sampler may fail in any way; the study goes on.
                self._fail(trial, error)
        self._ended(trial, line)
        return Turn.AGAIN

    def _taken_away(self, trial: Trial) -> Turn:
        """A restart of the database took this process's locks, and another has ended the trial."""
        self.screen.say(f"trial {trial.number}: taken for a dead process's meanwhile, so its place was given again")
        return Turn.AGAIN

    def _over(self) -> bool:
        complete = measured(self._now) >= self.plan.settings.n_trials and self.places.certain
        # What others are at may end with them, and is then the last that is left to try.
        exhausted = self._exhausted() and not running(self._now) and not waiting(self._now)
        return complete or self._late() or exhausted or not self.spending.allowed(self._now) or self._settled()

    def _settled(self) -> bool:
        """Whether the search is to end early; looked at once for each number of measured trials."""
        count = measured(self._now)
        if count != self._looked and not waiting(self._now):
            target, self._looked = self.plan.objective.names[0], count
            self._enough = enough.settled(self.study, self._now, target, self.plan.settings, count)
        return self._enough

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

    def _say_why(self) -> None:
        if self.spending.budget.empty:
            self.screen.say(f"{self.spending.budget.empty}; the search stops here, a greater budget goes on from here")
        if why := enough.line(self.study):
            self.screen.say(f"{why}; stopping=none goes on from here")
        if (whole := self._whole()) and measured(self._now) < self.plan.settings.n_trials:
            self.screen.say(f"nothing new to try: all {whole} configurations of the space were tried")
        elif self._again >= GIVE_UP_AFTER:
            self.screen.say(f"nothing new to try: {GIVE_UP_AFTER} draws in a row repeated what was measured")

    def _run(self, claim: Claim, describe: Callable[[str], None]) -> None:
        try:
            self._measure(claim, describe)
        except UpdateFinishedTrialError:
            self._taken_away(claim.trial)

    def _measure(self, claim: Claim, describe: Callable[[str], None]) -> None:
        trial, seen = claim.trial, list[Progress]()
        self.plan.resources.llm.troubles.clear()
        try:
            given = words(claim.values)
            self._note(trial, given)
            self._rivals = history.front_of(self._now)[:RIVALS] if self.race else ()
            before = self.spending.paid()
            try:
                evaluation = self.plan.dev.measured(given, partial(self._batch, trial, seen, describe))
            except optuna.TrialPruned:
                self._keep_partial(trial, seen[-1])
                values = None
            else:
                self._keep(trial, evaluation, before)
                check_served(evaluation, self.plan.objective.coverage)
                values = self.plan.objective.values(evaluation)
        except (KeyboardInterrupt, StorageError, StorageInternalError, UpdateFinishedTrialError):
            raise
        except BaseException as error:
            # A trial may fail in any way that its components can, even by leaving; the study goes on.
            if self.spending.budget.empty:
                # Its place is taken again once there is a greater budget.
                interrupt(self.study, self.study.get_trials(deepcopy=False)[trial.number])
            else:
                self._fail(trial, error)
        else:
            self._tell(trial, TrialState.PRUNED if values is None else TrialState.COMPLETE, values)

    def _fail(self, trial: Trial, error: BaseException) -> None:
        """The trial ended with its reason; where that lies outside of it, it will be tried again."""
        troubles, now = self.plan.resources.llm.troubles, Moment(self.study)
        unanswered = troubles if isinstance(error, UncoveredError) else {}
        cause, reason = failures.cause_of(error, unanswered), failures.reason_of(error, troubles)
        if cause is None or failures.by_itself(now, trial.number, cause, self.places.since):
            TrialAttributes.reason.note(trial, reason)
            self._tell(trial, TrialState.FAIL)
        else:
            told = {TrialAttributes.reason.name: f"{cause.told}: {reason}", TrialAttributes.outage.name: cause.name}
            interrupt(self.study, now.get_trials()[trial.number], told=told)

    def _repeated(self, trial: Trial, values: dict[str, Value]) -> bool:
        """Tell the sampler what is known of this configuration, if it was measured before."""
        earlier = history.measured_before(self._now, values)
        if earlier is None:
            self._again = 0
            return False
        self._again += 1
        TrialAttributes.repeats.note(trial, earlier.number)
        for name in (TrialAttributes.command.name, TrialAttributes.metrics.name):
            if name in earlier.user_attrs:
                trial.set_user_attr(name, earlier.user_attrs[name])
        for name, value in earlier.constraints.items():
            trial.set_constraint(name, value)
        # Of one that is being measured nothing is known yet.
        state = earlier.state if earlier.state.is_finished() else TrialState.FAIL
        self._tell(trial, state, earlier.values if state == TrialState.COMPLETE else None)
        return True

    def _tell(self, trial: Trial, state: TrialState, values: list[float] | None = None) -> None:
        # Before it is told: a trial that counts has its scores.
        self.files.keep(trial.number)
        with stoppable(self.study):
            self.study.tell(trial, values, state)
        if stopped(self.study):
            StudyAttributes.exhausted.note(self.study, type(self.study.sampler).__name__)

    def _batch(self, trial: Trial, seen: list[Progress], describe: Callable[[str], None], progress: Progress) -> None:
        seen[:] = [progress]
        self.stopping.check()
        if progress.batch < len(self.plan.dev.questions.batches):
            self.spending.budget.check()
        name = self.plan.objective.targets[0].name
        running = progress.mean(name)
        describe(f"trial {trial.number} · {running:.4f}")
        self._report(trial, progress, name)
        over = progress.batch == len(self.plan.dev.questions.batches)
        single = len(self.study.directions) == 1 and not math.isnan(running)
        if not over and (self._lost(progress) or (single and trial.should_prune())):
            raise optuna.TrialPruned

    def _report(self, trial: Trial, progress: Progress, name: str) -> None:
        """Have the study know what is known so far: a trial that loses has said something, too."""
        running = progress.mean(name)
        if len(self.study.directions) > 1 or math.isnan(running):
            return
        if isinstance(self.study.pruner, optuna.pruners.WilcoxonPruner):
            scores = progress.scores[name]
            for step in range(len(scores) - progress.new, len(scores)):
                if not math.isnan(scores[step]):
                    trial.report(float(scores[step]), step)
        else:
            trial.report(running, progress.batch)

    def _lost(self, progress: Progress) -> bool:
        signs = self.plan.objective.signs
        known = [self.files.scores(rival, [*signs]) for rival in self._rivals]
        rivals = [scores for scores in known if set(signs) <= set(scores)]
        return self.race is not None and self.race.lost(progress.scores, rivals, signs)

    def _note(self, trial: Trial, given: Sequence[str]) -> None:
        command = replay_command([*self.plan.dev.base, *given])
        TrialAttributes.command.note(trial, command)
        note(trial, f"Replay this trial:\n\n```sh\n{command}\n```\n")
        self.files.write_config(trial.number, measured_config([*self.plan.dev.base, *given]))

    def _keep(self, trial: Trial, evaluation: Evaluation, before: Mapping[str, int]) -> None:
        means = {name: value for name, value in evaluation.means.items() if math.isfinite(value)}
        TrialAttributes.metrics.note(trial, means)
        TrialAttributes.seconds.note(trial, dict(evaluation.seconds))
        if evaluation.usage:
            TrialAttributes.paid.note(trial, self.spending.paid_since(before))
            TrialAttributes.usage.note(trial, {stage: dict(spent) for stage, spent in evaluation.usage.items()})
        if short := {name: share for name, share in {**evaluation.served, **evaluation.coverage}.items() if share < 1}:
            TrialAttributes.coverage.note(trial, short)
        self._constrain(trial, evaluation.means)
        self.files.write(trial.number, evaluation)
        timings.note(self.plan.resources.store, self.plan.shelf, trial.params, evaluation.seconds)

    def _keep_partial(self, trial: Trial, progress: Progress) -> None:
        count = len(next(iter(progress.scores.values())))
        ids = [query.id for query in self.plan.dev.questions.queries.items[:count]]
        TrialAttributes.questions.note(trial, count)
        means = {name: progress.mean(name) for name in progress.scores}
        self._constrain(trial, means)
        values = [means[name] for name in self.plan.objective.names]
        if len(values) > 1 and all(map(math.isfinite, values)):
            TrialAttributes.so_far.note(trial, values)
        self.files.write_part(trial.number, ids, progress.scores, progress.retrieved, progress.answers)

    def _constrain(self, trial: Trial, means: Mapping[str, float]) -> None:
        for constraint in self.plan.objective.constraints:
            trial.set_constraint(constraint.text, constraint.violation(means))

    def _exhausted(self) -> bool:
        """Whether there is nothing left to try: all was, the sampler said so once, or it only repeats itself."""
        said = study_attributes(self.study).exhausted == type(sampler_of(self.plan.config, 0)).__name__
        return said or self._again >= GIVE_UP_AFTER or self._whole() > 0

    def _whole(self) -> int:
        """How many configurations the space holds where all of them were tried, 0 elsewhere."""
        tried = history.tried(self._now)
        # Counted as far as n_trials at first: those that were given up take no place, so more may be tried.
        found = size(self.plan.space, tried + 1) if tried >= self._size else tried + 1
        return found if found <= tried else 0

    def _late(self) -> bool:
        limit = self.plan.settings.timeout
        return limit is not None and time.monotonic() - self.start > limit


@contextmanager
def entered(plan: Plan, *, rescues: bool = True) -> Iterator[tuple[optuna.Study, Gate]]:
    """The plan's study, opened, and this process's place in it until the end; raises a StudyError.

    Where its file is lost meanwhile, who `rescues` writes what it held to a new one.
    """
    with explained(plan.storage_url):
        directions = [StudyDirection[direction.upper()] for direction in plan.objective.directions]
        study = opened(plan.storage_url, plan.settings.name, directions)
        with creating(plan.storage_url):
            archive.prepare(study)
        gate = gate_for(study)
        try:
            with rescuing(study) if rescues else nullcontext():
                with gate.alone():
                    check_study(study, plan.settings.folder)
                    check_fingerprints(study, plan.fingerprints, plan.settings.folder, plan.parts)
                    _tell_stored(plan, study)
                    name_metrics(study, [*plan.objective.names])
                    if plan.resources.llm.budget is not None:
                        plan.resources.llm.budget.study = ledger_of(study)
                study.pruner = pruner_of(plan.config)[0]
                yield study, gate
        finally:
            gate.leave()
            close(study)


def _tell_stored(plan: Plan, study: optuna.Study) -> None:
    """Where seconds count, have the study know what is computed; once, so that what others store changes no draw."""
    sampler = sampler_of(plan.config, 0)
    if isinstance(sampler, RagSampler) and sampler.counts_seconds and study_attributes(study).stored is None:
        StudyAttributes.stored.note(study, timings.noted(plan.resources.store, plan.shelf))
