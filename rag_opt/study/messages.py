"""What is said of a finished trial, and of the best so far, in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from rag_opt.analysis import history
from rag_opt.storages.attributes import get_attributes

if TYPE_CHECKING:
    from rag_opt.storages.snapshot import StudySnapshot
    from rag_opt.study.plan import Plan


def format_greeting(plan: Plan) -> str:
    """What a study begins with: documents, questions, parameters, trials."""
    settings, dev, test = plan.settings, plan.dev.questions, plan.test.questions
    targets = ", ".join(target.name for target in plan.objective.targets)
    asked = f"{dev.count} questions to search with, {test.count} kept to confirm"
    if settings.crossfits:
        asked = f"{dev.count} questions to search with, each to be judged by a choice made without it"
    return (
        f"{settings.name}: {len(plan.dataset.documents):,} documents, {asked}; "
        f"{len(plan.space.parameters)} parameters, {settings.n_trials} trials for {targets}"
    )


def format_trial(plan: Plan, now: StudySnapshot, trial: FrozenTrial, estimate: str = "") -> str:
    """A finished trial's line, the best of the moment behind it."""
    return f"trial {trial.number}: {_format_result(plan, trial)}{format_best(now)}{estimate}"


def format_best(now: StudySnapshot) -> str:
    """The best of the moment, or how many are on the Pareto front; "" before a trial is complete."""
    front = history.find_front(now)
    if len(now.directions) > 1:
        return f" · {len(front)} on the Pareto front" if front else ""
    return f" · best {front[0].values[0]:.4f} (trial {front[0].number})" if front else ""


def _format_result(plan: Plan, trial: FrozenTrial) -> str:
    noted = get_attributes(trial)
    if noted.repeats is not None:
        return f"the same as trial {noted.repeats}, not measured again"
    if trial.state == TrialState.PRUNED:
        return f"pruned after {noted.questions} of {plan.dev.questions.count} questions"
    if trial.state == TrialState.FAIL:
        # What was ended from outside has not failed, and its reason is a sentence of its own.
        reason = (noted.reason or "")[:200]
        return reason if noted.interrupted or noted.given_up else f"failed: {reason}"
    kept = "" if history.is_feasible(trial) else ", beyond a constraint"
    pairs = zip(plan.objective.names, trial.values, strict=True)
    return " ".join(f"{name} {value:.4f}" for name, value in pairs) + kept
