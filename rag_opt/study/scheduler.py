"""Which trial comes next: decided by one process at a time, from what the storage says and nothing else.

So n_trials is met exactly, however many processes work on a study and die: ended places are given again, to the same
configuration where it was drawn already.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from rag_opt.analysis import history
from rag_opt.analysis.history import BASELINE, SEED
from rag_opt.config.enumeration import count_configurations, iterate_configurations
from rag_opt.samplers.internals import get_enqueued_params
from rag_opt.storages.attributes import TrialAttributes, get_attributes
from rag_opt.storages.interruptions import interrupt_trial, snapshot_sampler
from rag_opt.storages.locks import Life, Member
from rag_opt.storages.processes import WorkerOrigin, get_worker, is_named
from rag_opt.storages.snapshot import StudySnapshot, count_finished, is_sampled
from rag_opt.study import failures
from rag_opt.study.sampling import build_sampler, derive_seed

if TYPE_CHECKING:
    from rag_opt.config.search_space import Value
    from rag_opt.study.plan import Plan

RANDOM_AFTER = 5
"""Repeats in a row after which a configuration is drawn at random."""


WALKED = 5_000
"""In a space of fewer configurations one that is left is looked up: drawing would mostly repeat others."""


@dataclass
class Scheduler:
    """Hands out a study's trials to one process; its methods are called in its turn."""

    plan: Plan
    study: optuna.Study
    member: Member
    origin: WorkerOrigin
    since: int = 0
    """The first number that a trial of this session may have."""
    _doubtful: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.since = len(self.study.get_trials(deepcopy=False))

    def interrupt_dead_trials(self) -> StudySnapshot:
        """The trials as they are, those of dead processes ended."""
        now = StudySnapshot(self.study)
        # Asked once a turn: a lock may go between two looks, and the decisions of one turn must agree.
        lives = {trial.number: self.member.get_life(get_worker(trial)) for trial in get_running(now)}
        self._doubtful = {number for number, life in lives.items() if life is Life.DOUBTFUL}
        dead = [trial for trial in get_running(now) if lives[trial.number] is Life.DEAD]
        for trial in dead:
            interrupt_trial(self.study, trial, self.plan.settings.retries)
        return StudySnapshot(self.study) if dead else now

    def interrupt_own_trial(self) -> None:
        """This process's own trial ended, if it has one; its place is free."""
        for trial in get_running(StudySnapshot(self.study)):
            # A signal may come between the making of a trial and its naming. This is our turn, so one without a name
            # is ours, or a dead process's.
            if get_worker(trial) == self.member.me or not is_named(trial):
                interrupt_trial(self.study, trial)

    @property
    def certain(self) -> bool:
        """Whether none of the running trials may yet turn out to be a dead process's."""
        return not self._doubtful

    def has_place(self, now: StudySnapshot) -> bool:
        """Whether a trial may begin: one is missing, and what a lone process would draw next is settled."""
        busy = {trial.number for trial in get_running(now)}
        # If all that run may be dead, their trials may come next: a draw now could differ from an uninterrupted one.
        lone = bool(busy) and busy <= self._doubtful
        return count_measured(now) + len(busy) < self.plan.settings.n_trials and not lone

    def ask_trial(self, now: StudySnapshot, *, last: bool = False) -> Trial:
        """A new trial of this process: a waiting one, one that is tried again, a seed, or a draw.

        `last`: there is nothing left to draw.
        """
        later = self._find_postponed(now, last=last)
        # Interrupted trials don't count: whoever takes such a place draws with the seed that it had.
        # Given up ones do: with the same seed random search would draw their configuration again.
        place = count_finished(now) + len(get_running(now)) + history.count_outcomes(now)["given up"] + len(later)
        # A sampler that has fallen for one configuration would propose it for ever.
        own = history.count_latest_repeats(now) < RANDOM_AFTER
        config = self.plan.config
        self.study.sampler = build_sampler(config, place) if own else RandomSampler(derive_seed(config, place))
        # QMC counts its points in the storage: without this a draw that is cut short would skip one.
        snapshot_sampler(self.study)
        # A process that died between enqueueing and asking has left one, which `ask` takes before any draw.
        if not _has_enqueued(now):
            self._enqueue(now, later, None if own else place)
        trial = self.study.ask()
        # Before its turn ends: a trial without a name counts as a dead process's and is ended by the next one.
        about = {"worker": self.member.me, "crew": self.origin.name or self.member.me, "mlflow": self.origin.mlflow}
        TrialAttributes.process.save(trial, about)
        return trial

    def _find_postponed(self, now: StudySnapshot, *, last: bool) -> set[int]:
        """The trials that are to be tried again after another one; none where only their places are left."""
        found = {trial.number for trial in failures.find_postponed(now, self.since)}
        left = self.plan.settings.n_trials - count_measured(now) - len(get_running(now))
        return set() if last or left <= len(found) else found

    def _enqueue(self, now: StudySnapshot, later: AbstractSet[int], stuck: int | None) -> None:
        # What was lost goes before new seeds and draws: the baseline is to be measured first, after an outage as well.
        again, number = find_retry(now, later), _find_missing_seed(now, later)
        if again is not None:
            about = _build_retry_attrs(again)
            self.study.enqueue_trial(dict(_get_fixed_params(again)), user_attrs=about)
        elif number < len(self.plan.seeds):
            values = self.plan.space.to_trial_params(self.plan.seeds[number])
            about = {TrialAttributes.origin.name: SEED if number else BASELINE, TrialAttributes.seed.name: number}
            self.study.enqueue_trial(values, user_attrs=about)
        elif stuck is not None and (found := self._sample_untried(now, stuck)) is not None:
            self.study.enqueue_trial(
                self.plan.space.to_trial_params(found), user_attrs={TrialAttributes.origin.name: history.RANDOM}
            )

    def _sample_untried(self, now: StudySnapshot, place: int) -> dict[str, Value] | None:
        """A configuration that was not tried, drawn at random; None in a space too large to walk through."""
        space = self.plan.space
        left = (
            history.select_untried(now, iterate_configurations(space))
            if count_configurations(space, WALKED) < WALKED
            else []
        )
        return Random(derive_seed(self.plan.config, place)).choice(left) if left else None


