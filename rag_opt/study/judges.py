"""The judge of a study: measured before trial 0, its errors allowed for when it has decided, people's grades asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.analysis import paired
from rag_opt.analysis.judging import FEWEST_GRADED, correct_difference, widen_intervals
from rag_opt.components.llm.chat import UnreadableError
from rag_opt.config.compose import quote_overrides
from rag_opt.console.progress import track
from rag_opt.console.screens import report_line
from rag_opt.errors import ComponentError
from rag_opt.evaluation.judging import build_judges, find_aspects, get_aspect, parse_judge_settings
from rag_opt.judge.agreement import compute_kappa, compute_kappa_interval
from rag_opt.judge.check import JudgeCheck, check_judge, explain_constant, explain_refusal, format_kappa
from rag_opt.judge.grades import TO_GRADE, find_truths, write_to_grade
from rag_opt.judge.labelled import build_labelled
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.llm.client import Rehearsal
from rag_opt.metrics.aspects import BEST, FIELDS
from rag_opt.metrics.catalogue import JUDGE

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Arm, Confirmation
    from rag_opt.analysis.judging import CorrectedDifference
    from rag_opt.components.resources import Resources
    from rag_opt.metrics.judges import Judges
    from rag_opt.records.documents import Scores
    from rag_opt.records.scores import Evaluation
    from rag_opt.study.plan import Plan


def check_judges(plan: Plan, resources: Resources) -> None:
    """Measure each judge and tell what it is worth; raises ComponentError where one decides and is too poor for that.

    What its verdicts cost is in the forecast; kept ones cost nothing. A budget that is spent spares it.
    """
    aspects = find_aspects(metric.name for metric in plan.dev.metrics)
    deciding = find_aspects(metric.name for metric in plan.objective.deciding)
    if not aspects:
        return
    judges = build_judges(plan.config, aspects, repeats=1).use_resources(resources)
    wrong, trusted = [], parse_judge_settings(plan.config).trust
    with track("preflight: judges measured on labelled answers", len(aspects)) as advance:
        for aspect in aspects:
            decides = aspect in deciding
            try:
                wrong.append(_measure_judge(plan, judges, aspect, decides=decides))
            except BudgetSpentError:
                break
            except UnreadableError as error:
                wrong.append(str(error) if decides and not trusted else "")
            except ComponentError:
                # That it can't be asked is said where services are asked; kept answers need no judge.
                continue
            advance(1)
    if any(wrong):
        lines = [f"  judge.model={judges.model}: {why}" for why in wrong if why]
        raise ComponentError("\n".join(["before trial 0 this can't be used:", *lines]))


def _measure_judge(plan: Plan, judges: Judges, aspect: str, *, decides: bool) -> str:
    """Tell what a judge is worth; why it can't decide, "" where it can or need not.

    One that decides is first shown one right and one wrong answer, which ends it sooner.
    """
    settings = parse_judge_settings(plan.config)
    refuses = decides and not settings.trust
    if refuses and (why := judges.explain_blind(aspect)):
        return why
    if not settings.check:
        return ""
    found = check_judge(judges, aspect, build_labelled(aspect, settings.check))
    report_line(found.format_line())
    # Trusted or not: grades that never differ tell no configuration from another.
    if decides and found.is_constant:
        return f"{explain_constant(found)}; choose another judge.model, or another objective"
    # As a negation, so that one of which nothing can be read is refused.
    return explain_refusal(found, settings.floor) if refuses and not found.kappa >= settings.floor else ""


def find_kept_check(plan: Plan, aspect: str) -> JudgeCheck | None:
    """What is known of the judge of an aspect by verdicts that are kept; None where any is not. Nobody is asked."""
    count = parse_judge_settings(plan.config).check
    if not count:
        return None
    rehearsal = Rehearsal()
    resources = replace(plan.resources, llm=replace(plan.resources.llm, rehearsal=rehearsal))
    judges = build_judges(plan.config, [aspect], repeats=1).use_resources(resources)
    try:
        found = check_judge(judges, aspect, build_labelled(aspect, count))
    except ComponentError:
        return None
    # A call that would be paid is a verdict that is not kept.
    return None if any(rehearsal.new.values()) else found


def correct_by_people(plan: Plan, found: Confirmation, evaluations: Mapping[int, Evaluation]) -> Confirmation:
    """The confirmation with differences in what people would have given, where they graded enough of them."""
    corrected = _correct_differences(plan, found, evaluations)
    return replace(found, arms=tuple(_replace_difference(arm, corrected.get(arm.trial)) for arm in found.arms))


def _replace_difference(arm: Arm, found: CorrectedDifference | None) -> Arm:
    if found is None:
        return arm
    return replace(arm, difference=found.difference, difference_low=found.low, difference_high=found.high, p=found.p)


def _correct_differences(
    plan: Plan, found: Confirmation, evaluations: Mapping[int, Evaluation]
) -> dict[int, CorrectedDifference]:
    """By trial the difference from the baseline that people's grades correct, of those that they have graded enough."""
    aspect, baseline = get_aspect(found.metric), found.baseline
    if not plan.grades or aspect is None or baseline is None or plan.settings.crossfits:
        return {}
    theirs, level = evaluations.get(baseline.trial), paired.compute_level(found.look)
    pairs = {arm.trial: evaluations.get(arm.trial) for arm in found.arms if arm is not baseline}
    corrected = {
        trial: correct_difference(
            ours.per_query[found.metric] - theirs.per_query[found.metric],
            _find_truths(plan, aspect, ours) - _find_truths(plan, aspect, theirs),
            level,
        )
        for trial, ours in pairs.items()
        if ours is not None and theirs is not None and ours.answers and theirs.answers
    }
    return {trial: each for trial, each in corrected.items() if each is not None}


