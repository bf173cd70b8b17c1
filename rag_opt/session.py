"""The loop of a study: ask, run, tell; resumable at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
import yaml
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState
from yaml import CSafeDumper

from rag_opt import history, scorebook
from rag_opt.config import quoted, stages
from rag_opt.evaluate import Progress
from rag_opt.hiding import hide
from rag_opt.history import BASELINE, ORIGIN, REPEATS, SEED
from rag_opt.plan import Plan, sampler_of, seed_of
from rag_opt.progress import Screen
from rag_opt.racing import Race
from rag_opt.records import Evaluation
from rag_opt.search_space import Value, words
from rag_opt.settings import trial_folder
from rag_opt.spending import Spending
from rag_opt.storage import EXHAUSTED, Moment, interrupt, note, places_taken, snapshot_sampler, stoppable, stopped

SEARCH_ONLY = (
    *("n_trials", "timeout", "threads", "split", "seeds", "confirmation", "budget", "forecast", "question"),
    *("sampler", "pruner", "storage", "tracking", "search_space"),
)
"""Keys and groups that a single trial has no use for; a storage URL may hold a password."""

RANDOM_AFTER = 5
"""Repeats in a row after which a configuration is drawn at random."""

GIVE_UP_AFTER = 200
"""Repeats in a row after which the space counts as exhausted."""

RIVALS = 5
"""Of a Pareto front so many trials are raced against."""

WIRING = ("components", "chat", "scorer")
"""What a stage's file is made of beside its parameters."""

Callback = Callable[[optuna.Study, FrozenTrial], None]


