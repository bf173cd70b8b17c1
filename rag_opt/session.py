"""The loop of a study: ask, run, tell; resumable at any moment."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, Trial, TrialState
from yaml import CSafeDumper

from rag_opt.config import quoted, stages
from rag_opt.evaluate import Progress
from rag_opt.plan import Plan, sampler_of
from rag_opt.progress import Screen
from rag_opt.records import Evaluation
from rag_opt.report import BASELINE, ORIGIN, front_of
from rag_opt.search_space import words
from rag_opt.settings import trial_folder
from rag_opt.storage import EXHAUSTED, interrupt, note, places_taken, snapshot_sampler, stoppable, stopped

SEARCH_ONLY = (
    *("n_trials", "timeout", "threads", "split", "seeds"),
    *("sampler", "pruner", "storage", "tracking", "search_space"),
)
"""Keys and groups that a single trial has no use for; a storage URL may hold a password."""

Callback = Callable[[optuna.Study, FrozenTrial], None]


@dataclass
class Session:
    """One process at work on a study."""

    plan: Plan
    study: optuna.Study
    screen: Screen
    callbacks: Sequence[Callback] = ()
    start: float = field(default_factory=time.monotonic)
    _best_now: str = ""

    def run(self) -> None:
        """Trials until n_trials have finished, the time is over, or the sampler has nothing left to try."""
        total = self.plan.settings.n_trials
        with self.screen.trials(total, places_taken(self.study)) as line:
            while (place := places_taken(self.study)) < total and not self._late() and not self._exhausted():
                trial = self._ask(place)
                self._best_now = self._best()
                line.describe(f"trial {trial.number}{self._best_now}")
                self._run(trial, line.describe)
                finished = self.study.get_trials(deepcopy=False)[trial.number]
                for callback in self.callbacks:
                    callback(self.study, finished)
                line.advance(self._told(finished), total - place - 1)

    def _ask(self, place: int) -> Trial:
        self.study.sampler = sampler_of(self.plan.config, place)
        snapshot_sampler(self.study)
        seeds = self.plan.seeds
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if place < len(seeds) and not waiting:
            self.study.enqueue_trial(
                self.plan.space.as_asked(seeds[place]), user_attrs={ORIGIN: "seed" if place else BASELINE}
            )
        trial = self.study.ask()
        if ORIGIN not in trial.user_attrs:
            trial.set_user_attr(ORIGIN, "sampler")
        return trial

    def _run(self, trial: Trial, describe: Callable[[str], None]) -> None:
        seen: list[Progress] = []
        try:
            values = self.plan.space.suggest(trial)
            given = words(values)
            self._note(trial, given)
            evaluation = self.plan.dev.measured(given, partial(self._batch, trial, seen, describe))
            results = [_checked(target.name, evaluation) for target in self.plan.objective.targets]
        except optuna.TrialPruned:
            self._keep_partial(trial, seen[-1])
            self._tell(trial, TrialState.PRUNED)
        except KeyboardInterrupt:
            interrupt(self.study, self.study.get_trials(deepcopy=False)[trial.number])
            raise
        except Exception as error:
            # A trial may fail in any way that its components can; the study goes on.
            trial.set_user_attr("reason", f"{type(error).__name__}: {error}"[:2000])
            self._tell(trial, TrialState.FAIL)
        else:
            self._keep(trial, evaluation)
            self._tell(trial, TrialState.COMPLETE, results)

    def _tell(self, trial: Trial, state: TrialState, values: list[float] | None = None) -> None:
        with stoppable(self.study):
            self.study.tell(trial, values, state)
        if stopped(self.study):
            self.study.set_user_attr(EXHAUSTED, len(self.study.get_trials(deepcopy=False)))

    def _batch(self, trial: Trial, seen: list[Progress], describe: Callable[[str], None], progress: Progress) -> None:
        seen[:] = [progress]
        name = self.plan.objective.targets[0].name
        running = progress.mean(name)
        describe(f"trial {trial.number}{self._best_now} · running {running:.4f}")
        if len(self.study.directions) > 1 or math.isnan(running):
            return
        if isinstance(self.study.pruner, optuna.pruners.WilcoxonPruner):
            scores = progress.scores[name]
            for step in range(len(scores) - progress.new, len(scores)):
                if not math.isnan(scores[step]):
                    trial.report(float(scores[step]), step)
        else:
            trial.report(running, progress.batch)
        if progress.batch < len(self.plan.dev.questions.batches) and trial.should_prune():
            raise optuna.TrialPruned

    def _note(self, trial: Trial, given: Sequence[str]) -> None:
        command = replay_command([*self.plan.dev.base, *given])
        trial.set_user_attr("command", command)
        note(trial, f"Replay this trial:\n\n```sh\n{command}\n```\n")
        folder = trial_folder(self.plan.settings.folder, trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        config = measured_config([*self.plan.dev.base, *given])
        text = yaml.dump(config, Dumper=CSafeDumper, sort_keys=False, allow_unicode=True)
        (folder / "config.yaml").write_text(text, "utf-8")

    def _keep(self, trial: Trial, evaluation: Evaluation) -> None:
        means = {name: value for name, value in evaluation.means.items() if math.isfinite(value)}
        trial.set_user_attr("metrics", means)
        trial.set_user_attr("seconds", dict(evaluation.seconds))
        columns: dict[str, Sequence[Any]] = {name: values.tolist() for name, values in evaluation.per_query.items()}
        columns["retrieved"] = [list(ids) for ids in evaluation.retrieved]
        if evaluation.answers:
            columns["answer"] = evaluation.answers
        self._write_scores(trial, evaluation.query_ids, columns)

    def _keep_partial(self, trial: Trial, progress: Progress) -> None:
        count = len(next(iter(progress.scores.values())))
        ids = [query.id for query in self.plan.dev.questions.queries.items[:count]]
        trial.set_user_attr("questions", count)
        self._write_scores(trial, ids, {name: values.tolist() for name, values in progress.scores.items()})

    def _write_scores(self, trial: Trial, ids: Sequence[str], columns: dict[str, Sequence[Any]]) -> None:
        """per_query.json in the form of an MLflow table: {"columns": [...], "data": [[...], ...]}; nan as null."""
        table = {
            "columns": ["query_id", *columns],
            "data": [list(map(_or_null, row)) for row in zip(ids, *columns.values(), strict=True)],
        }
        path = trial_folder(self.plan.settings.folder, trial.number) / "per_query.json"
        path.write_text(json.dumps(table, ensure_ascii=False), "utf-8")

    def _exhausted(self) -> bool:
        """Whether the sampler has said that there is nothing left to try, now or in an earlier run."""
        return EXHAUSTED in self.study.user_attrs

    def _late(self) -> bool:
        limit = self.plan.settings.timeout
        return limit is not None and time.monotonic() - self.start > limit

    def _best(self) -> str:
        front = front_of(self.study)
        if len(self.study.directions) > 1:
            return f" · {len(front)} on the Pareto front" if front else ""
        return f" · best {front[0].values[0]:.4f} (trial {front[0].number})" if front else ""

    def _told(self, trial: FrozenTrial) -> str:
        value = {
            TrialState.COMPLETE: lambda: " ".join(
                f"{t.name} {v:.4f}" for t, v in zip(self.plan.objective.targets, trial.values, strict=True)
            ),
            TrialState.PRUNED: lambda: (
                f"pruned after {trial.user_attrs['questions']} of {self.plan.dev.questions.count} questions"
            ),
            TrialState.FAIL: lambda: f"failed: {trial.user_attrs.get('reason', '')[:200]}",
        }[trial.state]()
        return f"trial {trial.number}: {value}{self._best()}"


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _checked(name: str, evaluation: Evaluation) -> float:
    """The mean as a plain finite float; raises ValueError where it is not one."""
    value = evaluation.means[name]
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}: it could not be measured for any question, or is infinite")
    return float(value)


def measured_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The composed stages of a configuration, interpolations resolved, without the wiring."""
    found = stages(overrides)
    return {stage: {key: value for key, value in node.items() if key != "components"} for stage, node in found.items()}


def replay_command(overrides: Sequence[str]) -> str:
    """The command that measures this configuration again."""
    last = {override.partition("=")[0]: override for override in overrides}
    last = {key: word for key, word in last.items() if key.lstrip("+~").partition(".")[0] not in SEARCH_ONLY}
    return f"python -m rag_opt.trial {quoted(list(last.values()))}".rstrip()
