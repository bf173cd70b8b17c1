"""`python -m rag_opt.watch models:/<name>`: what a served model was asked and did, and whether that has changed.

Its traces in MLflow are read. Scores and questions are compared with those of the study, errors, thumbs and judges'
grades with what came before, by tests that may be looked at as often as one likes: over all looks a false alarm has a
probability of --alpha. An alarm ends the command with status 1.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console, sanitize_line
from rag_opt.system import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from rag_opt.production.watching import Watch

ALARM = 1
STAYS = "nothing is rolled back: what has changed is what people ask, which no earlier version would mend"


@command_line("watch", __doc__, studies=False)
def main(
    model: Annotated[str, Argument(help="models:/<name> or models:/<name>@<alias>; the first means the champion")],
    days: Annotated[float, Option(min=0.01, help="how far back")] = 30.0,
    alpha: Annotated[float, Option(min=0.0001, max=0.5, help="probability of a false alarm, ever")] = 0.05,
    prometheus: Annotated[
        Path | None, Option(help="write the numbers there for node_exporter's textfile collector")
    ] = None,
    rollback: Annotated[
        bool, Option(help="on an alarm of its quality the alias goes back to the version before, a challenger's ends")
    ] = False,
    webhook: Annotated[str, Option(help="on an alarm, POST it there as JSON; https, or http on this machine")] = "",
    tracking: Annotated[
        str | None, Option(help="MLflow's address; MLFLOW_TRACKING_URI or studies/mlflow.db where none is given")
    ] = None,
) -> None:
    """The command line."""
    print(sanitize_line("rag_opt.watch: reading traces, which takes some seconds"))
    with environment.disable_gc():
        environment.silence_optuna()
        from rag_opt.production.alerts import check_webhook, post_alarm, write_prometheus
        from rag_opt.production.canary import roll_back
        from rag_opt.production.registry import CHAMPION, Registry, check_name
        from rag_opt.production.watching import watch_model
    check_webhook(webhook)
    registry = Registry.connect(tracking)
    alias = (check_name(model) or CHAMPION) if rollback else ""
    found = watch_model(registry, model, days, alpha)
    for line in format_numbers(found):
        print(sanitize_line(line))
    output = build_console()
    output.print(build_seconds(found))
    output.print(build_streams(found))
    if prometheus is not None:
        write_prometheus(found, prometheus)
    if not found.alarms:
        print(sanitize_line(f"no alarm: nothing has changed that chance would not explain (alpha {alpha:g})"))
        return
    print(sanitize_line(f"ALARM: {', '.join(stream.name for stream in found.alarms)} changed (alpha {alpha:g})"))
    if webhook:
        post_alarm(found, webhook)
    if rollback:
        worse = ", ".join(stream.name for stream in found.alarms if stream.quality)
        told = roll_back(registry, registry.find(model).name, alias, f"alarm: {worse}") if worse else STAYS
        print(sanitize_line(told))
    sys.exit(ALARM)


def format_numbers(found: Watch) -> Iterator[str]:
    """How much was asked and what it cost."""
    rows = found.observations
    failed, empty = sum(row.failed for row in rows), sum(not row.hits and not row.failed for row in rows)
    yield f"{found.model}: {len(rows):,} questions, {failed:,} failed, {empty:,} found nothing"
    usd = math.fsum(row.usd for row in rows if not math.isnan(row.usd))
    yield f"  {sum(row.tokens for row in rows):,} tokens, ${usd:,.4f}"


def build_seconds(found: Watch) -> Table:
    """A row for the whole and for each part: the percentiles of its milliseconds."""
    from rich.table import Table

    table = Table()
    for name in ("milliseconds", "p50", "p95", "p99"):
        table.add_column(name, justify="left" if name == "milliseconds" else "right", overflow="fold")
    for part in ("", *found.parts):
        table.add_row(sanitize_line(part or "whole"), *(f"{1000 * each:,.1f}" for each in found.get_percentiles(part)))
    return table


def build_streams(found: Watch) -> Table:
    """A row a stream: what it means, what was expected, what betting on a change has won, what the usual rule says."""
    from rich.table import Table

    limit = len(found.streams) / found.alpha
    table = Table()
    for name in ("watched", "values", "mean", "expected", f"evidence, alarm at {limit:,.0f}", "usual rule"):
        table.add_column(name, justify="left" if name == "watched" else "right", overflow="fold")
    for stream in found.streams:
        usual = "quiet" if stream.usual < 0 else f"fires after {stream.usual:,}"
        numbers = ("" if math.isnan(each) else f"{each:.3f}" for each in (stream.mean, stream.expected))
        table.add_row(sanitize_line(stream.name), f"{stream.count:,}", *numbers, f"{stream.drift.reached:,.1f}", usual)
    return table
