"""A finished study → Plotly figures. A figure for which there is too little to show is None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from rag_opt.analysis import history
from rag_opt.analysis.findings import Findings
from rag_opt.config.overrides import to_config_values
from rag_opt.console.screens import report_line
from rag_opt.errors import get_first_line
from rag_opt.reporting.colours import BLUE, GREEN, GREY
from rag_opt.reporting.intervals import plot_differences, plot_intervals
from rag_opt.reporting.optuna_plots import load_visualization
from rag_opt.reporting.parallel import plot_trial_lines
from rag_opt.reporting.tables import format_params
from rag_opt.samplers.effects import Effect, estimate_effects
from rag_opt.storages.attributes import get_attributes

if TYPE_CHECKING:
    from rag_opt.storages.snapshot import Trials

TOP_PARAMETERS = 6
OWN = {"intervals", "differences", "trade_off", "correlations", "stages"}
"""Plots that optuna-dashboard does not draw by itself."""

WIDE = ("slices", "parallel")
"""Plots that a phone shows by scrolling: squeezed they could not be read."""

FEW = 4
"""Trials below which there is nothing to see in a plot of parameters."""


@dataclass(frozen=True)
class Plot:
    """A figure, and what it shows in a sentence."""

    name: str
    title: str
    told: str
    figure: go.Figure
    wide: bool = False


Maker = Callable[[Findings, optuna.Study], go.Figure | None]


def build_plots(findings: Findings, trials: Trials) -> list[Plot]:
    """All figures that can be drawn, in the order in which a reader wants them."""
    made, study = [], history.drop_repeats(trials)
    for name, (title, told, maker) in MAKERS.items():
        figure = build_figure(maker, findings, study)
        if figure is not None:
            made.append(Plot(name, title, told, style_figure(figure), name in WIDE))
    return made


def style_figure(figure: go.Figure) -> go.Figure:
    """The figure in the page's own dress: no ground, no title of its own."""
    figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", template="none")
    figure.update_xaxes(automargin=True)
    return figure.update_layout(margin={"l": 60, "r": 20, "t": 30, "b": 50}, title=None)


def build_figure(maker: Maker, findings: Findings, study: optuna.Study) -> go.Figure | None:
    """The figure, None where it can't be drawn."""
    try:
        return maker(findings, study)
    except (ValueError, RuntimeError) as error:
        # Optuna's plots refuse studies that are too small or too uniform in ways of their own.
        report_line(f"report: {maker.__name__} could not be drawn: {get_first_line(error, 160)}")
        return None


def plot_history(findings: Findings, study: optuna.Study) -> go.Figure | None:
    """Values by trial, and the best so far of those that keep every constraint."""
    trials = history.get_measured(study, TrialState.COMPLETE)
    if len(trials) < 2:
        return None
    name = findings.targets[0]
    kept = [trial for trial in trials if history.is_feasible(trial)]
    broken = [trial for trial in trials if not history.is_feasible(trial)]
    figure = go.Figure()
    for label, colour, some in ((f"{name} (dev)", BLUE, kept), ("breaks a constraint", GREY, broken)):
        if some:
            numbers, texts = [trial.number for trial in some], [_format_hover(trial) for trial in some]
            figure.add_scatter(
                x=numbers, y=[_get_first_value(trial) for trial in some], mode="markers", name=label, text=texts
            )
            figure.update_traces(marker_color=colour, selector={"name": label})
    least = np.minimum if findings.signs[name] < 0 else np.maximum
    best = least.accumulate([_get_first_value(trial) for trial in kept])
    line = {"color": GREEN, "shape": "hv"}
    figure.add_scatter(x=[trial.number for trial in kept], y=best, mode="lines", name="best so far", line=line)
    return figure.update_layout(
        xaxis_title="trial", yaxis_title=f"{name} (dev)", legend={"orientation": "h", "y": 1.15}
    )