def get_running(now: StudySnapshot) -> list[FrozenTrial]:
    """The trials that are under way."""
    return now.get_trials(states=(TrialState.RUNNING,))


def count_measured(now: StudySnapshot) -> int:
    """How many trials count towards n_trials."""
    # A repeat costs nothing and shows nothing new, so it takes no place.
    return count_finished(now) - history.count_repeats(now)


def has_waiting(now: StudySnapshot) -> bool:
    """Whether a trial is there that needs no sampler: one that waits, or one to be tried again."""
    return _has_enqueued(now) or find_retry(now) is not None


def _has_enqueued(now: StudySnapshot) -> bool:
    return bool(now.get_trials(states=(TrialState.WAITING,)))


def find_retry(now: StudySnapshot, later: AbstractSet[int] = frozenset()) -> FrozenTrial | None:
    """The first trial that is to be tried again, less those that are to be so `later`; None without one."""
    ready = (trial for trial in failures.find_retriable(now) if trial.number not in later)
    # One that died while it was drawn has none: its place is drawn anew, with the same seed.
    return next((trial for trial in ready if _get_fixed_params(trial)), None)


def _get_fixed_params(trial: FrozenTrial) -> Mapping[str, Any]:
    """The parameters that it was to measure, as far as they are no longer the sampler's to draw; {} for others."""
    return trial.params if is_sampled(trial) else get_enqueued_params(trial)


def _build_retry_attrs(again: FrozenTrial) -> dict[str, Any]:
    """What is noted of the trial that tries this one's configuration again."""
    kept = (TrialAttributes.origin.name, TrialAttributes.seed.name)
    about = {name: again.user_attrs[name] for name in kept if name in again.user_attrs}
    # Carried from try to try: `retries` bounds the deaths of a configuration, not of one trial.
    deaths = get_attributes(again).deaths
    return about | {TrialAttributes.retries.name: again.number, TrialAttributes.earlier_deaths.name: deaths}


def _find_missing_seed(now: StudySnapshot, later: AbstractSet[int]) -> int:
    """The first of the seeds that no trial stands for, not even one that is tried again later."""
    noted = [(get_attributes(trial), trial.number in later) for trial in now.get_trials()]
    begun = [each for each, again in noted if again or not each.interrupted]
    numbers = {each.seed for each in begun}
    # Studies of earlier versions did not number them.
    unnamed = sum(each.origin in (BASELINE, SEED) and each.seed is None for each in begun)
    number = unnamed
    while number in numbers:
        number += 1
    return number
