"""A finished study → tables, as rows of text: for a terminal, for Markdown, for the page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from rag_opt.analysis import history
from rag_opt.analysis.confirmation import Arm, Confirmation, number, scored, signed
from rag_opt.analysis.details import p_value
from rag_opt.analysis.history import BASELINE
from rag_opt.config.overrides import values_of
from rag_opt.console.terminal import inline
from rag_opt.storages.attributes import attributes_of

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings
    from rag_opt.storages.moment import Trials

TOP = 10

FOUR_DIGITS = re.compile(r"\d+\.\d{4}\b")

Rows = tuple[list[str], list[list[str]]]
"""A table's header and its rows."""


def top_trials(study: Trials, findings: Findings) -> Rows:
    """The top trials that keep the constraints (all, where none does) and the baseline, values on the dev questions."""
    complete = history.candidates(study) or history.ranked(study, history.finished(study, TrialState.COMPLETE))
    marks = _marks(findings, study)
    shown = complete[:TOP] + [trial for trial in complete[TOP:] if trial.number in marks]
    return ["trial", *findings.targets, "configuration", ""], [_row(trial, marks, findings.targets) for trial in shown]


def beginnings(study: Trials, findings: Findings) -> Rows:
    """The baseline and the seeds, best first, values on the dev questions; those that were stopped early are last."""
    complete = history.ranked(study, history.finished(study, TrialState.COMPLETE))
    found = [*complete, *history.finished(study, TrialState.PRUNED)]
    marks = _marks(findings, study)
    begun = [trial for trial in found if attributes_of(trial).origin in (BASELINE, history.SEED)]
    return ["trial", *findings.targets, "configuration", ""], [_row(t, marks, findings.targets) for t in begun]


def _marks(findings: Findings, study: Trials) -> dict[int, list[str]]:
    places = history.marks_of(study, findings.targets)
    marks = {t.number: [*places.get(t.number, ()), "front"] if places else ["best"] for t in history.front_of(study)}
    if findings.confirmation:
        marks.setdefault(findings.confirmation.recommended, []).append("recommended")
    for trial in history.finished(study, TrialState.COMPLETE):
        if attributes_of(trial).origin == BASELINE:
            marks.setdefault(trial.number, []).append(BASELINE)
    return marks


def _row(trial: FrozenTrial, marks: Mapping[int, list[str]], targets: Sequence[str]) -> list[str]:
    words = [*marks.get(trial.number, ())]
    words += ["seed"] if attributes_of(trial).origin == history.SEED else []
    words += [] if history.feasible(trial) else ["beyond a constraint"]
    values = [scored(value) for value in trial.values or ()]
    if trial.state == TrialState.PRUNED:
        # What Optuna keeps of it is the mean of the questions so far, which compares with no other.
        words.append(f"stopped after {attributes_of(trial).questions} questions")
        values = ["-"] * len(targets)
    return [str(trial.number), *values, described(values_of(trial.params)), ", ".join(words)]


def described(params: Mapping[str, Any]) -> str:
    """Parameters in a few words: groups' choices by name, the rest without their group's."""
    parts = [
        f"{name.rpartition('.')[2]}={value:.3g}" if isinstance(value, float) else f"{name.rpartition('.')[2]}={value}"
        for name, value in params.items()
    ]
    return " ".join(parts)


def finalists(findings: Findings, place: int = 0) -> Rows:
    """The configurations that were measured on the test questions, against the baseline, by one of the objectives."""
    header = [
        "trial",
        "role",
        "dev",
        "test",
        "against the baseline",
        "p",
        "won / lost / tied",
        findings.cost,
    ]
    found = findings.confirmations[place : place + 1]
    return header, [_finalist(arm, each) for each in found for arm in each.arms]


def _finalist(arm: Arm, found: Confirmation) -> list[str]:
    best = ["best"] if arm.trial == found.best and not arm.marks else []
    also = ["recommended"] if arm.trial == found.recommended else []
    role = ", ".join(
        dict.fromkeys([*best, *(arm.marks or [arm.role]), *([BASELINE] if arm.role == BASELINE else []), *also])
    )
    test = _spanned(scored, arm.test, arm.low, arm.high) + (f" ({arm.coverage:.0%})" if arm.coverage < 1 else "")
    if arm.role == BASELINE or arm.difference != arm.difference:
        return [str(arm.trial), role, scored(arm.dev), test, "", "", "", number(arm.cost)]
    apart = _spanned(signed, arm.difference, arm.difference_low, arm.difference_high)
    outcome = " / ".join(map(str, arm.outcome))
    return [
        str(arm.trial),
        role,
        scored(arm.dev),
        test,
        apart,
        p_value(arm.adjusted),
        outcome,
        number(arm.cost),
    ]


def _spanned(told: Callable[[float], str], value: float, low: float, high: float) -> str:
    """A value with its interval, where there is one."""
    return told(value) if math.isnan(low) else f"{told(value)} [{told(low)}, {told(high)}]"


def costs(findings: Findings, study: Trials) -> Rows:
    """What calls to models cost a question, stage by stage: the recommended configuration and the baseline.

    Stored replies count like paid ones; the judges' calls are no part of the pipeline. Broken are, of all questions,
    the calls that failed or gave what could not be read.
    """
    header = ["stage", "of", "calls", "tokens in", "tokens out", "$ for 1,000", "broken"]
    chosen = [findings.confirmation.recommended] if findings.confirmation else []
    begun = history.baseline_of(study)
    rows = []
    for place in dict.fromkeys([*chosen, *([begun.number] if begun else [])]):
        name = BASELINE if begun is not None and place == begun.number else f"trial {place}"
        trial = study.get_trials(deepcopy=False)[place]
        rows += [_stage_cost(stage, name, spent, findings.dev) for stage, spent in attributes_of(trial).usage.items()]
    return header, rows


def _stage_cost(stage: str, name: str, spent: Mapping[str, float], questions: int) -> list[str]:
    each = {column: value / max(1, questions) for column, value in spent.items()}
    usd = "price unknown" if each["usd"] != each["usd"] else f"{1000 * each['usd']:.4g}"
    tokens = [f"{each[column]:,.0f}" for column in ("tokens_in", "tokens_out")]
    return [stage, name, f"{each['calls']:.3g}", *tokens, usd, f"{spent['broken']:,.0f}"]


def _narrow(findings: Findings, place: int) -> Rows:
    """The finalists by one of the objectives, for a terminal of 80 columns."""
    header, rows = finalists(findings, place)
    chosen = [0, 1, 3, 4, 5]
    short = [[FOUR_DIGITS.sub(lambda found: f"{float(found[0]):.3f}", row[place]) for place in chosen] for row in rows]
    return [header[place] for place in chosen], short


def as_table(title: str, content: Rows) -> Table:
    """The rows for a terminal, the recommended ones bold."""
    table = Table(title=inline(title), title_justify="left")
    for column in content[0]:
        table.add_column(
            inline(column),
            justify="left" if column in ("study", "stage", "of", "configuration", "role", "") else "right",
            overflow="fold",
        )
    for row in content[1]:
        table.add_row(
            *(Text(inline(cell)) for cell in row), style="bold" if any("recommended" in cell for cell in row) else None
        )
    return table


def pipes(content: Rows) -> list[str]:
    """The rows as lines of Markdown."""
    header, rows = content
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    return [*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)]
