"""Which change did it: what was selected, measured again with one setting at a time as the baseline has it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.analysis import history, paired
from rag_opt.analysis.findings import Ablation
from rag_opt.config.overrides import format_overrides, to_config_values
from rag_opt.console.progress import track
from rag_opt.console.screens import report_line
from rag_opt.metrics.catalogue import MEASURED_ONCE

if TYPE_CHECKING:
    from rag_opt.config.search_space import SearchSpace, Value
    from rag_opt.config.trial import TrialConfig
    from rag_opt.records.scores import Evaluation
    from rag_opt.storages.snapshot import Trials
    from rag_opt.study.plan import Plan

SHARE, LEAST = 0.2, 10.0
"""Of the seconds that all trials took, and seconds: after them no further setting is put back."""

Values = Mapping[str, "Value"]


def measure_ablations(
    plan: Plan, now: Trials, selected: int | None, evaluations: Mapping[int, Evaluation]
) -> tuple[Ablation, ...]:
    """What each setting brings on the questions that confirm: one that differs from the baseline's, put back alone.

    () without a baseline, where it was selected itself, or where confirmation.ablation says so; by itself that leaves
    out what would pay a model. Settings for which there was no time have nan.
    """
    baseline = history.find_baseline(now)
    if selected not in evaluations or baseline is None or plan.settings.ablation is False:
        return ()
    assert selected is not None
    chosen, begun = (to_config_values(now.get_trials()[number].params) for number in (selected, baseline.number))
    # The last stages first: what changes how texts are cut may have to encode them anew.
    variants = [
        (name, config)
        for name, values in list(put_back(plan.space, chosen, begun))[::-1]
        if (config := plan.test.compose_overrides(format_overrides(values))) and not _is_refused(plan, config)
    ]
    if not variants:
        return ()
    told = "1 setting" if len(variants) == 1 else f"{len(variants)} settings, one at a time,"
    report_line(f"measuring which change did it: {told} put back …")
    end = time.monotonic() + max(LEAST, SHARE * history.sum_seconds(now))
    found = []
    with track("putting back", len(variants)) as done:
        for name, config in variants:
            measured = _measure(plan, name, config) if time.monotonic() < end else None
            found.append(_compare(plan, name, evaluations[selected], measured))
            done(1)
    # Back in the configuration's own order: the reversal was for the clock alone.
    return tuple(found[::-1])


def _is_refused(plan: Plan, config: TrialConfig) -> bool:
    """Whether it would pay a model or a service, a judge among them, and nobody has asked for that."""
    # Only an explicit true may pay: auto spends nothing that nobody has asked for.
    if plan.settings.ablation:
        return False
    return any(metric.pays for metric in plan.test.metrics) or plan.test.make_pipeline(config).pays_per_query


def put_back(space: SearchSpace, chosen: Values, begun: Values) -> Iterator[tuple[str, dict[str, Value]]]:
    """By each setting that both have, and not alike: `chosen` with that setting as it `begun`.

    What exists only with one of its values goes or comes with it, as it was in the beginning. A setting that can't be
    put back alone is left out: an overlap of 40 with chunks of 25, say.
    """
    for name in chosen:
        if name in begun and begun[name] != chosen[name]:
            # `begun` underneath: what comes to exist with the old value has no value in `chosen`.
            values = space.select_active({**begun, **chosen, name: begun[name]})
            if space.find_invalid(values) is None:
                yield name, values


def _measure(plan: Plan, name: str, config: TrialConfig) -> Evaluation | None:
    try:
        return plan.test.measure_config(config)
    except Exception as error:
        # The result stands without it.
        report_line(f"{name} put back could not be measured: {type(error).__name__}: {error}"[:300])
        return None


def _compare(plan: Plan, name: str, selected: Evaluation, put: Evaluation | None) -> Ablation:
    target, groups = plan.objective.names[0], plan.test.questions.groups
    if put is None:
        return Ablation(name)
    apart = selected.per_query[target] - put.per_query[target]
    known = ~np.isnan(apart)
    if not known.any():
        return Ablation(name)
    # Of one value for all questions nothing says how sure it is.
    interval = (math.nan, math.nan)
    if target not in MEASURED_ONCE:
        interval = paired.bootstrap_interval(apart[known], plan.settings.seed, groups=groups[known])
    return Ablation(name, float(apart[known].mean()), *interval)
