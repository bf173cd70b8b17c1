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
from rag_opt.analysis.confirmation import Arm, Confirmation
from rag_opt.analysis.details import format_p_value
from rag_opt.analysis.formats import format_cost, format_score, format_signed
from rag_opt.analysis.history import BASELINE
from rag_opt.config.overrides import to_config_values
from rag_opt.console.terminal import sanitize_line
from rag_opt.storages.attributes import get_attributes

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings
    from rag_opt.storages.snapshot import Trials

TOP = 10

FOUR_DIGITS = re.compile(r"\d+\.\d{4}\b")

Rows = tuple[list[str], list[list[str]]]
"""A table's header and its rows."""


def tabulate_top_trials(study: Trials, findings: Findings) -> Rows:
    """The top trials that keep the constraints (all, where none does) and the baseline, values on the dev questions."""
    complete = history.rank_candidates(study) or history.rank_trials(
        study, history.get_measured(study, TrialState.COMPLETE)
    )
    marks = _find_marks(findings, study)
    shown = complete[:TOP] + [trial for trial in complete[TOP:] if trial.number in marks]
    return ["trial", *findings.targets, "configuration", ""], [
        _format_row(trial, marks, findings.targets) for trial in shown
    ]


def tabulate_seeds(study: Trials, findings: Findings) -> Rows:
    """The baseline and the seeds, best first, values on the dev questions; those that were stopped early are last."""
    complete = history.rank_trials(study, history.get_measured(study, TrialState.COMPLETE))
    found = [*complete, *history.get_measured(study, TrialState.PRUNED)]
    marks = _find_marks(findings, study)
    begun = [trial for trial in found if get_attributes(trial).origin in (BASELINE, history.SEED)]
    return ["trial", *findings.targets, "configuration", ""], [_format_row(t, marks, findings.targets) for t in begun]


def _find_marks(findings: Findings, study: Trials) -> dict[int, list[str]]:
    places = history.find_front_marks(study, findings.targets)
    marks = {t.number: [*places.get(t.number, ()), "front"] if places else ["best"] for t in history.find_front(study)}
    if findings.confirmation:
        marks.setdefault(findings.confirmation.recommended, []).append("recommended")
    for trial in history.get_measured(study, TrialState.COMPLETE):
        if get_attributes(trial).origin == BASELINE:
            marks.setdefault(trial.number, []).append(BASELINE)
    return marks


def _format_row(trial: FrozenTrial, marks: Mapping[int, list[str]], targets: Sequence[str]) -> list[str]:
    words = [*marks.get(trial.number, ())]
    words += ["seed"] if get_attributes(trial).origin == history.SEED else []
    words += [] if history.is_feasible(trial) else ["beyond a constraint"]
    values = [format_score(value) for value in trial.values or ()]
    if trial.state == TrialState.PRUNED:
        # What Optuna keeps of it is the mean of the questions so far, which compares with no other.
        words.append(f"stopped after {get_attributes(trial).questions} questions")
        values = ["-"] * len(targets)
    return [str(trial.number), *values, format_params(to_config_values(trial.params)), ", ".join(words)]


def format_params(params: Mapping[str, Any]) -> str:
    """Parameters in a few words: groups' choices by name, the rest without their group's."""
    parts = [
        f"{name.rpartition('.')[2]}={value:.3g}" if isinstance(value, float) else f"{name.rpartition('.')[2]}={value}"
        for name, value in params.items()
    ]
    return " ".join(parts)


def tabulate_finalists(findings: Findings, place: int = 0) -> Rows:
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
    return header, [_format_finalist(arm, each) for each in found for arm in each.arms]


