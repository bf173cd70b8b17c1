"""The end of a multirun: one table of its studies."""

from __future__ import annotations

import sys
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class CompareStudies(Callback):
    """Collects the outcome of each job of a multirun and prints them side by side, best first."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002 (Hydra's)
        if isinstance(job_return._return_value, BaseException) or job_return._return_value is None:
            return
        self.outcomes.append(job_return._return_value)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002 (Hydra's)
        if self.outcomes:
            _print(self.outcomes)
        if any(outcome.error for outcome in self.outcomes):
            sys.exit(2)


def _print(outcomes: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rag_opt.progress import clock

    metric = next((outcome.metric for outcome in outcomes if outcome.metric), "")
    table = Table(title="studies, by their best trial's score on the questions never searched", title_justify="left")
    for column in ("study", f"test {metric}", "baseline", f"dev {metric}", "trials", "measuring"):
        table.add_column(column, justify="left" if column == "study" else "right", overflow="fold")
    for outcome in sorted(outcomes, key=_order):
        row = (
            outcome.overrides or outcome.name,
            *(_number(value) for value in (outcome.test, outcome.test_baseline, outcome.best)),
            str(outcome.trials),
            clock(outcome.seconds),
        )
        table.add_row(*map(Text, row if not outcome.error else (row[0], outcome.error)))
    console = Console()
    console.print()
    console.print(table)


def _order(outcome: Any) -> float:
    if outcome.test is None:
        return float("inf")
    return float(-outcome.test if outcome.maximize else outcome.test)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