@dataclass
class Session:
    """One process at work on a study."""

    plan: Plan
    study: optuna.Study
    screen: Screen
    callbacks: Sequence[Callback] = ()
    race: Race | None = None
    spending: Spending = field(init=False)
    _now: Moment = field(init=False)
    start: float = field(default_factory=time.monotonic)
    _best_now: str = ""
    _rivals: Sequence[int] = ()
    _again: int = 0

    def __post_init__(self) -> None:
        self.spending = Spending(self.plan)

    def run(self) -> None:
        """Trials until n_trials were measured, the time is over, or there is nothing left to try."""
        total = self.plan.settings.n_trials
        self._now = Moment(self.study)
        with self.screen.trials(total, self._measured()) as line:
            while (
                self._measured() < total
                and not self._late()
                and not self._exhausted()
                and self.spending.allowed(self._now)
            ):
                trial = self._ask(places_taken(self._now))
                self._best_now = self._best()
                line.describe(f"trial {trial.number}{self._best_now}")
                self._run(trial, line.describe)
                self._now = Moment(self.study)
                finished = self._now.get_trials()[trial.number]
                for callback in self.callbacks:
                    callback(self.study, finished)
                line.advance(self._told(finished), total - self._measured(), int(REPEATS not in finished.user_attrs))
        if self.spending.purse.empty:
            self.screen.say(f"{self.spending.purse.empty}; the search stops here, a greater budget goes on from here")
        if self._again >= GIVE_UP_AFTER:
            self.screen.say(f"nothing new to try: {GIVE_UP_AFTER} draws in a row repeated what was measured")

    def _measured(self) -> int:
        return places_taken(self._now) - history.repeats(self._now)

    def _ask(self, place: int) -> Trial:
        again = history.latest_repeats(self._now)
        # A sampler that has fallen for one configuration would propose it for ever.
        own = again < RANDOM_AFTER
        self.study.sampler = (
            sampler_of(self.plan.config, place) if own else RandomSampler(seed_of(self.plan.config, place))
        )
        snapshot_sampler(self.study)
        seeds = self.plan.seeds
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if place < len(seeds) and not waiting:
            self.study.enqueue_trial(
                self.plan.space.as_asked(seeds[place]), user_attrs={ORIGIN: SEED if place else BASELINE}
            )
        return self.study.ask()

    def _run(self, trial: Trial, describe: Callable[[str], None]) -> None:
        seen: list[Progress] = []
        self.plan.dev.store.troubles.clear()
        try:
            values = self.plan.space.suggest(trial)
            if ORIGIN not in trial.user_attrs:
                trial.set_user_attr(ORIGIN, history.drawn(self.study.sampler, trial))
            if self._repeated(trial, values):
                return
            given = words(values)
            self._note(trial, given)
            self._rivals = [rival.number for rival in history.front_of(self._now)[:RIVALS]] if self.race else ()
            before = self.spending.paid()
            evaluation = self.plan.dev.measured(given, partial(self._batch, trial, seen, describe))
        except optuna.TrialPruned:
            self._keep_partial(trial, seen[-1])
            self._tell(trial, TrialState.PRUNED)
        except KeyboardInterrupt:
            interrupt(self.study, self.study.get_trials(deepcopy=False)[trial.number])
            raise
        except Exception as error:
            if self.spending.purse.empty:
                # Its place is taken again once there is a greater budget.
                interrupt(self.study, self.study.get_trials(deepcopy=False)[trial.number])
                return
            # A trial may fail in any way that its components can; the study goes on.
            self._fail(trial, error)
        else:
            self._keep(trial, evaluation, before)
            self._finish(trial, evaluation)

    def _finish(self, trial: Trial, evaluation: Evaluation) -> None:
        """Tell the values, or why they can't stand for the configuration."""
        try:
            results = [self._checked(name, evaluation) for name in self.plan.objective.names]
            for constraint in self.plan.objective.constraints:
                self._covered(constraint.metric, evaluation)
        except ValueError as error:
            self._fail(trial, error)
        else:
            self._tell(trial, TrialState.COMPLETE, results)

    def _fail(self, trial: Trial, error: Exception) -> None:
        causes = "".join(
            f"; {stage}: {why}" for stage, why in self.plan.dev.store.troubles.items() if why not in str(error)
        )
        trial.set_user_attr("reason", hide(f"{type(error).__name__}: {error}{causes}")[:2000])
        self._tell(trial, TrialState.FAIL)

    def _repeated(self, trial: Trial, values: dict[str, Value]) -> bool:
        """Tell the sampler what is known of this configuration, if it was measured before."""
        earlier = history.measured_before(self._now, values)
        if earlier is None:
            self._again = 0
            return False
        self._again += 1
        trial.set_user_attr(REPEATS, earlier.number)
        for key in ("command", "metrics"):
            if key in earlier.user_attrs:
                trial.set_user_attr(key, earlier.user_attrs[key])
        for name, value in earlier.constraints.items():
            trial.set_constraint(name, value)
        self._tell(trial, earlier.state, earlier.values if earlier.state == TrialState.COMPLETE else None)
        return True

    def _tell(self, trial: Trial, state: TrialState, values: list[float] | None = None) -> None:
        with stoppable(self.study):
            self.study.tell(trial, values, state)
        if stopped(self.study):
            self.study.set_user_attr(EXHAUSTED, len(self.study.get_trials(deepcopy=False)))

    def _batch(self, trial: Trial, seen: list[Progress], describe: Callable[[str], None], progress: Progress) -> None:
        seen[:] = [progress]
        if progress.batch < len(self.plan.dev.questions.batches):
            self.spending.purse.check()
        name = self.plan.objective.targets[0].name
        running = progress.mean(name)
        describe(f"trial {trial.number}{self._best_now} · running {running:.4f}")
        over = progress.batch == len(self.plan.dev.questions.batches)
        if not over and self._lost(progress):
            raise optuna.TrialPruned
        if len(self.study.directions) > 1 or math.isnan(running):
            return
        if isinstance(self.study.pruner, optuna.pruners.WilcoxonPruner):
            scores = progress.scores[name]
            for step in range(len(scores) - progress.new, len(scores)):
                if not math.isnan(scores[step]):
                    trial.report(float(scores[step]), step)
        else:
            trial.report(running, progress.batch)
        if not over and trial.should_prune():
            raise optuna.TrialPruned

    def _lost(self, progress: Progress) -> bool:
        signs = self.plan.objective.signs
        known = [scorebook.read(self.plan.settings.folder, rival) for rival in self._rivals]
        rivals = [scores for scores in known if set(signs) <= set(scores)]
        return self.race is not None and self.race.lost(progress.scores, rivals, signs)

    def _note(self, trial: Trial, given: Sequence[str]) -> None:
        command = replay_command([*self.plan.dev.base, *given])
        trial.set_user_attr("command", command)
        note(trial, f"Replay this trial:\n\n```sh\n{command}\n```\n")
        folder = trial_folder(self.plan.settings.folder, trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        config = measured_config([*self.plan.dev.base, *given])
        text = yaml.dump(config, Dumper=CSafeDumper, sort_keys=False, allow_unicode=True)
        (folder / "config.yaml").write_text(text, "utf-8")

    def _keep(self, trial: Trial, evaluation: Evaluation, before: Mapping[str, int]) -> None:
        means = {name: value for name, value in evaluation.means.items() if math.isfinite(value)}
        trial.set_user_attr("metrics", means)
        trial.set_user_attr("seconds", dict(evaluation.seconds))
        if evaluation.usage:
            trial.set_user_attr("paid", self.spending.paid_since(before))
            trial.set_user_attr("usage", {stage: dict(spent) for stage, spent in evaluation.usage.items()})
        if short := {name: share for name, share in evaluation.coverage.items() if share < 1}:
            trial.set_user_attr("coverage", short)
        self._constrain(trial, evaluation.means)
        scorebook.write(self.plan.settings.folder, trial.number, evaluation)

    def _keep_partial(self, trial: Trial, progress: Progress) -> None:
        count = len(next(iter(progress.scores.values())))
        ids = [query.id for query in self.plan.dev.questions.queries.items[:count]]
        trial.set_user_attr("questions", count)
        self._constrain(trial, {name: progress.mean(name) for name in progress.scores})
        columns = {name: values.tolist() for name, values in progress.scores.items()}
        scorebook.write_columns(self.plan.settings.folder, trial.number, ids, columns)

    def _constrain(self, trial: Trial, means: Mapping[str, float]) -> None:
        for constraint in self.plan.objective.constraints:
            trial.set_constraint(constraint.text, constraint.violation(means))

    def _checked(self, name: str, evaluation: Evaluation) -> float:
        """The mean as a plain finite float; raises ValueError where it is not one, or speaks for too few questions."""
        self._covered(name, evaluation)
        value = evaluation.means[name]
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}: it could not be measured for any question, or is infinite")
        return float(value)

    def _covered(self, name: str, evaluation: Evaluation) -> None:
        share, least = evaluation.coverage[name], self.plan.objective.coverage
        if share < least:
            raise ValueError(
                f"{name} could be measured for {share:.0%} of its questions, evaluation.coverage asks for {least:.0%}"
            )

    def _exhausted(self) -> bool:
        """Whether there is nothing left to try: the sampler said so, now or earlier, or it only repeats itself."""
        return EXHAUSTED in self.study.user_attrs or self._again >= GIVE_UP_AFTER

    def _late(self) -> bool:
        limit = self.plan.settings.timeout
        return limit is not None and time.monotonic() - self.start > limit

    def _best(self) -> str:
        front = history.front_of(self._now)
        if len(self.study.directions) > 1:
            return f" · {len(front)} on the Pareto front" if front else ""
        return f" · best {front[0].values[0]:.4f} (trial {front[0].number})" if front else ""

    def _told(self, trial: FrozenTrial) -> str:
        outlook = self.spending.outlook(self.plan.settings.n_trials - self._measured())
        return f"trial {trial.number}: {self._result(trial)}{self._best()}{outlook}"

    def _result(self, trial: FrozenTrial) -> str:
        if REPEATS in trial.user_attrs:
            return f"the same as trial {trial.user_attrs[REPEATS]}, not measured again"
        if trial.state == TrialState.PRUNED:
            return f"pruned after {trial.user_attrs['questions']} of {self.plan.dev.questions.count} questions"
        if trial.state == TrialState.FAIL:
            return f"failed: {trial.user_attrs.get('reason', '')[:200]}"
        kept = "" if history.feasible(trial) else ", beyond a constraint"
        pairs = zip(self.plan.objective.names, trial.values, strict=True)
        return " ".join(f"{name} {value:.4f}" for name, value in pairs) + kept


def measured_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The composed stages of a configuration, interpolations resolved, without the wiring."""
    found = stages(overrides)
    return {stage: {key: value for key, value in node.items() if key not in WIRING} for stage, node in found.items()}


def replay_command(overrides: Sequence[str]) -> str:
    """The command that measures this configuration again."""
    last = {override.partition("=")[0]: override for override in overrides}
    last = {key: word for key, word in last.items() if key.lstrip("+~").partition(".")[0] not in SEARCH_ONLY}
    return hide(f"python -m rag_opt.trial {quoted(list(last.values()))}".rstrip())
