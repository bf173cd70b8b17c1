"""What a process notes of its trials: in their attributes, in their files, and in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import Trial

from rag_opt.config.experiments import replay_command
from rag_opt.storages.attributes import TrialAttributes
from rag_opt.storages.notes import note
from rag_opt.study import timings

if TYPE_CHECKING:
    from rag_opt.config.trial import TrialConfig
    from rag_opt.evaluation.evaluate import Progress
    from rag_opt.records.measured import Evaluation
    from rag_opt.storages.trial_files import TrialFiles
    from rag_opt.study.plan import Plan


@dataclass(frozen=True)
class Noting:
    """Notes what a trial measures, and then what it has measured."""

    plan: Plan
    files: TrialFiles

    def begin(self, trial: Trial, config: TrialConfig) -> None:
        """Note which configuration the trial measures."""
        command = replay_command(config.words)
        TrialAttributes.command.note(trial, command)
        note(trial, f"Replay this trial:\n\n```sh\n{command}\n```\n")
        self.files.write_config(trial.number, config.parameters)

    def keep(self, trial: Trial, evaluation: Evaluation, paid: Mapping[str, int]) -> None:
        """Note what a whole trial has measured, and by stage how many calls were `paid` for it."""
        means = {name: value for name, value in evaluation.means.items() if math.isfinite(value)}
        TrialAttributes.metrics.note(trial, means)
        TrialAttributes.seconds.note(trial, dict(evaluation.seconds))
        if evaluation.usage:
            TrialAttributes.paid.note(trial, dict(paid))
            TrialAttributes.usage.note(trial, {stage: dict(spent) for stage, spent in evaluation.usage.items()})
        if short := {name: share for name, share in {**evaluation.served, **evaluation.coverage}.items() if share < 1}:
            TrialAttributes.coverage.note(trial, short)
        self._constrain(trial, evaluation.means)
        self.files.write(trial.number, evaluation)
        timings.note(self.plan.resources.store, self.plan.shelf, trial.params, evaluation.seconds)

    def keep_part(self, trial: Trial, progress: Progress) -> None:
        """Note what a trial has measured that is stopped early."""
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
