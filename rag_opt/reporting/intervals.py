"""Differences and means with their intervals, as figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import optuna
import plotly.graph_objects as go

from rag_opt.reporting.colours import BLUE, GREEN, GREY, RED

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Arm, Confirmation
    from rag_opt.analysis.findings import Findings


def plot_intervals(findings: Findings, study: optuna.Study) -> go.Figure | None:  # noqa: ARG001 (as the others)
    """Differences from the baseline with their intervals, and below them the means themselves."""
    found = findings.confirmation
    if found is None:
        return None
    # Plotly draws the first row at the bottom.
    arms = list(reversed(found.arms))
    apart = [arm for arm in arms if not math.isnan(arm.difference)]
    figure = go.Figure()
    figure.add_scatter(
        **_build_markers([(arm.test, arm.low, arm.high) for arm in arms], arms, found),
        xaxis="x2",
        yaxis="y2",
    )
    figure.add_scatter(
        **_build_markers([(a.difference, a.difference_low, a.difference_high) for a in apart], apart, found)
    )
    # The baseline has no difference from itself.
    share = (len(arms) / (len(arms) + len(apart))) if arms else 0.5
    metric = findings.targets[0]
    if apart:
        line = {"dash": "dash", "color": GREY}
        figure.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, xref="x", yref="y domain", line=line)
    return figure.update_layout(
        xaxis={"title": "difference from the baseline", "anchor": "y"},
        # The gap between the two holds the upper one's axis title.
        yaxis={"domain": [min(0.9, share + 0.12), 1], "automargin": True},
        xaxis2={"title": f"{metric} on unseen questions", "anchor": "y2"},
        yaxis2={"domain": [0, max(0.1, share - 0.1)], "automargin": True, "anchor": "x2"},
        showlegend=False,
        height=210 + 38 * (len(arms) + len(apart)),
    )


def _build_markers(
    rows: Sequence[tuple[float, float, float]], arms: Sequence[Arm], found: Confirmation
) -> dict[str, Any]:
    colours = [GREEN if arm.trial == found.recommended else GREY if arm.role == "baseline" else BLUE for arm in arms]
    return {
        "x": [value for value, _, _ in rows],
        "y": [_format_arm(arm, found) for arm in arms],
        "mode": "markers",
        "marker": {"size": 11, "color": colours},
        "error_x": build_error_bars(rows),
    }


def _format_arm(arm: Arm, found: Confirmation) -> str:
    role = arm.role
    if arm.trial == found.recommended:
        role = "baseline, recommended" if arm.role == "baseline" else "recommended"
    elif arm is found.selected_arm:
        role = "selected"
    return f"trial {arm.trial}<br>({role})"


def build_error_bars(rows: Sequence[tuple[float, float, float]]) -> dict[str, object]:
    """Error bars of (value, low, high)."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in rows],
        "arrayminus": [value - low for value, low, _ in rows],
        "thickness": 2,
        "color": GREY,
    }


def plot_differences(findings: Findings, study: optuna.Study) -> go.Figure | None:  # noqa: ARG001
    """The selected configuration less the baseline, question by question, sorted."""
    if not findings.differences:
        return None
    sign = next(iter(findings.signs.values()))
    values = sorted(findings.differences)
    colours = [GREEN if sign * value > 0 else RED if value else GREY for value in values]
    figure = go.Figure(go.Bar(y=values, marker={"color": colours, "line": {"width": 0}}))
    figure.update_layout(
        xaxis={"title": "questions, sorted", "showticklabels": False}, yaxis_title=f"Δ {findings.targets[0]}", bargap=0
    )
    return figure
