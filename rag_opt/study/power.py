"""What the questions that are kept to confirm can show, said before the search has spent anything on finding it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import TrialState

from rag_opt.analysis import history
from rag_opt.analysis.formats import round_count, round_difference
from rag_opt.analysis.paired import average_groups, compute_detectable
from rag_opt.metrics.catalogue import MEASURED_ONCE

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from rag_opt.records.documents import Ints, Scores
    from rag_opt.storages.snapshot import StudySnapshot
    from rag_opt.storages.trial_files import TrialFiles
    from rag_opt.study.plan import Plan

SHARE = 0.8
"""Of the spread of one configuration's scores, that of its differences from another's, where only one was measured.

The medians on five recorded grids were 0.32, 0.62, 0.79, 0.79 and 1.01 (studies/samplers/grids): rather too much.
"""

WIDER = 1.2
"""By this a crossfit's interval is wider than that of one configuration, since its choices differ.

As measured where there was a difference to find (studies/confirmation.py).
"""

FEWEST_TRIALS = 10
"""Of fewer differences from the baseline nothing is said of metrics."""

SHARPER = 1.5
"""A metric that needs so many times fewer questions is named."""


def format_power(plan: Plan, files: TrialFiles, now: StudySnapshot) -> str:
    """After the baseline, and again once all seeds are measured: which difference will be shown; "" at other times.

    By the baseline alone it is a guess from how much its scores spread, by the seeds their differences say it.
    """
    measured = history.get_measured(now, TrialState.COMPLETE, TrialState.PRUNED)
    baseline = history.find_baseline(now)
    if baseline is None or len(measured) not in (1, len(plan.seeds)) or plan.objective.names[0] in MEASURED_ONCE:
        return ""
    others = [trial for trial in measured if trial.number != baseline.number and trial.state == TrialState.COMPLETE]
    spread = _estimate_spread(plan, files, baseline, others)
    # The differences from a configuration that ranks alike are 0, and say nothing of others.
    if not spread > 0:
        return ""
    test, dev = (len(np.unique(side.questions.groups)) for side in (plan.test, plan.dev))
    unit = "groups of questions" if plan.test.questions.grouped else "questions"
    by = "the seeds' differences from the baseline" if others else "the spread of the baseline's scores"
    wide = WIDER * spread if plan.settings.crossfits else spread
    shown, noise = round_difference(compute_detectable(wide, test)), round_difference(spread / math.sqrt(dev))
    # An interval narrows with the root of the questions: half the difference takes four times as many.
    return (
        f"{test:,} {unit} to confirm show a difference of {shown} in 8 of 10 studies; half of it would take about "
        f"{round_count(4 * test):,} (judged by {by}). On the {dev:,} searched ones {noise} is noise: "
        "stopping=regret ends a search that can gain little beside it"
    )


def _estimate_spread(plan: Plan, files: TrialFiles, baseline: FrozenTrial, others: list[FrozenTrial]) -> float:
    """The standard deviation of a question's difference from the baseline; nan where nothing says it."""
    name, groups = plan.objective.names[0], plan.dev.questions.groups
    own, *rest = (files.load_scores(trial, [name]).get(name) for trial in (baseline, *others))
    if own is None:
        return math.nan
    found = [_compute_deviation(own - each, groups) for each in rest if each is not None]
    return float(np.median(found)) if found else SHARE * _compute_deviation(own, groups)


def _compute_deviation(values: Scores, groups: Ints) -> float:
    known = ~np.isnan(values)
    each = average_groups(values[known], groups[known])
    return float(each.std(ddof=1)) if len(each) > 1 else math.nan


def format_sharper_metric(plan: Plan, files: TrialFiles, now: StudySnapshot) -> str:
    """The metric of the same purpose that tells the trials from the baseline with fewest questions; "" where none does.

    Of one purpose are metrics that need and read the same: nDCG@10, RR@10 and AP@10 of a ranking, say.
    """
    baseline, target = history.find_baseline(now), plan.objective.names[0]
    metrics = {metric.name: metric for metric in plan.objective.metrics}
    own = metrics.get(target)
    if baseline is None or own is None or own.single:
        return ""
    purpose = (own.needs, own.reads, own.direction, own.pays)
    names = [n for n, m in metrics.items() if (m.needs, m.reads, m.direction, m.pays) == purpose and not m.single]
    trials = [t for t in history.get_measured(now, TrialState.COMPLETE) if t.number != baseline.number]
    reference = files.load_scores(baseline, [target])
    books = [files.load_scores(trial, [target]) for trial in trials]
    found = {name: _compute_sharpness(name, reference, books, plan.dev.questions.groups) for name in names}
    if len(trials) < FEWEST_TRIALS or not found.get(target, 0) > 0:
        return ""
    best = max(found, key=lambda name: found[name])
    ratio = found[best] / found[target]
    if ratio < SHARPER:
        return ""
    return (
        f"{best} tells this study's configurations apart with {1 / ratio:.0%} of the questions that {target} needs (by "
        f"{len(trials)} trials' differences from the baseline): where it serves the same purpose, search by it"
    )


def _compute_sharpness(
    name: str, reference: Mapping[str, Scores], books: Sequence[Mapping[str, Scores]], groups: Ints
) -> float:
    """Squared mean by variance of a question's difference, less what noise alone gives; the mean over trials."""
    found = []
    for book in books:
        if name in book and name in reference:
            apart = book[name] - reference[name]
            known = ~np.isnan(apart)
            each = average_groups(apart[known], groups[known])
            spread = each.std(ddof=1) if len(each) > 1 else 0.0
            # Of two that rank alike nothing is to be told apart.
            if spread > 0:
                # Where nothing differs the square is 1 / n on average.
                found.append(float(each.mean() / spread) ** 2 - 1 / len(each))
    return float(np.mean(found)) if found else 0.0