def plot_importances(findings: Findings, study: optuna.Study) -> go.Figure | None:
    """What another value of each parameter changes, with its interval."""
    found = _estimate_effects(study)
    if not found:
        return None
    # Plotly draws the first bar at the bottom.
    names, effects = list(found)[::-1], list(found.values())[::-1]
    bars = {
        "array": [each.high - each.size for each in effects],
        "arrayminus": [each.size - each.low for each in effects],
        "color": GREY,
    }
    sizes = [each.size for each in effects]
    figure = go.Figure(go.Bar(x=sizes, y=names, orientation="h", marker_color=BLUE, error_x=bars))
    figure.update_layout(xaxis_title=f"change of {findings.targets[0]}", yaxis={"automargin": True})
    return figure


# Four figures ask for it; `build_plots` gives them one copy of the study, which nothing adds to.
@lru_cache(maxsize=1)
def _estimate_effects(study: optuna.Study) -> Mapping[str, Effect]:
    if len(history.get_measured(study, TrialState.COMPLETE)) < FEW:
        return {}
    return estimate_effects(study.directions, study.get_trials(deepcopy=False))


def _select_parameters(study: optuna.Study) -> list[str]:
    """The parameters that move the score most."""
    return list(_estimate_effects(study))[:TOP_PARAMETERS]


def plot_parallel(findings: Findings, study: optuna.Study) -> go.Figure | None:
    """The trials as lines through their parameters."""
    names = _select_parameters(study)
    if not names:
        return None
    trials = history.get_measured(study, TrialState.COMPLETE)
    return plot_trial_lines(trials, names, findings.targets[0], int(findings.signs[findings.targets[0]]))


def plot_slices(findings: Findings, study: optuna.Study) -> go.Figure | None:
    """Values by each of the top parameters."""
    names = _select_parameters(study)
    if len(history.get_measured(study, TrialState.COMPLETE)) < FEW or not names:
        return None
    target = _get_first_value if len(findings.targets) > 1 else None
    figure = load_visualization().plot_slice(study, names, target=target, target_name=findings.targets[0])
    # Optuna makes room for every parameter in a line; a page has a width, and names that are longer than their plot.
    figure.for_each_xaxis(lambda axis: axis.update(title_text=(axis.title.text or "").replace(".", ".<br>")))
    figure.update_xaxes(tickangle=90, selector={"type": "category"})
    return figure.update_layout(width=None)


def plot_top_contour(findings: Findings, study: optuna.Study) -> go.Figure | None:
    """The two parameters that move the score most, together."""
    names = _select_parameters(study)[:2]
    if len(names) < 2:
        return None
    # Given a target, Optuna forgets the direction and turns the colours round, so a sole objective gets none.
    target = _get_first_value if len(findings.targets) > 1 else None
    return load_visualization().plot_contour(study, names, target=target, target_name=findings.targets[0])


def plot_correlations(findings: Findings, study: optuna.Study) -> go.Figure | None:  # noqa: ARG001
    """Spearman's correlation of the metrics over the complete trials."""
    rows = [get_attributes(trial).metrics for trial in history.get_measured(study, TrialState.COMPLETE)]
    names = [name for name in (rows[0] if rows else {}) if all(name in row for row in rows)]
    # A metric that is the same everywhere has no correlation, and nan for a whole row.
    names = [name for name in names if len({row[name] for row in rows}) > 1]
    # Of two metrics scipy gives a number, no matrix.
    if len(rows) < FEW or len(names) < 3:
        return None
    from scipy import stats

    found: Any = stats.spearmanr([[row[name] for name in names] for row in rows]).statistic
    text = [[f"{value:.2f}" for value in row] for row in found]
    heat = go.Heatmap(z=found, x=names, y=names, zmin=-1, zmax=1, colorscale="RdBu", text=text, texttemplate="%{text}")
    figure = go.Figure(heat)
    figure.update_layout(xaxis={"automargin": True}, yaxis={"automargin": True}, height=120 + 34 * len(names))
    return figure