def _format_finalist(arm: Arm, found: Confirmation) -> list[str]:
    best = ["best"] if arm.trial == found.best and not arm.marks else []
    also = ["recommended"] if arm.trial == found.recommended else []
    also += ["selected"] if found.keeps_baseline and arm is found.selected_arm else []
    role = ", ".join(
        dict.fromkeys([*best, *(arm.marks or [arm.role]), *([BASELINE] if arm.role == BASELINE else []), *also])
    )
    test = _format_interval(format_score, arm.test, arm.low, arm.high) + (
        f" ({arm.coverage:.0%})" if arm.coverage < 1 else ""
    )
    # Only nan differs from itself: there is nothing to compare with.
    if arm.role == BASELINE or arm.difference != arm.difference:
        return [str(arm.trial), role, format_score(arm.dev), test, "", "", "", format_cost(arm.cost)]
    apart = _format_interval(format_signed, arm.difference, arm.difference_low, arm.difference_high)
    outcome = " / ".join(map(str, arm.outcome))
    return [
        str(arm.trial),
        role,
        format_score(arm.dev),
        test,
        apart,
        format_p_value(arm.adjusted),
        outcome,
        format_cost(arm.cost),
    ]


def _format_interval(told: Callable[[float], str], value: float, low: float, high: float) -> str:
    """A value with its interval, where there is one."""
    return told(value) if math.isnan(low) else f"{told(value)} [{told(low)}, {told(high)}]"


def tabulate_costs(findings: Findings, study: Trials) -> Rows:
    """What calls to models cost a question, stage by stage: the selected configuration and the baseline.

    Stored replies count like paid ones; the judges' calls are no part of the pipeline. Broken are, of all questions,
    the calls that failed or gave what could not be read.
    """
    header = ["stage", "of", "calls", "tokens in", "tokens out", "$ for 1,000", "broken"]
    selected = [findings.confirmation.selected_arm.trial] if findings.confirmation else []
    begun = history.find_baseline(study)
    rows = []
    for place in dict.fromkeys([*selected, *([begun.number] if begun else [])]):
        name = BASELINE if begun is not None and place == begun.number else f"trial {place}"
        trial = study.get_trials(deepcopy=False)[place]
        rows += [
            _format_stage_cost(stage, name, spent, findings.dev) for stage, spent in get_attributes(trial).usage.items()
        ]
    return header, rows


def _format_stage_cost(stage: str, name: str, spent: Mapping[str, float], questions: int) -> list[str]:
    each = {column: value / max(1, questions) for column, value in spent.items()}
    # Only nan differs from itself: it stands for a price that is not known.
    usd = "price unknown" if each["usd"] != each["usd"] else f"{1000 * each['usd']:.4g}"
    tokens = [f"{each[column]:,.0f}" for column in ("tokens_in", "tokens_out")]
    return [stage, name, f"{each['calls']:.3g}", *tokens, usd, f"{spent['broken']:,.0f}"]


def _narrow_finalists(findings: Findings, place: int) -> Rows:
    """The finalists by one of the objectives, for a terminal of 80 columns."""
    header, rows = tabulate_finalists(findings, place)
    chosen = [0, 1, 3, 4, 5]
    short = [[FOUR_DIGITS.sub(lambda found: f"{float(found[0]):.3f}", row[place]) for place in chosen] for row in rows]
    return [header[place] for place in chosen], short


def build_rich_table(title: str, content: Rows) -> Table:
    """The rows for a terminal, the recommended ones bold."""
    table = Table(title=sanitize_line(title), title_justify="left")
    for column in content[0]:
        table.add_column(
            sanitize_line(column),
            justify="left" if column in ("study", "stage", "of", "configuration", "role", "") else "right",
            overflow="fold",
        )
    for row in content[1]:
        table.add_row(
            # As Text: Rich would obey markup in a plain string, and cells hold others' words.
            *(Text(sanitize_line(cell)) for cell in row),
            style="bold" if any("recommended" in cell for cell in row) else None,
        )
    return table


def format_pipe_table(content: Rows) -> list[str]:
    """The rows as lines of Markdown."""
    header, rows = content
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    # A | in others' words would end the cell.
    return [*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)]