def _find_truths(plan: Plan, aspect: str, evaluation: Evaluation) -> Scores:
    return find_truths(plan.grades, aspect, evaluation.query_ids, evaluation.answers)


def allow_for_judge(plan: Plan, found: Confirmation, evaluations: Mapping[int, Evaluation]) -> Confirmation:
    """The confirmation with intervals that allow for the judge's own uncertainty, where a judge graded its metric.

    Those that people's grades have corrected are as they should be.
    """
    aspect = get_aspect(found.metric)
    check = None if aspect is None else find_kept_check(plan, aspect)
    if check is None:
        return found
    return widen_intervals(found, check.reach, check.error, _correct_differences(plan, found, evaluations))


def tell_judges(plan: Plan, confirmations: Sequence[Confirmation], evaluations: Mapping[int, Evaluation]) -> list[str]:
    """A line for each judge, how well it agrees with labelled answers or with people, and what people may grade."""
    lines = []
    for aspect in find_aspects(metric.name for metric in plan.dev.metrics):
        mine = [each for each in confirmations if get_aspect(each.metric) == aspect]
        told = _describe_grades(plan, aspect, mine, evaluations)
        check = None if told else find_kept_check(plan, aspect)
        lines += [told] if told else [check.format_line()] if check is not None else []
    return [*lines, *_offer_grading(plan, list(evaluations.values()))]


def _describe_grades(
    plan: Plan, aspect: str, confirmations: Sequence[Confirmation], evaluations: Mapping[int, Evaluation]
) -> str:
    """How well the judge agrees with people on the same answers, and what that corrects; "" without their grades."""
    pairs: dict[tuple[str, str], tuple[int, int]] = {}
    for each in evaluations.values():
        scores = each.per_query.get(f"{JUDGE}{aspect}")
        if not each.answers or scores is None:
            continue
        truths = _find_truths(plan, aspect, each)
        # Equal answers of several configurations are one; kappa takes whole grades, and a mean of repeats may be none.
        for row in np.flatnonzero(~np.isnan(truths) & ~np.isnan(scores)):
            pairs[each.query_ids[row], each.answers[row] or ""] = int(truths[row]), round(float(scores[row]))
    if not pairs:
        return ""
    truths_of, grades_of = zip(*pairs.values(), strict=True)
    # Answers to one question are alike, so the interval draws questions whole.
    groups = np.unique([name for name, _ in pairs], return_inverse=True)[1].tolist()
    kappa = compute_kappa(truths_of, grades_of, BEST)
    told = format_kappa(kappa, *compute_kappa_interval(truths_of, grades_of, groups, BEST))
    corrected = [trial for each in confirmations for trial in _correct_differences(plan, each, evaluations)]
    does = (
        f"they correct the difference of {', '.join(f'trial {trial}' for trial in dict.fromkeys(corrected))}"
        if corrected
        else f"nothing is corrected by them: that takes {FEWEST_GRADED} questions with both answers graded"
    )
    agrees = f"weighted kappa {told} with what people gave {len(pairs)} answers"
    return f"judge.{aspect} by {plan.config.judge.model}: {agrees}; {does}"


def _offer_grading(plan: Plan, compared: Sequence[Evaluation]) -> list[str]:
    """Write what people may grade where a judge decides; a line of what to do with it, or none."""
    aspect = get_aspect(plan.objective.names[0])
    # What documents bear out nobody can grade by the answer alone; of a crossfit there is no sample to correct.
    if aspect is None or "answer" not in FIELDS[aspect] or "documents" in FIELDS[aspect] or plan.settings.crossfits:
        return []
    if len(compared) < 2 or not all(each.answers for each in compared):
        return []
    path = plan.settings.folder / TO_GRADE
    known = {query.id: query for query in plan.test.questions.queries.items}
    queries = [known[name] for name in compared[0].query_ids]
    left = write_to_grade(path, aspect, queries, [each.answers for each in compared], plan.settings.seed)
    # None: somebody is at work on the file. Graded to its end and read already, it needs no line.
    if left is None or (not left and plan.grades):
        return []
    todo = f"put 1 to 5 for null in {left} rows of {path}" if left else f"{path} is graded"
    return [f"people's grades correct the judge's: {todo}; run this with {quote_overrides([f'judge.labels={path}'])}"]
