"""What a process notes of its trials: in their attributes, in their files, and in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import Trial

from rag_opt.config.experiments import format_replay_command
from rag_opt.storages.attributes import TrialAttributes
from rag_opt.storages.notes import save_note
from rag_opt.study import timings

if TYPE_CHECKING:
    from rag_opt.config.trial import TrialConfig
    from rag_opt.evaluation.evaluate import Progress
    from rag_opt.records.scores import Evaluation
    from rag_opt.storages.trial_files import TrialFiles
    from rag_opt.study.plan import Plan


@dataclass(frozen=True)
class Recorder:
    """Notes what a trial measures, and then what it has measured."""

    plan: Plan
    files: TrialFiles

    def record_config(self, trial: Trial, config: TrialConfig) -> None:
        """Note which configuration the trial measures."""
        command = format_replay_command(config.words)
        TrialAttributes.command.save(trial, command)
        save_note(trial, f"Replay this trial:\n\n```sh\n{command}\n```\n")
        self.files.write_config(trial.number, config.parameters)

    def record_evaluation(self, trial: Trial, evaluation: Evaluation, paid: Mapping[str, int]) -> None:
        """Note what a whole trial has measured, and by stage how many calls were `paid` for it."""
        means = {name: value for name, value in evaluation.means.items() if math.isfinite(value)}
        TrialAttributes.metrics.save(trial, means)
        TrialAttributes.seconds.save(trial, dict(evaluation.seconds))
        if evaluation.usage:
            TrialAttributes.paid.save(trial, dict(paid))
            TrialAttributes.usage.save(trial, {stage: dict(spent) for stage, spent in evaluation.usage.items()})
        if short := {name: share for name, share in {**evaluation.served, **evaluation.coverage}.items() if share < 1}:
            TrialAttributes.coverage.save(trial, short)
        self._set_constraints(trial, evaluation.means)
        self.files.write_scores(trial.number, evaluation)
        timings.record_timings(self.plan.resources.store, self.plan.timings_key, trial.params, evaluation.seconds)

    def record_pruned(self, trial: Trial, progress: Progress) -> None:
        """Note what a trial has measured that is stopped early."""
        # Every metric has a score, if only nan, for each question that was asked.
        count = len(next(iter(progress.scores.values())))
        # Questions are asked in one order, so a trial that was stopped has asked the first ones.
        ids = [query.id for query in self.plan.dev.questions.queries.items[:count]]
        TrialAttributes.questions.save(trial, count)
        means = {name: progress.get_mean(name) for name in progress.scores}
        # For pruned trials, too: an unset one counts as kept, and GPSampler fails where trials differ in their number.
        self._set_constraints(trial, means)
        values = [means[name] for name in self.plan.objective.names]
        # With one objective the intermediate values say so; with several Optuna keeps none.
        if len(values) > 1 and all(map(math.isfinite, values)):
            TrialAttributes.so_far.save(trial, values)
        self.files.write_partial(trial.number, ids, progress.scores, progress.retrieved, progress.answers)

    def _set_constraints(self, trial: Trial, means: Mapping[str, float]) -> None:
        for constraint in self.plan.objective.constraints:
            trial.set_constraint(constraint.text, constraint.compute_violation(means))
