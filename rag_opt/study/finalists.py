"""Which trials answer the unseen questions, and what that shows for every objective."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from rag_opt.analysis import history
from rag_opt.analysis.advice import decide
from rag_opt.analysis.confirmation import (
    BASELINE,
    BEST,
    TIED,
    Confirmation,
    MeasuredConfiguration,
    adjust_confirmations,
    build_confirmation,
    spend_error,
)
from rag_opt.analysis.crossfit import Crossfit, crossfit, merge_evaluations, replace_interval
from rag_opt.analysis.selection import Candidate, Selection, select_finalists
from rag_opt.config.overrides import format_overrides, to_config_values
from rag_opt.console.progress import track
from rag_opt.console.screens import report_line
from rag_opt.errors import StudyError
from rag_opt.metrics.catalogue import MEASURED_ONCE
from rag_opt.storages.attributes import get_attributes
from rag_opt.study import failures
from rag_opt.study.judges import allow_for_judge, correct_by_people
from rag_opt.study.looks import note_look
from rag_opt.study.score_recovery import format_lost_scores

if TYPE_CHECKING:
    from rag_opt.records.scores import Evaluation
    from rag_opt.storages.snapshot import StudySnapshot, Trials
    from rag_opt.study.plan import Plan

Confirmations = tuple[Confirmation, ...]


class Confirmed(NamedTuple):
    """What the questions show, objective by objective, the evaluations by trial, and those that were compared.

    The last are the same, but for a crossfit: there the selected one's are of what judged each question.
    """

    confirmations: Confirmations
    evaluations: Mapping[int, Evaluation]
    compared: Mapping[int, Evaluation]


NOTHING = Confirmed((), {}, {})


def confirm_finalists(plan: Plan, study: optuna.Study, now: StudySnapshot) -> Confirmed:
    """What the unseen questions show; NOTHING without a complete trial, or where the selected one can't be measured."""
    # The report repeats what bears on the finalists' scores, not what the search met on its way.
    plan.resources.notices.kept.clear()
    # A budget that ended the search would refuse the confirmation's calls, for which its reserve was kept.
    if plan.resources.llm.budget is not None:
        plan.resources.llm.budget.open_reserve()
    target, baseline = plan.objective.names[0], history.find_baseline(now)
    candidates = list(_load_candidates(plan, study, _select_eligible(now)))
    if not candidates:
        return NOTHING
    selection = select_finalists(
        candidates, plan.objective.signs[target], plan.settings.ties, plan.dev.questions.groups
    )
    begun = None if baseline is None else baseline.number
    roles = _assign_roles(selection, history.find_front_marks(now, plan.objective.names), begun)
    fitted = _fit_folds(plan, candidates, roles)
    if fitted is None and plan.settings.crossfits:
        report_line(
            "confirmation.method=crossfit: without a complete baseline that keeps the constraints it shows nothing"
        )
        return NOTHING
    if fitted is not None:
        roles = {n: role for n, role in roles.items() if n == selection.recommended or BASELINE in role}
    judges = set() if fitted is None else set(fitted.trials.tolist())
    evaluations = _evaluate_finalists(plan, now, roles | dict.fromkeys(judges - set(roles), ()), selection.recommended)
    # Without one of its judges a crossfit has questions that nobody has judged.
    if not {selection.recommended, *judges} <= set(evaluations):
        return NOTHING
    stays = BASELINE in roles[selection.recommended]
    chosen = [selection.recommended] if fitted is None or stays else fitted.trials.tolist()
    # Only now: what could not be measured has judged nothing, and spends no look.
    look = note_look(study, plan.test.questions, chosen, begun, len(now.get_trials()))
    compared = evaluations
    # Where the baseline was selected there is nothing to compare, and its own scores are what it scored.
    if fitted is not None and not stays:
        compared = {**evaluations, selection.recommended: merge_evaluations(evaluations, fitted.trials.tolist())}
    # All objectives at once: the p values are corrected over all comparisons of the study (Holm).
    places = range(len(now.directions))
    measured = [_build_confirmation(plan, now, place, selection, roles, compared, look) for place in places]
    found = adjust_confirmations([correct_by_people(plan, each, compared) for each in measured])
    found = found if fitted is None else tuple(replace_interval(each, fitted) for each in found)
    found = tuple(map(spend_error, found))
    # After the error rate is spent: how wide an interval is without the judge's errors depends on it.
    found = tuple(allow_for_judge(plan, each, compared) for each in found)
    kept = baseline is None or history.is_feasible(baseline)
    found = tuple(replace(each, baseline_kept=kept, grouped=plan.test.questions.grouped) for each in found)
    advised = decide(found)
    found = tuple(replace(each, recommended=advised.trial, case=advised.case) for each in found)
    return Confirmed(found, evaluations, compared)


def _fit_folds(plan: Plan, candidates: Sequence[Candidate], roles: Mapping[int, tuple[str, ...]]) -> Crossfit | None:
    """Which trial judges each question where none was kept from the search; None where some were."""
    baseline = next((number for number, role in roles.items() if BASELINE in role), None)
    groups = plan.dev.questions.groups
    if not plan.settings.crossfits or baseline is None or len(np.unique(groups)) < 2:
        return None
    if baseline not in {each.number for each in candidates}:
        # One that breaks a constraint is no choice, and so is no candidate.
        return None
    sign = plan.objective.signs[plan.objective.names[0]]
    return crossfit(candidates, baseline, sign, groups, plan.settings.seed)


