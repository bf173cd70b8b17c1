"""The trials of a study as lines through their parameters, drawn with what the page's small Plotly has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from optuna.trial import FrozenTrial
from plotly.colors import sample_colorscale

COLOURS = "Cividis"
"""From dark to bright, for people who see colours differently, too."""


class Axis(NamedTuple):
    """A parameter: where each trial crosses it, from 0 to 1 (None: it has none), and what is written where."""

    name: str
    places: list[float | None]
    ticks: dict[float, str]


def plot_trial_lines(trials: Sequence[FrozenTrial], names: Sequence[str], target: str, sign: int) -> go.Figure:
    """A line a trial, brighter the better, through the target and these parameters; a gap where it has none."""
    values = [trial.values[0] for trial in trials]
    axes = [_build_number_axis(target, values, log=False), *(_build_axis(trials, name) for name in names)]
    worst, span = min(sign * value for value in values), (max(values) - min(values)) or 1.0
    # Scatter lines: Plotly's own parallel coordinates are not in the part of it that the page carries.
    figure = go.Figure()
    for row, trial in enumerate(trials):
        (colour,) = sample_colorscale(COLOURS, [(sign * values[row] - worst) / span])
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[row] for axis in axes],
            mode="lines",
            line={"color": colour, "width": 1.5},
            hoverinfo="text",
            text=f"trial {trial.number}: {target} {values[row]:.4g}",
        )
    for place, axis in enumerate(axes):
        figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": "#8a8a8a", "width": 1})
        for height, text in axis.ticks.items():
            figure.add_annotation(x=place, y=height, text=text, showarrow=False, xanchor="left", xshift=4)
    ticks = {"tickvals": list(range(len(axes))), "ticktext": [axis.name.replace(".", ".<br>") for axis in axes]}
    return figure.update_layout(
        # Room on the right: the last axis' labels stand beside it.
        xaxis={**ticks, "showgrid": False, "zeroline": False, "range": [-0.1, len(axes) - 0.4]},
        yaxis={"visible": False, "range": [-0.04, 1.04]},
        showlegend=False,
    )


def _build_axis(trials: Sequence[FrozenTrial], name: str) -> Axis:
    given = [trial.params.get(name) for trial in trials]
    log = any(getattr(trial.distributions.get(name), "log", False) for trial in trials)
    # A bool is an int in Python, and would get an axis of numbers.
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in given):
        return _build_number_axis(name, given, log=log)
    # As texts, since choices may mix numbers and words, which don't sort.
    kinds = sorted({str(value) for value in given if value is not None})
    heights = {kind: place / max(1, len(kinds) - 1) for place, kind in enumerate(kinds)}
    return Axis(
        name, [None if each is None else heights[str(each)] for each in given], {h: k for k, h in heights.items()}
    )


def _build_number_axis(name: str, given: Sequence[Any], *, log: bool) -> Axis:
    known = [value for value in given if value is not None]
    scale = math.log if log else float
    low, high = scale(min(known)), scale(max(known))
    span = (high - low) or 1.0
    ticks = {0.0: f"{min(known):.4g}"} | ({1.0: f"{max(known):.4g}"} if high > low else {})
    return Axis(name, [None if value is None else (scale(value) - low) / span for value in given], ticks)
