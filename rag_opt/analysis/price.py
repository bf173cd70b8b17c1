"""What the selected configuration costs beside the baseline, and in which settings it differs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from rag_opt.analysis import history
from rag_opt.analysis.formats import NEGLIGIBLE, format_signed
from rag_opt.analysis.history import BASELINE
from rag_opt.config.overrides import to_config_values
from rag_opt.storages.attributes import get_attributes

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Ablation, Findings
    from rag_opt.config.search_space import Value
    from rag_opt.storages.snapshot import Trials

COUNTED = ("tokens", "usd")
"""Metrics whose change is told, beside the one that decides among ties; seconds are from the timing of finalists."""


def _find_pair(findings: Findings, study: Trials) -> tuple[FrozenTrial, FrozenTrial] | None:
    """The baseline's trial and the selected one; None where they are the same, or either is not there."""
    found, baseline = findings.confirmation, history.find_baseline(study)
    if found is None or baseline is None or found.selected_arm.trial == baseline.number:
        return None
    return baseline, study.get_trials(deepcopy=False)[found.selected_arm.trial]


def format_price(findings: Findings, study: Trials) -> str:
    """What a question costs more or less than with the baseline, such as "+67 % tokens, +8 % latency"; "" unless known.

    Tokens, dollars and what decides among ties are means over the searched questions, `latency` is the median of
    questions asked one at a time.
    """
    pair = _find_pair(findings, study)
    return "" if pair is None else ", ".join(_format_changes(findings, *pair))


def _format_changes(findings: Findings, baseline: FrozenTrial, chosen: FrozenTrial) -> Iterator[str]:
    before, after = (get_attributes(trial).metrics for trial in (baseline, chosen))
    wanted = dict.fromkeys([*COUNTED, findings.cost])
    # What a trial took says little when the store had most of it, so latency comes from the finalists' timing.
    for name in (each for each in wanted if each not in findings.targets and not each.startswith("latency")):
        yield from _format_change(name, before.get(name, math.nan), after.get(name, math.nan))
    timed = [findings.latencies.get(name) for name in (BASELINE, f"trial {chosen.number}")]
    if timed[0] is not None and timed[1] is not None:
        yield from _format_change("latency", timed[0].p50, timed[1].p50)


def _format_change(name: str, before: float, after: float) -> Iterator[str]:
    """The change in percent; nothing where a share of the former says nothing."""
    if before > 0 and math.isfinite(after):
        share = after / before - 1
        yield f"the same {name}" if abs(share) < NEGLIGIBLE else f"{100 * share:+,.0f} % {name}"


def tabulate_settings(findings: Findings, study: Trials) -> tuple[list[str], list[list[str]]]:
    """The settings in which the selected configuration differs from the baseline, a row each; "-": not there.

    With what each brings, where that was measured: nothing for a setting that only comes or goes with another.
    """
    pair, found = _find_pair(findings, study), findings.confirmation
    if pair is None or found is None:
        return ["setting", BASELINE, "recommended"], []
    header = ["setting", BASELINE, f"trial {pair[1].number}" if found.keeps_baseline else "recommended"]
    before, after = (to_config_values(trial.params) for trial in pair)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    rows = [[name, _format_setting(before, name), _format_setting(after, name)] for name in names]
    brought = {each.setting: _format_ablation(each) for each in findings.ablations}
    if not any(brought.values()):
        return header, rows
    return [*header, f"effect on {findings.targets[0]}"], [[*row, brought.get(row[0], "")] for row in rows]


def _format_ablation(found: Ablation) -> str:
    if math.isnan(found.difference):
        return ""
    interval = "" if math.isnan(found.low) else f" [{format_signed(found.low)}, {format_signed(found.high)}]"
    return f"{format_signed(found.difference)}{interval}"


def _format_setting(values: dict[str, Value], name: str) -> str:
    value = values.get(name, "-")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