def _select_eligible(now: StudySnapshot) -> list[FrozenTrial]:
    """The trials that may be recommended, best first: of several objectives the front, which no other dominates."""
    return history.rank_candidates(now) if len(now.directions) == 1 else history.find_front(now)


def _load_candidates(plan: Plan, study: optuna.Study, trials: Iterable[FrozenTrial]) -> Iterable[Candidate]:
    names, files = plan.objective.names, plan.get_files(study)
    for trial in trials:
        scores = files.load_scores(trial, names)
        if not scores:
            # Which one is best must not depend on what happens to be there.
            raise StudyError(format_lost_scores(files.folder, trial.number))
        # A tie holds by what is handed on, too, lest handing on less win by its cost alone.
        handed = scores.get(plan.objective.handed or "")
        yield Candidate(trial.number, scores[names[0]], _get_cost(plan, trial), handed)


def _get_cost(plan: Plan, trial: FrozenTrial) -> float:
    """The trial's mean cost; inf where it was not measured, as with a changed cost: never cheapest."""
    return float(get_attributes(trial).metrics.get(plan.objective.cost.name, math.inf))


def _assign_roles(
    selection: Selection, marks: Mapping[int, tuple[str, ...]], baseline: int | None
) -> dict[int, tuple[str, ...]]:
    """The trials to confirm, the best first, by what they are."""
    tied = dict.fromkeys([selection.recommended, *selection.tied], (TIED,))
    # A key keeps the place of its first mention and the value of its last: the best leads, and is not called tied.
    roles = {selection.best: (BEST,), **tied, selection.best: (BEST,), **marks}
    return roles if baseline is None else {**roles, baseline: (*marks.get(baseline, ()), BASELINE)}


def format_configurations(count: int) -> str:
    """So many configurations."""
    return f"{count} configuration{'s' if count > 1 else ''}"


def _evaluate_finalists(
    plan: Plan, now: StudySnapshot, roles: Mapping[int, tuple[str, ...]], recommended: int
) -> dict[int, Evaluation]:
    found: dict[int, Evaluation] = {}
    count = plan.test.questions.count
    where = f"all {count} questions" if plan.settings.crossfits else f"{count} questions never searched"
    report_line(f"confirming {format_configurations(len(roles))} on {where} …")
    with track("confirming", len(roles)) as done:
        # Where the budget ends early, what matters most is known.
        for number in sorted(roles, key=lambda each: (each != recommended, BASELINE not in roles[each])):
            try:
                found[number] = plan.test.measure_config(plan.test.compose_overrides(get_trial_overrides(now, number)))
            except Exception as error:
                # Worth stopping for: without these there is no comparison, and the same command can confirm later.
                # (What has no role judges a part of a crossfit's questions.)
                needed = number == recommended or BASELINE in roles[number] or not roles[number]
                if needed and (cause := failures.find_cause(error)) is not None:
                    raise failures.build_outage_error(
                        f"{get_trial_name(now, number)} could not be confirmed", cause, str(error)
                    ) from error
                # The budget is spent: a configuration that fails now must not cost the others their report.
                report_line(
                    f"{get_trial_name(now, number)} could not be confirmed: {type(error).__name__}: {error}"[:300]
                )
            done(1)
    return found


def _build_confirmation(
    plan: Plan,
    now: StudySnapshot,
    place: int,
    selection: Selection,
    roles: Mapping[int, tuple[str, ...]],
    evaluations: Mapping[int, Evaluation],
    look: int,
) -> Confirmation:
    """What the questions show of the objective at this place."""
    target, trials = plan.objective.names[place], now.get_trials()
    # Whatever else the baseline is, its role comes first: all comparisons look for it by that.
    measured = [
        MeasuredConfiguration(
            BASELINE if BASELINE in role else role[0],
            number,
            tuple(get_trial_overrides(now, number)),
            trials[number].values[place],
            _get_cost(plan, trials[number]),
            evaluations[number].per_query[target],
            # Work that a stage left undone makes a score as incomplete as questions that have none.
            min([evaluations[number].coverage[target], *evaluations[number].served.values()]),
            tuple(each for each in role if each not in (BEST, TIED, BASELINE)),
            # Of the first objective alone, by which ties are decided.
            evaluations[number].per_query.get(plan.objective.handed or "") if place == 0 else None,
        )
        for number, role in roles.items()
        if number in evaluations
    ]
    return build_confirmation(
        target,
        plan.objective.signs[target],
        plan.objective.cost.name,
        selection,
        measured,
        plan.settings.seed,
        groups=plan.test.questions.groups,
        once=len(now.directions) > 1 and target in MEASURED_ONCE,
        look=look,
    )


def get_trial_overrides(study: Trials, number: int) -> list[str]:
    """The overrides of a trial."""
    return format_overrides(to_config_values(study.get_trials(deepcopy=False)[number].params))


def get_trial_name(study: Trials, number: int) -> str:
    """What a trial is called: the baseline, or by its number."""
    baseline = history.find_baseline(study)
    return BASELINE if baseline is not None and baseline.number == number else f"trial {number}"
