"""`python -m rag_opt.watch models:/<name> [key=value ...]`: what a served model did, and whether that has changed.

Its traces in MLflow are read. Scores and questions are compared with those of the study, errors, thumbs and judges'
grades with what came before, by tests that may be looked at as often as one likes: over all looks a false alarm has a
probability of --alpha. An alarm ends the command with status 1. --judge has a language model grade a sample first,
which llm=, judge.model= and budget.tokens= describe as for a study.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console, sanitize_line
from rag_opt.system import environment

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from rich.table import Table

    from rag_opt.production.registry import Registry
    from rag_opt.production.watching import Watch

# Not REFUSED, which is 2: a script tells an alarm from a watch that could not be made.
ALARM = 1
ASPECTS = ("faithfulness", "context_relevance")
"""What is graded where nothing else is said."""

STAYS = "nothing is rolled back: what has changed is what people ask, which no earlier version would mend"


@command_line("watch", __doc__, ["llm=", "judge.model=", "budget.tokens=", "budget.usd="], studies=False)
def main(
    model: Annotated[str, Argument(help="models:/<name> or models:/<name>@<alias>; the first means the champion")],
    overrides: Annotated[list[str] | None, Argument(help="key=value: of the judge, as for a study")] = None,
    days: Annotated[float, Option(min=0.01, help="how far back")] = 30.0,
    alpha: Annotated[float, Option(min=0.0001, max=0.5, help="probability of a false alarm, ever")] = 0.05,
    judge: Annotated[int, Option(min=0, help="so many answers of each aspect are graded first, once each")] = 0,
    aspect: Annotated[
        list[str] | None, Option(help="what is graded: faithfulness, context_relevance, answer_relevance")
    ] = None,
    page: Annotated[Path | None, Option(help="an HTML file for tables and plots")] = None,
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
        from rag_opt.production.alerts import check_webhook, write_page, write_prometheus
        from rag_opt.production.registry import CHAMPION, Registry, check_name
        from rag_opt.production.watch_page import format_verdict
        from rag_opt.production.watching import watch_model
    # Before anything is read, or a wrong address would be found out at the first alarm.
    check_webhook(webhook)
    registry = Registry.connect(tracking)
    alias = (check_name(model) or CHAMPION) if rollback else ""
    # From here on it is about this version, whatever the alias will mean.
    judged = registry.find(model)
    if judge:
        print(sanitize_line(grade_sample(registry, judged, overrides or (), aspect or ASPECTS, judge, days)))
    found = watch_model(registry, judged, days, alpha)
    print_watch(found)
    if prometheus is not None:
        write_prometheus(found, prometheus)
    if page is not None:
        write_page(found, page)
        print(sanitize_line(f"open: {page}"))
    print(sanitize_line(format_verdict(found)))
    if found.alarms:
        # Last: the files and the verdict are there whatever becomes of a rollback.
        _follow_alarm(found, registry, judged, alias, webhook)
        sys.exit(ALARM)


def _follow_alarm(found: Watch, registry: Registry, judged: ModelVersion, alias: str, webhook: str) -> None:
    """Tell the webhook, and move the alias back if its quality is what got worse; either of them "": not asked for."""
    from rag_opt.production.alerts import post_alarm
    from rag_opt.production.canary import roll_back

    # First, since a rollback may raise; a webhook that fails is only told of.
    if webhook:
        post_alarm(found, webhook)
    if alias:
        worse = ", ".join(stream.name for stream in found.alarms if stream.quality)
        print(sanitize_line(roll_back(registry, judged, alias, f"alarm: {worse}") if worse else STAYS))


def print_watch(found: Watch) -> None:
    """The numbers and tables of a watch."""
    from rag_opt.production.watch_page import format_numbers, tabulate_seconds, tabulate_streams

    for line in format_numbers(found):
        print(sanitize_line(line))
    output = build_console()
    output.print(build_table(*tabulate_seconds(found)))
    output.print(build_table(*tabulate_streams(found)))


def grade_sample(
    registry: Registry, judged: ModelVersion, words: Sequence[str], aspects: Sequence[str], count: int, days: float
) -> str:
    """What a judge graded, and what that cost."""
    from rag_opt.config.compose import compose_config
    from rag_opt.console.progress import Screen
    from rag_opt.production.judged import judge_sample

    with Screen():
        since = time.time() - days * 86_400
        found = judge_sample(registry, judged, compose_config(words), aspects, count, since)
    graded = ", ".join(f"{number:,} for {aspect}" for aspect, number in found.counts.items())
    usd = f", ${found.paid.usd:,.4g}" if found.paid.usd else ""
    told = f"graded: {graded}; paid: {found.paid.calls:,.0f} calls, {found.paid.tokens:,.0f} tokens{usd}"
    return f"{told}; {found.ended}" if found.ended else told


def build_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the terminal, numbers to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(sanitize_line(cell)) for cell in row))
    return table
