"""What the unseen questions allow to say, and why a configuration is recommended: in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rag_opt.analysis import advice
from rag_opt.analysis.confirmation import BASELINE
from rag_opt.analysis.formats import format_cost, format_signed, round_count

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Arm, Confirmation

MANY = 10_000
"""More questions than this are told as such."""


def format_evidence(found: Confirmation) -> str:
    """What the evidence allows to say of the selected configuration."""
    arm = found.selected_arm
    where = _format_place(found, found.questions)
    if found.baseline is None:
        return f"{found.metric} {arm.test:.4f} {where}; the baseline was not completed: nothing to compare with"
    if arm.role == BASELINE:
        return f"{found.metric}: the baseline stays: no configuration was better beyond noise and as cheap"
    pairs = sum(arm.outcome)
    if pairs < 2:
        return f"{found.metric}: nothing can be shown with {pairs} {_name_unit(found)} kept to confirm; bring more"
    where = _format_place(found, pairs)
    apart = "" if found.baseline_kept else " (the baseline itself breaks a constraint)"
    # Whom this is about, where it is not the one that is recommended.
    subject = f" of trial {arm.trial}" if found.keeps_baseline else ""
    return f"{found.metric}{subject}: {_format_difference(found, arm, where)}{apart}"


def _name_unit(found: Confirmation) -> str:
    """What is counted: questions, the different ones, or groups of them."""
    if found.grouped:
        return "groups of questions"
    return "different questions" if found.asked > found.questions else "questions"


def _format_place(found: Confirmation, count: int) -> str:
    if found.crossfitted:
        return f"on all {count} {_name_unit(found)}, each judged by a choice made without it"
    return f"on {count} {_name_unit(found)} the search never saw"


def _format_difference(found: Confirmation, arm: Arm, where: str) -> str:
    difference, low, high = map(format_signed, (arm.difference, arm.difference_low, arm.difference_high))
    span = f"{difference} [{low}, {high}]"
    if math.isnan(arm.p):
        return f"{format_signed(arm.difference)} against the baseline (one measurement for all questions: no interval)"
    if arm.difference_low == arm.difference_high == 0.0:
        return f"no difference from the baseline {where}"
    if found.shown:
        return f"better than the baseline by {span} {where}"
    if found.worse:
        return f"worse than the baseline by {span} {where}"
    needed = _format_needed(arm.needed, sum(arm.outcome))
    return f"no difference from the baseline could be shown {where}: {span}{_format_stake(found, arm)}{needed}"


def _format_stake(found: Confirmation, arm: Arm) -> str:
    """What keeping the baseline may cost; "" where it is not kept."""
    # More being better for the comparison, in the metric's own direction when it is told.
    most = max(found.sign * arm.difference_low, found.sign * arm.difference_high)
    return f"; at most {format_signed(found.sign * most)} is to be gained" if found.keeps_baseline and most > 0 else ""


def _format_needed(count: int | None, asked: int) -> str:
    # So many there were: what was in the way is that several configurations were compared.
    if count is None or count <= asked:
        return ""
    return (
        f"; more than {MANY:,} would be needed" if count > MANY else f"; about {round_count(count):,} would be needed"
    )


def explain_choice(found: Confirmation) -> str:
    """Why this one is recommended."""
    arm, baseline = found.selected_arm, found.baseline
    if found.keeps_baseline:
        return _explain_baseline(found, arm, found.recommended_arm)
    if found.case == advice.CHEAPER and baseline is not None:
        cost = f"{found.cost} {format_cost(arm.cost)} against {format_cost(baseline.cost)}"
        return f"trial {arm.trial}: as good as the baseline within noise, and cheaper: {cost}"
    name = f"trial {arm.trial}" + (" (the baseline)" if arm.role == BASELINE else "")
    if not found.all_tied:
        return f"{name}: no other is within noise of it on the questions that were searched"
    # Older findings (-1) do not name the best, which is their first arm.
    if arm.trial == (found.arms[0].trial if found.best < 0 else found.best):
        return f"{name}: the best; of {found.all_tied} tied with it within noise none is cheaper ({found.cost})"
    told = f"{name}: the cheapest of {found.all_tied + 1} tied within noise: {found.cost} {format_cost(arm.cost)}"
    best = next((other for other in found.arms if other.trial == found.best), found.arms[0])
    return told if best is arm else f"{told}, against {format_cost(best.cost)} of the best, trial {best.trial}"


def _explain_baseline(found: Confirmation, arm: Arm, baseline: Arm) -> str:
    """Why the baseline stays, although dev has selected another."""
    told = f"the baseline (trial {baseline.trial}): trial {arm.trial}, which the search selected, is"
    if found.case == advice.WORSE:
        return f"{told} worse"
    if not advice.is_cheaper(arm, baseline):
        return f"{told} not better beyond noise, and not cheaper ({found.cost})"
    # Cheaper, and not taken: it may lose elsewhere, or more than noise explains, or there is nothing to go by.
    return f"{told} cheaper ({found.cost}), and nothing shows that it is as good"


def explain_alike(found: Confirmation) -> str:
    """What there is to say of an objective that tells no configuration from another."""
    arm = found.recommended_arm
    return (
        f"Nothing to choose by: all {found.alike} configurations have the very same {found.metric} for every "
        f"question; trial {arm.trial} is as cheap as any ({found.cost} {format_cost(arm.cost)}). Choose "
        "objective.metrics that tell them apart"
    )
