"""What a watch found → tables, and one HTML file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from rag_opt.production.watching import list_limits
from rag_opt.reporting.colours import BLUE, GREEN, GREY, ORANGE
from rag_opt.reporting.figures import Plot, style_figure
from rag_opt.reporting.page import Section, render_template

if TYPE_CHECKING:
    from rag_opt.production.watching import Observation, Watch

Table = tuple[list[str], list[list[str]]]
"""A header, and rows."""


def format_numbers(found: Watch) -> Iterator[str]:
    """How much was asked and what it cost."""
    rows = found.observations
    failed, empty = sum(row.failed for row in rows), sum(not row.hits and not row.failed for row in rows)
    yield f"{found.model}: {len(rows):,} questions, {failed:,} failed, {empty:,} found nothing"
    # What has no known price (nan) is left out, so it is the least that was paid.
    usd = math.fsum(row.usd for row in rows if not math.isnan(row.usd))
    yield f"  {sum(row.tokens for row in rows):,} tokens, ${usd:,.4f}"


def format_verdict(found: Watch) -> str:
    """Whether anything has changed."""
    if found.alarms:
        return f"ALARM: {', '.join(stream.name for stream in found.alarms)} changed (alpha {found.alpha:g})"
    return f"no alarm: nothing has changed that chance would not explain (alpha {found.alpha:g})"


def tabulate_seconds(found: Watch) -> Table:
    """A row for the whole and for each part: the percentiles of its milliseconds."""
    rows = [
        [part or "whole", *(f"{1000 * each:,.1f}" for each in found.get_percentiles(part))]
        for part in ("", *found.parts)
    ]
    return ["milliseconds", "p50", "p95", "p99"], rows


def tabulate_streams(found: Watch) -> Table:
    """A row a stream: what it means, what was expected, what betting on a change has won, what the usual rule says."""
    rows = []
    for stream, limit in zip(found.streams, list_limits(found.streams, found.alpha), strict=True):
        usual = "quiet" if stream.usual < 0 else f"fires after {stream.usual:,}"
        numbers = ("" if math.isnan(each) else f"{each:.3f}" for each in (stream.mean, stream.expected))
        evidence = (f"{stream.drift.reached:,.1f}", f"{limit:,.0f}")
        rows.append([stream.name, f"{stream.count:,}", *numbers, *evidence, usual])
    return ["watched", "values", "mean", "expected", "evidence", "alarm at", "usual rule"], rows


def render_watch(found: Watch) -> str:
    """The page of a watch."""
    seconds = "By part of the pipeline, of all questions in this time."
    means = (
        "Evidence is what betting on a change has won; where nothing changes it reaches the alarm's limit with a "
        f"probability of at most {found.alpha:g}, over all looks. The usual rule, the last 10 below 0.9 of the 40 "
        "before, fires on noise."
    )
    return render_template(
        title=f"{found.model}: watch",
        verdict=format_verdict(found),
        why="",
        command="",
        first=[],
        plots=[_plot_days(found), _plot_seconds(found), _plot_evidence(found)],
        tables=[
            Section("streams", "Watched", means, *tabulate_streams(found)),
            Section("seconds", "Milliseconds", seconds, *tabulate_seconds(found)),
        ],
        losses=(),
        lines=[*format_numbers(found), f"read {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from the model's traces"],
        texts={},
    )


def _group_days(found: Watch) -> dict[str, list[Observation]]:
    days: dict[str, list[Observation]] = {}
    for row in found.observations:
        days.setdefault(f"{datetime.fromtimestamp(row.at, UTC):%Y-%m-%d}", []).append(row)
    return days


def _plot_days(found: Watch) -> Plot:
    days = _group_days(found)
    kinds = {
        "answered": (BLUE, [sum(not row.failed and row.hits > 0 for row in rows) for rows in days.values()]),
        "found nothing": (GREY, [sum(not row.failed and not row.hits for row in rows) for rows in days.values()]),
        "failed": (ORANGE, [sum(row.failed for row in rows) for rows in days.values()]),
    }
    bars = [go.Bar(name=name, x=list(days), y=counts, marker_color=colour) for name, (colour, counts) in kinds.items()]
    # By category: Plotly takes such texts for dates, and would leave room for days without a question.
    figure = go.Figure(bars).update_layout(barmode="stack", yaxis_title="questions", xaxis_type="category")
    return Plot(
        "days", "Questions a day", "How many were asked, and how many failed or found nothing.", style_figure(figure)
    )


def _plot_seconds(found: Watch) -> Plot:
    days = _group_days(found)
    lines = [
        go.Scatter(
            name=f"p{quantile}",
            x=list(days),
            y=[1000 * float(np.nanpercentile([row.total for row in rows], quantile)) for rows in days.values()],
            mode="lines+markers",
            line_color=colour,
        )
        for quantile, colour in ((50, GREEN), (95, BLUE))
    ]
    figure = go.Figure(lines).update_layout(yaxis_title="milliseconds", yaxis_rangemode="tozero", xaxis_type="category")
    return Plot(
        "slow", "Milliseconds a day", "Of whole answers, the median and the 95th percentile.", style_figure(figure)
    )


def _plot_evidence(found: Watch) -> Plot:
    lines = [
        go.Scatter(
            name=stream.name,
            y=[value / limit for value in stream.drift.path],
            x=list(range(1, stream.count + 1)),
            mode="lines",
        )
        for stream, limit in zip(found.streams, list_limits(found.streams, found.alpha), strict=True)
    ]
    longest = max((stream.count for stream in found.streams), default=1)
    # A line of its own: an annotation on a log axis is placed by its exponent.
    alarm = go.Scatter(name="alarm", x=[1, longest], y=[1.0, 1.0], mode="lines", line={"dash": "dash", "color": GREY})
    figure = go.Figure([*lines, alarm])
    figure.update_layout(yaxis_type="log", yaxis_title="evidence (1: alarm)", xaxis_title="values so far")
    told = (
        "What betting on a change has won after each value, as a share of what an alarm takes, on a log scale; at the "
        "dashed line one is due."
    )
    return Plot("evidence", "Evidence of a change", told, style_figure(figure))
