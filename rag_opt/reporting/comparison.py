"""Several studies side by side: what each recommends on unseen questions, how fast it got there, what it cost."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import plotly.graph_objects as go
from optuna.trial import TrialState
from rich.console import Console

from rag_opt.analysis import history
from rag_opt.analysis.findings import Findings
from rag_opt.analysis.formats import capitalize_first
from rag_opt.console.progress import format_duration
from rag_opt.reporting import page
from rag_opt.reporting.across import ABOUT, tabulate_collections
from rag_opt.reporting.colours import BLUE
from rag_opt.reporting.figures import Plot, style_figure
from rag_opt.reporting.intervals import build_error_bars
from rag_opt.reporting.tables import Rows, build_rich_table, format_pipe_table
from rag_opt.storages.snapshot import Trials

FILE = "comparison.html"
Finished = tuple[Findings, Trials]


def compare_studies(
    found: Sequence[tuple[Findings, optuna.Study]], folders: Sequence[Path], console: Console | None = None
) -> Path:
    """Write comparison.html and comparison.md into the folder that all have in common; gives the page's path.

    Only studies of the same metric on the same questions share a table, an order and a figure.
    """
    studies = [(findings, findings.get_snapshot(study)) for findings, study in found]
    # Absolute, since commonpath refuses a mix of both kinds.
    place = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    groups = group_comparable(studies)
    tables = [(_format_title(group, groups), tabulate_studies(group)) for group in groups]
    across = tabulate_collections(found, folders)
    told = format_verdict(studies)
    if console is not None:
        for title, content in (*tables, *across):
            console.print(build_rich_table(title, content))
        console.print(told, markup=False)
    (place / FILE).write_text(_render_comparison(studies, groups, tables, across, told), "utf-8")
    lines = [f"# {len(studies)} studies compared", "", told, ""]
    for title, content in (*tables, *across):
        lines += [*([f"## {title}", ""] if len(tables) > 1 else []), *format_pipe_table(content), ""]
    lines += [ABOUT, ""] if across else []
    (place / "comparison.md").write_text("\n".join(lines), "utf-8")
    return place / FILE


def group_comparable(studies: Sequence[Finished]) -> list[list[Finished]]:
    """The studies whose scores can be compared: of the same first metric, on the same questions and documents."""
    groups: dict[tuple[str, str], list[Finished]] = {}
    for pair in studies:
        groups.setdefault((pair[0].targets[0], pair[0].fingerprints.get("dataset", "")), []).append(pair)
    return list(groups.values())


def _format_title(group: Sequence[Finished], groups: Sequence[Sequence[Finished]]) -> str:
    """What a table is called; where another has the same metric the collection's size tells them apart."""
    first = group[0][0]
    metric = first.targets[0]
    if len(groups) == 1:
        return "studies, by their recommended configuration on unseen questions"
    twice = sum(each[0][0].targets[0] == metric for each in groups) > 1
    told = f", {first.documents:,} documents, {first.test:,} questions kept to confirm" if twice else ""
    return f"studies of {metric}{told}"


def _render_comparison(
    studies: Sequence[Finished],
    groups: Sequence[Sequence[Finished]],
    tables: Sequence[tuple[str, Rows]],
    across: Sequence[tuple[str, Rows]],
    told: str,
) -> str:
    # A plot's name becomes an element's id on the page, so that of each group has a number.
    drawn = [
        replace(
            plot, name=f"{plot.name}{number or ''}", title=plot.title if len(groups) == 1 else f"{plot.title}: {title}"
        )
        for number, (group, (title, _)) in enumerate(zip(groups, tables, strict=True))
        for plot in (_plot_scores(group), _plot_regret(group))
        if plot is not None
    ]
    about = "Scores on the questions never searched, with their intervals; the best first."
    sections = [
        page.Section(f"studies{number or ''}", "Studies" if len(groups) == 1 else title, about, *content)
        for number, (title, content) in enumerate(tables)
    ]
    sections += [
        page.Section(f"across{number}", capitalize_first(title), ABOUT if not number else "", *content)
        for number, (title, content) in enumerate(across)
    ]
    return page.render_template(
        title=f"{len(studies)} studies compared",
        verdict=told,
        why="",
        command="",
        first=drawn[:1],
        plots=drawn[1:],
        tables=sections,
        losses=(),
        lines=[],
        texts={findings.name: findings.commands.get("replay", "") for findings, _ in studies},
    )


def get_label(findings: Findings) -> str:
    """A study's name without the folder that it shares with the others of its multirun."""
    return findings.name.rpartition("/")[2]


def format_verdict(studies: Sequence[Finished]) -> str:
    """The best on unseen questions, and whether the others' intervals reach it; of each group that can be compared."""
    groups = group_comparable(studies)
    if len(groups) == 1:
        return _format_best(studies)
    if len({group[0][0].targets[0] for group in groups}) > 1:
        told = "These studies optimise different metrics: their scores are not comparable."
    else:
        told = "These studies ask different questions or search other documents: their scores are not comparable."
    return " ".join([told, *(_format_best(group) for group in groups if len(group) > 1)])


