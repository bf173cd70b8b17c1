"""What a reader asks next about the finalists: their other metrics, and whether a range was too narrow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rag_opt.analysis.formats import format_score
from rag_opt.config.search_space import UP_TO

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings
    from rag_opt.storages.snapshot import Trials

NEAR = 0.01
"""Of a range: a value that is as near to its end lies at it."""


def format_p_value(p: float) -> str:
    """A p value to three digits; one that would be 0.000 is <0.001, and an unknown one is nothing."""
    if math.isnan(p):
        return ""
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def tabulate_metrics(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """A table of the finalists' means on the unseen questions, a column for each metric that was measured."""
    arms = findings.confirmation.arms if findings.confirmation else ()
    means = {arm.trial: findings.means.get(str(arm.trial), {}) for arm in arms}
    names = list(dict.fromkeys(name for row in means.values() for name in row))
    told = [[str(arm.trial), arm.role, *_format_means(means[arm.trial], names)] for arm in arms]
    return ["trial", "role", *names], told if names else []


def _format_means(row: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [format_score(row[name]) if name in row else "" for name in names]


def format_edges(findings: Findings, study: Trials) -> str:
    """Which of the selected trial's values lie at the end of what was searched; "" where none does."""
    if findings.confirmation is None:
        return ""
    trial = study.get_trials(deepcopy=False)[findings.confirmation.selected_arm.trial]
    found = [
        f"{name}={trial.params[name]:.4g} ({ends})"
        for name, distribution in trial.distributions.items()
        # The end of a range that another value limits is that value, not an edge of what was searched.
        if UP_TO not in name
        for ends in _format_ends(distribution, trial.params[name])
    ]
    if not found:
        return ""
    return (
        f"at the edge of what was searched: {', '.join(found)} of trial {trial.number}; where values beyond it make "
        "sense, search them, too"
    )


def _format_ends(distribution: BaseDistribution, value: object) -> Iterator[str]:
    """The ends of a range of numbers, where the value lies at one."""
    if isinstance(distribution, CategoricalDistribution):
        # To Python true and false are whole numbers, too.
        numbers = [each for each in distribution.choices if isinstance(each, int | float) and type(each) is not bool]
        # Names have no ends, and of two numbers each is one, which says nothing.
        if len(numbers) < max(3, len(distribution.choices)):
            return
        low, high, log = min(numbers), max(numbers), False
    elif isinstance(distribution, IntDistribution | FloatDistribution):
        low, high, log = distribution.low, distribution.high, distribution.log
    else:
        return
    scale = math.log if log else float
    # A range of a single value has no edge that could be moved.
    if low < high and isinstance(value, int | float):
        place = (scale(value) - scale(low)) / (scale(high) - scale(low))
        # A real number seldom meets its end exactly; whole numbers and choices do.
        if min(place, 1 - place) <= (NEAR if isinstance(distribution, FloatDistribution) else 0):
            yield f"{low:.4g} to {high:.4g}"