def plot_trade_off(findings: Findings, study: optuna.Study) -> go.Figure | None:
    """The first objective against the second, or against the cost."""
    names = findings.targets if len(findings.targets) > 1 else (findings.targets[0], findings.cost)
    trials = [t for t in history.rank_candidates(study) if names[1] in get_attributes(t).metrics]
    if len(trials) < 2:
        return None
    best = {trial.number for trial in history.find_front(study)}
    # -1 is no trial's number.
    chosen = findings.confirmation.recommended if findings.confirmation else -1
    figure = go.Figure()
    # What is drawn last lies on top.
    for label, colour, size, kept in (
        ("trials", GREY, 7, [t for t in trials if t.number not in best and t.number != chosen]),
        ("best" if len(findings.targets) == 1 else "Pareto front", BLUE, 10, [t for t in trials if t.number in best]),
        ("recommended", GREEN, 13, [t for t in trials if t.number == chosen]),
    ):
        figure.add_scatter(
            x=[get_attributes(trial).metrics[names[1]] for trial in kept],
            y=[trial.values[0] for trial in kept],
            mode="markers",
            name=label,
            marker={"color": colour, "size": size},
            text=[_format_hover(trial) for trial in kept],
            hoverinfo="text",
        )
    figure.update_layout(xaxis_title=names[1], yaxis_title=f"{names[0]} (dev)", legend={"orientation": "h", "y": 1.12})
    return figure


def plot_stages(findings: Findings, study: optuna.Study) -> go.Figure | None:  # noqa: ARG001
    """Seconds by part: indexing in all, the others per question; logarithmic unless they are within a factor of 10."""
    if not findings.stages:
        return None
    figure = go.Figure()
    for (name, spent), colour in zip(findings.stages.items(), (GREEN, GREY), strict=False):
        parts = [part for part, seconds in spent.items() if seconds > 0]
        figure.add_bar(y=parts, x=[spent[part] for part in parts], orientation="h", name=name, marker_color=colour)
    values = [seconds for spent in findings.stages.values() for seconds in spent.values() if seconds > 0]
    axis: dict[str, object] = {"title": "seconds"}
    if values and max(values) >= 10 * min(values):
        # Powers of 10 alone: on a phone the labels between them run into each other.
        axis = {"title": "seconds, logarithmic", "type": "log", "dtick": 1}
    figure.update_layout(xaxis=axis, yaxis={"automargin": True}, legend={"orientation": "h", "y": 1.12})
    return figure


def _format_hover(trial: FrozenTrial) -> str:
    return f"trial {trial.number}<br>{format_params(to_config_values(trial.params))}"


def _get_first_value(trial: FrozenTrial) -> float:
    return float(trial.values[0])


MAKERS: dict[str, tuple[str, str, Maker]] = {
    "intervals": (
        "On unseen questions",
        "With intervals; the dashed line is the baseline.",
        plot_intervals,
    ),
    "differences": (
        "Question by question",
        "What the search selected less the baseline, a bar a question.",
        plot_differences,
    ),
    "history": (
        "Search",
        "The score of each trial on the questions that were searched, and the best so far.",
        plot_history,
    ),
    "importance": (
        "Importance",
        "What another value of a setting changes, anywhere in the space: the sampler's model, with intervals.",
        plot_importances,
    ),
    "slices": ("Parameters one by one", "The score by each of the top parameters.", plot_slices),
    "parallel": (
        "Parameters together",
        "Each line is a trial, brighter the better; where it breaks off, the trial has no such parameter.",
        plot_parallel,
    ),
    "contour": ("The top two parameters", "The score over the two parameters that move it most.", plot_top_contour),
    "trade_off": (
        "Quality and cost",
        "Each point is a trial; the recommended configuration is marked.",
        plot_trade_off,
    ),
    "correlations": (
        "Metrics",
        "How metrics rank the trials alike (Spearman): 1 the same, -1 the other way round.",
        plot_correlations,
    ),
    "stages": ("Cost by stage", "Seconds: indexing in all, the others per question.", plot_stages),
}