def _format_best(studies: Sequence[Finished]) -> str:
    order = _rank_studies(studies)
    if not order:
        return "None of these studies has confirmed a configuration."
    first = order[0][0]
    best = first.confirmation.recommended_arm if first.confirmation else None
    # `_rank_studies` leaves out studies without a confirmation.
    assert best is not None
    level = [f for f, _ in order[1:] if f.confirmation and _is_within_interval(f, best.test)]
    told = f"{get_label(first)} found the best on unseen questions: {first.targets[0]} {best.test:.4f}"
    if not order[1:]:
        return f"{told}."
    return (
        f"{told}; {len(level)} of {len(order) - 1} others have it within their own interval. "
        f"The best of {len(order)} is flattered: these studies are not tested against each other."
    )


def _is_within_interval(findings: Findings, score: float) -> bool:
    found = findings.confirmation
    assert found is not None
    return found.recommended_arm.high >= score if found.sign > 0 else found.recommended_arm.low <= score


def _rank_studies(studies: Sequence[Finished]) -> list[Finished]:
    found = [pair for pair in studies if pair[0].confirmation is not None]
    return sorted(found, key=lambda pair: -_compute_goodness(pair[0]))


def _compute_goodness(findings: Findings) -> float:
    found = findings.confirmation
    return found.sign * found.recommended_arm.test if found else float("-inf")


def tabulate_studies(studies: Sequence[Finished]) -> Rows:
    """One row a study, the best on the unseen questions first, those without a result last."""
    metric = studies[0][0].targets[0]
    header = ["study", f"test {metric}", "against the baseline", f"dev {metric}", "trials", "measuring"]
    order = _rank_studies(studies)
    rest = [pair for pair in studies if pair[0].confirmation is None]
    return header, [_format_row(findings, study) for findings, study in [*order, *rest]]


def _format_row(findings: Findings, study: Trials) -> list[str]:
    counts, spent = sum(history.count_outcomes(study).values()), format_duration(history.sum_seconds(study))
    found = findings.confirmation
    if found is None:
        return [get_label(findings), "", findings.reason[:80], "", str(counts), spent]
    arm, selected = found.recommended_arm, found.selected_arm
    test = f"{arm.test:.4f} [{arm.low:.4f}, {arm.high:.4f}]"
    # Where the baseline is kept it is what is recommended, and has no difference from itself.
    low, high = selected.difference_low, selected.difference_high
    apart = f"{selected.difference:+.4f} [{low:+.4f}, {high:+.4f}]{', baseline kept' if found.keeps_baseline else ''}"
    return [
        get_label(findings),
        test,
        apart if selected.role != "baseline" else "the baseline",
        f"{arm.dev:.4f}",
        str(counts),
        spent,
    ]


def _plot_scores(studies: Sequence[Finished]) -> Plot | None:
    # Plotly draws the first row at the bottom.
    order = list(reversed(_rank_studies(studies)))
    if not order:
        return None
    arms = [findings.confirmation.recommended_arm for findings, _ in order if findings.confirmation]
    figure = go.Figure()
    figure.add_scatter(
        x=[arm.test for arm in arms],
        y=[get_label(findings) for findings, _ in order],
        mode="markers",
        marker={"size": 11, "color": BLUE},
        error_x=build_error_bars([(arm.test, arm.low, arm.high) for arm in arms]),
    )
    figure.update_layout(
        xaxis_title=f"{order[0][0].targets[0]} on unseen questions",
        yaxis={"automargin": True},
        height=140 + 40 * len(arms),
    )
    return Plot(
        "scores",
        "On unseen questions",
        "Means of what each study recommends, with their intervals.",
        style_figure(figure),
    )


def _plot_regret(studies: Sequence[Finished]) -> Plot | None:
    """The distance to the best dev score of all studies, by trial."""
    curves = {get_label(findings): _compute_best_curve(findings, study) for findings, study in studies}
    reached = [value for curve in curves.values() for value in curve if value > -math.inf]
    if not reached:
        return None
    best = max(reached)
    figure = go.Figure()
    for name, curve in curves.items():
        figure.add_scatter(
            x=list(range(1, len(curve) + 1)),
            # No line until a trial kept the constraints.
            y=[best - value if value > -math.inf else None for value in curve],
            name=name,
            line_shape="hv",
        )
    figure.update_layout(
        xaxis_title="complete trials", yaxis_title="regret (dev)", legend={"orientation": "h", "y": 1.15}
    )
    told = "How far the best so far is from the best of all studies, on the questions that were searched."
    return Plot("regret", "Regret", told, style_figure(figure))


def _compute_best_curve(findings: Findings, study: Trials) -> list[float]:
    """The best value after each complete trial, -inf while none kept the constraints."""
    sign = next(iter(findings.signs.values()))
    best, curve = -math.inf, []
    for trial in history.get_measured(study, TrialState.COMPLETE):
        # What breaks a constraint is no result, however well it scores.
        best = max(best, sign * trial.values[0]) if history.is_feasible(trial) else best
        curve.append(best)
    return curve
