"""A contest of samplers as people see it: on a terminal, as a page with its figure, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from rich.console import Console

from rag_opt.reporting import page
from rag_opt.reporting.figures import Plot, style_figure
from rag_opt.reporting.tables import build_rich_table, format_pipe_table
from rag_opt.simulation.contest import Contest, format_table_verdict, tabulate_samplers


def print_contest(contest: Contest, console: Console) -> None:
    """The tables, and a sentence for each."""
    for title, tables in _group_tables(contest):
        header, content = tabulate_samplers(contest, tables)
        # A terminal is narrow: the errors are in the files.
        narrow = [[cell.partition(" ±")[0] for cell in row] for row in content]
        console.print(build_rich_table(title, (header, narrow)))
    for table in contest.tables:
        console.print(format_table_verdict(contest, table), markup=False)


def _group_tables(contest: Contest) -> list[tuple[str, list[str]]]:
    parts = [(f"{table}: {contest.about[table]}", [table]) for table in contest.tables]
    return [*parts, (f"all {len(parts)} tables", contest.tables)] if len(parts) > 1 else parts


def write_contest(contest: Contest, out: Path) -> Path:
    """replay.md, replay.json (every run) and replay.html in this folder; gives the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ["# Samplers, replayed", "", f"{_format_rules(contest)} {TOLD}", ""]
    sections = []
    for index, (title, tables) in enumerate(_group_tables(contest)):
        content = tabulate_samplers(contest, tables)
        lines += [f"## {title}", "", *format_pipe_table(content), ""]
        sections.append(page.Section(f"table{index}", title, TOLD, *content))
    verdicts = [format_table_verdict(contest, table) for table in contest.tables]
    (out / "replay.md").write_text("\n".join([*lines, *(f"- {line}" for line in verdicts), ""]), "utf-8")
    # NaN and Infinity are no JSON, though Python writes them unless it is forbidden.
    (out / "replay.json").write_text(json.dumps(_build_json(contest), allow_nan=False), "utf-8")
    plots = [plot_contest(contest, tables, index) for index, (_, tables) in enumerate(_group_tables(contest))]
    text = page.render_template(
        title="samplers, replayed",
        verdict=" ".join(verdicts) if len(verdicts) <= TOLD_FIRST else f"{len(verdicts)} tables: see the end",
        why=_format_rules(contest),
        command="",
        # That of all tables, or of the only one.
        first=plots[-1:],
        plots=plots[:-1],
        tables=sections,
        losses=(),
        lines=verdicts,
        texts={},
    )
    (out / "replay.html").write_text(text, "utf-8")
    return out / "replay.html"


def _format_rules(contest: Contest) -> str:
    rules = contest.rules
    asked = f"{rules.questions} questions a trial" if rules.questions else "all questions of its half"
    return f"{rules.seeds} searches of each sampler, each on another half of the questions, with {asked}."


TOLD_FIRST = 5
"""Tables whose sentences stand at the head of the page."""


TOLD = (
    "Measurements until 99 % of the best (half of the searches / nine of ten); regret after so many, on searched and "
    "on unseen questions (0: the best configuration, 1: the median one), with standard errors over seeds; shares of "
    "the questions asked and of draws at random; milliseconds a draw."
)


def plot_contest(contest: Contest, tables: Sequence[str], index: int) -> Plot:
    """Regret on dev and, dotted, on unseen questions, by measurements; one standard error around the first."""
    figure = go.Figure()
    # Grey for the first, which is random by default, then ColorBrewer's Dark2.
    colours = ("#888888", "#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d")
    steps = list(range(1, contest.budget + 1))
    for name, colour in zip(contest.samplers, colours * len(contest.samplers), strict=False):
        entries = [entry for entry in contest.get_entries(name) if entry.table in tables]
        each = np.mean([[run.dev for run in entry.runs] for entry in entries], axis=0)
        unseen = np.mean([[run.test for run in entry.runs] for entry in entries], axis=(0, 1))
        # One seed has no deviation; with ddof=0 it is 0, and the figure has a line without a band.
        mean, error = each.mean(axis=0), each.std(axis=0, ddof=min(1, len(each) - 1)) / np.sqrt(len(each))
        # The band's outline: along its upper edge, and back along the lower one.
        edge = [*(mean + error), *(mean - error)[::-1]]
        around = {"fill": "toself", "fillcolor": colour, "opacity": 0.15, "line": {"width": 0}, "hoverinfo": "skip"}
        figure.add_scatter(x=[*steps, *steps[::-1]], y=edge, showlegend=False, legendgroup=name, **around)
        figure.add_scatter(x=steps, y=mean, name=name, legendgroup=name, line={"color": colour})
        dotted = {"color": colour, "dash": "dot", "width": 1}
        figure.add_scatter(x=steps, y=unseen, showlegend=False, legendgroup=name, line=dotted)
    figure.update_layout(
        xaxis_title="measured configurations",
        yaxis_title="regret (dotted: unseen questions)",
        legend={"orientation": "h", "y": 1.15},
    )
    title = tables[0] if len(tables) == 1 else f"all {len(tables)} tables"
    told = "0 is the best configuration, 1 the median one. Whole lines: searched questions; dotted: unseen ones."
    return Plot(f"regret{index}", title, told, style_figure(figure))


def _build_json(contest: Contest) -> dict[str, object]:
    runs = [
        {
            "table": entry.table,
            "sampler": entry.sampler,
            **{key: _replace_infinite(np.asarray(value).tolist()) for key, value in asdict(run).items()},
        }
        for entry in contest.entries
        for run in entry.runs
    ]
    return {"about": dict(contest.about), "rules": asdict(contest.rules), "runs": runs}


def _replace_infinite(value: Any) -> Any:
    """As JSON has it: what was never reached is null."""
    if isinstance(value, int | float):
        return round(value, 5) if math.isfinite(value) else None
    return [_replace_infinite(each) for each in value]
