"""What is said of a finished trial, and of the best so far, in a line."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from rag_opt import history
from rag_opt.history import REPEATS
from rag_opt.plan import Plan
from rag_opt.storage import GIVEN_UP, INTERRUPTED, Moment


def told(plan: Plan, now: Moment, trial: FrozenTrial, outlook: str = "") -> str:
    """A finished trial's line, the best of the moment behind it."""
    return f"trial {trial.number}: {_result(plan, trial)}{best(now)}{outlook}"


def best(now: Moment) -> str:
    """The best of the moment, or how many are on the Pareto front; "" before a trial is complete."""
    front = history.front_of(now)
    if len(now.directions) > 1:
        return f" · {len(front)} on the Pareto front" if front else ""
    return f" · best {front[0].values[0]:.4f} (trial {front[0].number})" if front else ""


def _result(plan: Plan, trial: FrozenTrial) -> str:
    if REPEATS in trial.user_attrs:
        return f"the same as trial {trial.user_attrs[REPEATS]}, not measured again"
    if trial.state == TrialState.PRUNED:
        return f"pruned after {trial.user_attrs['questions']} of {plan.dev.questions.count} questions"
    if trial.state == TrialState.FAIL:
        reason = str(trial.user_attrs.get("reason", ""))[:200]
        return reason if {INTERRUPTED, GIVEN_UP} & set(trial.user_attrs) else f"failed: {reason}"
    kept = "" if history.feasible(trial) else ", beyond a constraint"
    pairs = zip(plan.objective.names, trial.values, strict=True)
    return " ".join(f"{name} {value:.4f}" for name, value in pairs) + kept
