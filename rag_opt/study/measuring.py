"""One trial measured, batch by batch: what is known is reported, and who loses is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, Trial

from rag_opt.analysis import history
from rag_opt.evaluation.coverage import check_served
from rag_opt.evaluation.evaluate import Progress
from rag_opt.study.sampling import build_pruner

if TYPE_CHECKING:
    from rag_opt.records.documents import Ints
    from rag_opt.storages.snapshot import StudySnapshot
    from rag_opt.study.plan import Plan
    from rag_opt.study.racing import Race
    from rag_opt.study.recording import Recorder
    from rag_opt.study.spending import Spending
    from rag_opt.system.signals import Stopping

# They share the error rate of a race, so each one more makes all of them slower to stop a trial.
RIVALS = 5
"""Of a Pareto front so many trials are raced against."""


@dataclass
class Measuring:
    """Measures the trials of one process."""

    study: optuna.Study
    recorder: Recorder
    spending: Spending
    stopping: Stopping
    plan: Plan = field(init=False)
    race: Race | None = field(init=False)
    _groups: Ints | None = field(init=False)
    _rivals: Sequence[FrozenTrial] = ()

    def __post_init__(self) -> None:
        self.plan = self.recorder.plan
        self.race = build_pruner(self.plan.config)[1]
        self._groups = self.plan.dev.questions.groups if self.race else None

    def measure_trial(
        self, trial: Trial, given: Sequence[str], now: StudySnapshot, describe: Callable[[str], None]
    ) -> list[float] | None:
        """The values of the trial that was `given` these words, None where it was stopped early; all of it is noted.

        Raises whatever its components raise. `describe` hears how far it is.
        """
        seen = list[Progress]()
        # An earlier trial's failed calls would be told as the reason, or the cause, of this one's failure.
        self.plan.resources.llm.troubles.clear()
        config = self.plan.dev.compose_overrides(given)
        self.recorder.record_config(trial, config)
        # Named before the first batch, as the error rate of a race presumes.
        self._rivals = history.find_front(now)[:RIVALS] if self.race else ()
        before = self.spending.count_paid()
        try:
            evaluation = self.plan.dev.measure_config(config, partial(self.check_batch, trial, seen, describe))
        except optuna.TrialPruned:
            self.recorder.record_pruned(trial, seen[-1])
            return None
        # Before it may fail for want of coverage: what it has paid for and measured is noted all the same.
        self.recorder.record_evaluation(trial, evaluation, self.spending.count_paid_since(before))
        check_served(evaluation, self.plan.objective.coverage)
        return self.plan.objective.get_values(evaluation)

    def check_batch(
        self, trial: Trial, seen: list[Progress], describe: Callable[[str], None], progress: Progress
    ) -> None:
        """A batch was measured: raises TrialPruned where the trial is to end here, KeyboardInterrupt where all is."""
        # TrialPruned carries nothing, and what a pruned trial has measured is to be kept.
        seen[:] = [progress]
        self.stopping.check()
        # After its last batch a trial is paid for: it is told, whatever is left of the budget.
        if progress.batch < len(self.plan.dev.questions.batches):
            self.spending.budget.check()
        name = self.plan.objective.targets[0].name
        running = progress.get_mean(name)
        describe(f"trial {trial.number} · {running:.4f}")
        # Before the pruner is asked: it judges by what was reported last.
        self._report(trial, progress, name)
        over = progress.batch == len(self.plan.dev.questions.batches)
        # A mean of nan was not reported, and the pruner would judge by an earlier batch.
        single = len(self.study.directions) == 1 and not math.isnan(running)
        if not over and (self._is_dominated(progress) or (single and trial.should_prune())):
            raise optuna.TrialPruned

    def _report(self, trial: Trial, progress: Progress, name: str) -> None:
        """Have the study know what is known so far: a trial that loses has said something, too."""
        running = progress.get_mean(name)
        # `Trial.report` raises in a study of several objectives.
        if len(self.study.directions) > 1 or math.isnan(running):
            return
        if isinstance(self.study.pruner, optuna.pruners.WilcoxonPruner):
            # Wilcoxon's test pairs trials step by step: a question's own score, no mean, at the question's index.
            scores = progress.scores[name]
            for step in range(len(scores) - progress.new, len(scores)):
                if not math.isnan(scores[step]):
                    trial.report(float(scores[step]), step)
        else:
            trial.report(running, progress.batch)

    def _is_dominated(self, progress: Progress) -> bool:
        signs = self.plan.objective.signs
        known = [self.recorder.files.load_scores(rival, [*signs]) for rival in self._rivals]
        rivals = [scores for scores in known if set(signs) <= set(scores)]
        return self.race is not None and self.race.is_dominated(progress.scores, rivals, signs, self._groups)
