"""What comes after the last trial, and about how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from rag_opt.analysis import history
from rag_opt.console.progress import format_duration
from rag_opt.evaluation.latency import MOST
from rag_opt.storages.attributes import get_attributes

if TYPE_CHECKING:
    from rag_opt.storages.snapshot import StudySnapshot
    from rag_opt.study.plan import Plan

REPORT = 5.0
"""Seconds for figures, the page, and MLflow's copy of them."""

ALONE = 3.0
"""A question that is asked by itself takes so many times what it takes among others (0.01 s of it are no model's)."""


def estimate_seconds(plan: Plan, now: StudySnapshot) -> float:
    """About how long confirming, timing and reporting will take, judged by the best trial; 0.0 before there is one."""
    best = history.rank_candidates(now)[:1]
    if not best:
        return 0.0
    spent = get_attributes(best[0]).seconds
    dev, test = plan.dev.questions.count, plan.test.questions.count
    question = float(spent.get("query", 0.0))
    # By the longest, which had least of it from the store; of a model that answers several at once it is less than
    # what each answer takes.
    complete = history.get_measured(now, TrialState.COMPLETE)
    asking = max(float(get_attributes(trial).seconds.get("evaluation", 0.0)) for trial in complete)
    # A crossfit's questions have been asked already.
    confirming = 0.0 if plan.settings.crossfits else (2 + plan.settings.ties) * test * asking / max(1, dev)
    # The recommended, the best and the baseline are asked twice each: once to warm up.
    timing = 3 * 2 * min(MOST, test) * (ALONE * question + 0.01)
    return confirming + timing + REPORT


INDEXING = ("splitter", "embedder", "index")
"""The groups of which another choice or value means another index."""


def format_estimate(plan: Plan, now: StudySnapshot) -> str:
    """After the baseline, and no other trial: about how long all of the study will take; "" at any other time.

    At least what asking and judging the baseline took for each trial; at most the whole of it, where the space has
    other indexes to make.
    """
    complete, baseline = history.get_measured(now, TrialState.COMPLETE), history.find_baseline(now)
    left = plan.settings.n_trials - len(complete)
    if baseline is None or len(complete) > 1 or left < 1 or baseline.duration is None:
        return ""
    whole = baseline.duration.total_seconds()
    asking = min(whole, float(get_attributes(baseline).seconds.get("evaluation", whole)))
    varied = any(parameter.name.partition(".")[0] in INDEXING for parameter in plan.space.parameters)
    after = estimate_seconds(plan, now)
    least, most = left * asking + after, left * (whole if varied else asking) + after
    told = (
        format_duration(least)
        if format_duration(least) == format_duration(most)
        else f"{format_duration(least)} to {format_duration(most)}"
    )
    return (
        f"judged by the baseline ({format_duration(whole)}) the rest takes about {told}: {left} "
        f"trial{'s' * (left != 1)}, "
        f"and {format_duration(after)} to confirm, time and report"
    )
