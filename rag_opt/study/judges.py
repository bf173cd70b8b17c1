"""The judge of a study: measured before trial 0, its errors allowed for when it has decided, people's grades asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.analysis.judging import correct_scores, widen_intervals
from rag_opt.console.progress import report_line, track
from rag_opt.errors import ComponentError
from rag_opt.evaluation.judging import build_judges, find_aspects, parse_judge_settings
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.metrics.agreement import compute_kappa, compute_kappa_interval
from rag_opt.metrics.aspects import BEST, FIELDS
from rag_opt.metrics.catalogue import JUDGE
from rag_opt.metrics.grades import TO_GRADE, find_truths, write_to_grade
from rag_opt.metrics.judge_check import JudgeCheck, check_judge, explain_refusal
from rag_opt.metrics.labelled import build_labelled

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Confirmation
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
    wrong = []
    with track("preflight: judges measured on labelled answers", len(aspects)) as advance:
        for aspect in aspects:
            try:
                wrong.append(_measure_judge(plan, judges, aspect, decides=aspect in deciding))
            except BudgetSpentError:
                return
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
    # As a negation, so that one of which nothing can be read is refused.
    return explain_refusal(found, settings.floor) if refuses and not found.kappa >= settings.floor else ""


def measure_kept_judge(plan: Plan, aspect: str) -> JudgeCheck | None:
    """What is known of the judge of an aspect, by verdicts that are kept; None where it was never measured."""
    count = parse_judge_settings(plan.config).check if plan.settings.preflight else 0
    if not count:
        return None
    judges = build_judges(plan.config, [aspect], repeats=1).use_resources(plan.resources)
    try:
        return check_judge(judges, aspect, build_labelled(aspect, count))
    except (ComponentError, BudgetSpentError):
        # Its verdicts were not kept, and it can't be asked any more.
        return None


def allow_for_judge(plan: Plan, found: Confirmation) -> Confirmation:
    """The confirmation with intervals that allow for the judge's own uncertainty, where a judge graded its metric.

    Where people have graded enough, theirs correct the judge's instead, and the intervals are as they should be.
    """
    aspects = find_aspects([found.metric])
    if not aspects or found.metric != f"{JUDGE}{aspects[0]}" or plan.grades:
        return found
    check = measure_kept_judge(plan, aspects[0])
    return found if check is None else widen_intervals(found, check.right - check.wrong, check.error)


def correct_by_people(plan: Plan, metric: str, evaluation: Evaluation) -> Scores:
    """The scores of a metric, those of a judge corrected by what people gave some of the answers."""
    scores, aspects = evaluation.per_query[metric], find_aspects([metric])
    if not plan.grades or not aspects or not evaluation.answers or metric != f"{JUDGE}{aspects[0]}":
        return scores
    return correct_scores(scores, find_truths(plan.grades, aspects[0], evaluation.query_ids, evaluation.answers))


def describe_judges(plan: Plan, evaluations: Mapping[int, Evaluation]) -> list[str]:
    """A line for each judge: how well it agrees with labelled answers, or with people."""
    lines = []
    for aspect in find_aspects(metric.name for metric in plan.dev.metrics):
        told = _describe_grades(plan, aspect, evaluations)
        check = None if told else measure_kept_judge(plan, aspect)
        lines += [told] if told else [check.format_line()] if check is not None else []
    return lines


def _describe_grades(plan: Plan, aspect: str, evaluations: Mapping[int, Evaluation]) -> str:
    """How well the judge agrees with what people gave the same answers; "" where nobody has graded any."""
    pairs: dict[tuple[str, str], tuple[int, int]] = {}
    for each in evaluations.values():
        scores = each.per_query.get(f"{JUDGE}{aspect}")
        if not each.answers or scores is None:
            continue
        truths = find_truths(plan.grades, aspect, each.query_ids, each.answers)
        for row in np.flatnonzero(~np.isnan(truths) & ~np.isnan(scores)):
            pairs[each.query_ids[row], each.answers[row] or ""] = int(truths[row]), round(float(scores[row]))
    if not pairs:
        return ""
    truths_of, grades_of = zip(*pairs.values(), strict=True)
    groups = np.unique([name for name, _ in pairs], return_inverse=True)[1].tolist()
    kappa = compute_kappa(truths_of, grades_of, BEST)
    low, high = compute_kappa_interval(truths_of, grades_of, groups, BEST)
    return (
        f"judge.{aspect} by {plan.config.judge.model}: weighted kappa {kappa:.2f} [{low:.2f}, {high:.2f}] with what "
        f"people gave {len(pairs)} answers, by which its own grades are corrected"
    )


def offer_grading(plan: Plan, compared: Sequence[Evaluation]) -> list[str]:
    """Write what people may grade where a judge decides; a line of what to do with it, or none."""
    target = plan.objective.names[0]
    aspects = find_aspects([target])
    # What documents bear out nobody can grade by the answer alone; of a crossfit there is no sample to correct.
    asked = [aspect for aspect in aspects if "answer" in FIELDS[aspect] and "documents" not in FIELDS[aspect]]
    if not asked or plan.grades or plan.settings.crossfits or not compared or not all(e.answers for e in compared):
        return []
    path = plan.settings.folder / TO_GRADE
    known = {query.id: query for query in plan.test.questions.queries.items}
    queries = [known[name] for name in compared[0].query_ids]
    count = write_to_grade(path, asked[0], queries, [each.answers for each in compared], plan.settings.seed)
    if not count:
        return []
    told = f"people's grades correct the judge's: put 1 to 5 for null in the {count} rows of {path}"
    return [f"{told}, and run this again with judge.labels={path}"]
