"""Which trials answer the unseen questions, and what that shows for every objective."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial

from rag_opt.analysis import history
from rag_opt.analysis.confirmation import BASELINE, BEST, TIED, Confirmation, Measured, confirmed, together
from rag_opt.analysis.selection import Candidate, Selection, selected
from rag_opt.config.overrides import values_of, words
from rag_opt.console.progress import say, track
from rag_opt.errors import StudyError
from rag_opt.metrics.catalogue import MEASURED_ONCE
from rag_opt.storages.attributes import attributes_of
from rag_opt.study import failures
from rag_opt.study.recovery import lost

if TYPE_CHECKING:
    from rag_opt.records.measured import Evaluation
    from rag_opt.storages.moment import Moment, Trials
    from rag_opt.study.plan import Plan

Confirmations = tuple[Confirmation, ...]


def confirmations(plan: Plan, study: optuna.Study, now: Moment) -> tuple[Confirmations, dict[int, Evaluation]]:
    """What the unseen questions show, objective by objective, and the evaluations on them by trial.

    () without a complete trial, or where the recommended one could not be measured.
    """
    if plan.resources.llm.budget is not None:
        plan.resources.llm.budget.open_reserve()
    target, baseline = plan.objective.names[0], history.baseline_of(now)
    candidates = list(_candidates(plan, study, _eligible(now)))
    if not candidates:
        return (), {}
    selection = selected(candidates, plan.objective.signs[target], plan.settings.ties, plan.dev.questions.groups)
    roles = _roles(selection, history.marks_of(now, plan.objective.names), baseline.number if baseline else None)
    evaluations = _evaluations(plan, now, roles, selection.recommended)
    if selection.recommended not in evaluations:
        return (), {}
    found = together(
        [_confirmation(plan, now, place, selection, roles, evaluations) for place in range(len(now.directions))]
    )
    kept = baseline is None or history.feasible(baseline)
    return tuple(replace(each, baseline_kept=kept) for each in found), evaluations


def _eligible(now: Moment) -> list[FrozenTrial]:
    """The trials that may be recommended, best first: of several objectives the front, which no other dominates."""
    return history.candidates(now) if len(now.directions) == 1 else history.front_of(now)


def _candidates(plan: Plan, study: optuna.Study, trials: Iterable[FrozenTrial]) -> Iterable[Candidate]:
    names, files = plan.objective.names, plan.files(study)
    for trial in trials:
        scores = files.scores(trial, names)
        if not scores:
            # Which one is best must not depend on what happens to be there.
            raise StudyError(lost(files.folder, trial.number))
        handed = scores.get(plan.objective.handed or "")
        yield Candidate(trial.number, scores[names[0]], _cost(plan, trial), handed)


def _cost(plan: Plan, trial: FrozenTrial) -> float:
    """The trial's mean cost; inf where it was not measured, as with a changed cost: never cheapest."""
    return float(attributes_of(trial).metrics.get(plan.objective.cost.name, math.inf))


def _roles(
    selection: Selection, marks: Mapping[int, tuple[str, ...]], baseline: int | None
) -> dict[int, tuple[str, ...]]:
    """The trials to confirm, the best first, by what they are."""
    tied = dict.fromkeys([selection.recommended, *selection.tied], (TIED,))
    roles = {selection.best: (BEST,), **tied, selection.best: (BEST,), **marks}
    return roles if baseline is None else {**roles, baseline: (*marks.get(baseline, ()), BASELINE)}


def several(count: int) -> str:
    """So many configurations."""
    return f"{count} configuration{'s' if count > 1 else ''}"


def _evaluations(
    plan: Plan, now: Moment, roles: Mapping[int, tuple[str, ...]], recommended: int
) -> dict[int, Evaluation]:
    found: dict[int, Evaluation] = {}
    say(f"confirming {several(len(roles))} on {plan.test.questions.count} questions never searched …")
    with track("confirming", len(roles)) as done:
        # Where the budget ends early, what matters most is known.
        for number in sorted(roles, key=lambda each: (each != recommended, BASELINE not in roles[each])):
            try:
                found[number] = plan.test.measured(plan.test.composed(words_of(now, number)))
            except Exception as error:
                needed = number == recommended or BASELINE in roles[number]
                if needed and (cause := failures.cause_of(error)) is not None:
                    raise failures.outage(
                        f"{name_of(now, number)} could not be confirmed", cause, str(error)
                    ) from error
                # The budget is spent: a configuration that fails now must not cost the others their report.
                say(f"{name_of(now, number)} could not be confirmed: {type(error).__name__}: {error}"[:300])
            done(1)
    return found


def _confirmation(
    plan: Plan,
    now: Moment,
    place: int,
    selection: Selection,
    roles: Mapping[int, tuple[str, ...]],
    evaluations: Mapping[int, Evaluation],
) -> Confirmation:
    """What the questions show of the objective at this place."""
    target, trials = plan.objective.names[place], now.get_trials()
    measured = [
        Measured(
            BASELINE if BASELINE in role else role[0],
            number,
            tuple(words_of(now, number)),
            trials[number].values[place],
            _cost(plan, trials[number]),
            evaluations[number].per_query[target],
            min([evaluations[number].coverage[target], *evaluations[number].served.values()]),
            tuple(each for each in role if each not in (BEST, TIED, BASELINE)),
        )
        for number, role in roles.items()
        if number in evaluations
    ]
    return confirmed(
        target,
        plan.objective.signs[target],
        plan.objective.cost.name,
        selection,
        measured,
        plan.settings.seed,
        groups=plan.test.questions.groups,
        once=len(now.directions) > 1 and target in MEASURED_ONCE,
    )


def words_of(study: Trials, number: int) -> list[str]:
    """The overrides of a trial."""
    return words(values_of(study.get_trials(deepcopy=False)[number].params))


def name_of(study: Trials, number: int) -> str:
    """What a trial is called: the baseline, or by its number."""
    baseline = history.baseline_of(study)
    return BASELINE if baseline is not None and baseline.number == number else f"trial {number}"
