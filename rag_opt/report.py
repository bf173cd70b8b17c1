"""A finished study → tables, report.md, best.yaml, and the commands to go on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rag_opt.confirm import Confirmation
from rag_opt.latency import Latency
from rag_opt.progress import clock
from rag_opt.search_space import values_of
from rag_opt.storage import INTERRUPTED

TOP = 10
ORIGIN = "origin"
BASELINE = "baseline"


@dataclass(frozen=True)
class Summary:
    """What a study found, as numbers and texts; the same for the terminal, report.md and MLflow."""

    name: str
    folder: Path
    targets: tuple[str, ...]
    best: FrozenTrial | None
    baseline: FrozenTrial | None
    front: tuple[FrozenTrial, ...]
    counts: Mapping[str, int]
    seconds: float
    confirmation: Confirmation | None
    latencies: Mapping[str, Latency]
    commands: Mapping[str, str]
    store: str
    reason: str


def front_of(study: optuna.Study) -> list[FrozenTrial]:
    """The best complete trials, the first found first among equals: one, or the Pareto front of several objectives."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return []
    if len(study.directions) > 1:
        return ranked(study, study.best_trials)
    return ranked(study, complete)[:1]


def ranked(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials by their first objective, best first, then by number."""
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    return sorted(trials, key=lambda trial: (sign * trial.values[0], trial.number))


def baseline_of(study: optuna.Study) -> FrozenTrial | None:
    """The baseline's complete trial; None when it failed."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((trial for trial in complete if trial.user_attrs.get(ORIGIN) == BASELINE), None)


def counts_of(study: optuna.Study) -> dict[str, int]:
    """How many trials are complete, pruned, failed and interrupted."""
    trials = study.get_trials(deepcopy=False)
    interrupted = sum(INTERRUPTED in trial.user_attrs for trial in trials)
    states = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    return {
        "complete": states[TrialState.COMPLETE],
        "pruned": states[TrialState.PRUNED],
        "failed": states[TrialState.FAIL] - interrupted,
        "interrupted": interrupted,
    }


def seconds_of(study: optuna.Study) -> float:
    """The seconds that all trials took together."""
    spans = [trial.duration for trial in study.get_trials(deepcopy=False) if trial.duration is not None]
    return sum(span.total_seconds() for span in spans)


def rows_of(study: optuna.Study, targets: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the top trials and the baseline, values on the dev questions."""
    complete = ranked(study, study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    front = {trial.number for trial in front_of(study)}
    shown = complete[:TOP] + [t for t in complete[TOP:] if t.user_attrs.get(ORIGIN) == BASELINE or t.number in front]
    header = ["trial", *targets, "configuration", ""]
    return header, [_row(trial, front) for trial in shown]


def _row(trial: FrozenTrial, front: set[int]) -> list[str]:
    marks = ["best" if trial.number in front else "", str(trial.user_attrs.get(ORIGIN, ""))]
    mark = ", ".join(mark for mark in marks if mark and mark != "sampler")
    values = [f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}" for value in trial.values]
    return [str(trial.number), *values, described(values_of(trial.params)), mark]


def described(params: Mapping[str, Any]) -> str:
    """Parameters in a few words: groups' choices by name, the rest without their group's."""
    parts = [
        f"{name.rpartition('.')[2]}={value:.3g}" if isinstance(value, float) else f"{name.rpartition('.')[2]}={value}"
        for name, value in params.items()
    ]
    return " ".join(parts)


def cost_line(summary: Summary) -> str:
    """Trials by their end, and the time they took."""
    counts = ", ".join(f"{count} {name}" for name, count in summary.counts.items() if count)
    return f"{sum(summary.counts.values())} trials ({counts}) in {clock(summary.seconds)} of measuring; {summary.store}"


def printed(summary: Summary, study: optuna.Study, console: Console) -> None:
    """The summary on a terminal."""
    header, rows = rows_of(study, summary.targets)
    table = Table(
        title=f"{summary.name}: top trials (scores on the questions that were searched)", title_justify="left"
    )
    for column in header:
        table.add_column(column, justify="right" if column in ("trial", *summary.targets) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row), style="bold" if row[-1].startswith("best") else None)
    console.print()
    console.print(table)
    console.print(cost_line(summary), markup=False)
    console.print(conclusion(summary), markup=False, style="bold")
    if summary.latencies:
        console.print(latency_line(summary), markup=False)
    console.print()
    for label, command in summary.commands.items():
        console.print(f"{label + ':':<10} {command}", markup=False, soft_wrap=True)


def latency_line(summary: Summary) -> str:
    """What a question costs with the best configuration and with the baseline."""
    parts = "; ".join(f"{name} {latency}" for name, latency in summary.latencies.items())
    asked = next(iter(summary.latencies.values())).questions
    return f"one question at a time, nothing cached ({asked} timed): {parts}"


def conclusion(summary: Summary) -> str:
    """The result in a sentence."""
    if not summary.front:
        return f"No trial was completed. The first failed with: {summary.reason}"
    if summary.confirmation is not None:
        return summary.confirmation.sentence()
    if len(summary.targets) > 1:
        numbers = ", ".join(str(trial.number) for trial in summary.front)
        return f"No configuration is better in all objectives than trials {numbers} (the Pareto front)."
    return "The baseline was not completed, so there is nothing to compare the best trial with."


def markdown(summary: Summary, study: optuna.Study, mermaid: str, fingerprints: Mapping[str, str]) -> str:
    """The summary as report.md."""
    header, rows = rows_of(study, summary.targets)
    lines = [f"# {summary.name}", "", f"**{conclusion(summary)}**", ""]
    if summary.confirmation is not None:
        found = summary.confirmation
        lines += [f"| {found.metric} | dev | test |", "| --- | --- | --- |"]
        pairs = (("best", summary.best, found.best), ("baseline", summary.baseline, found.baseline))
        lines += [
            f"| {name} | {trial.values[0]:.4f} | {test:.4f} |" for name, trial, test in pairs if trial is not None
        ]
        lines.append("")
    if summary.latencies:
        lines += [f"Latency, {latency_line(summary)}.", ""]
    lines += [cost_line(summary), "", "## Commands", "", "```sh"]
    lines += [f"# {label}\n{command}" for label, command in summary.commands.items()]
    lines += ["```", "", "## Top trials", "", "Scores are on the dev questions, the ones that were searched.", ""]
    lines += [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    lines += ["", f"## Pipeline of {_shown_trial(summary)}", "", "```mermaid", mermaid.rstrip(), "```", ""]
    lines += ["## Fingerprints", "", *(f"- {name}: `{value}`" for name, value in fingerprints.items()), ""]
    return "\n".join(lines)


def _shown_trial(summary: Summary) -> str:
    return f"trial {summary.front[0].number}" if summary.front else "the baseline"


def best_yaml(summary: Summary, config: Mapping[str, Any]) -> str:
    """The best configuration (of several objectives the best in the first), with the command that replays it."""
    best = summary.front[0]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in zip(summary.targets, best.values, strict=True))
    head = f"# {summary.name}, trial {best.number}: {scores} on the dev questions\n"
    return (
        head + f"# {summary.commands['replay']}\n" + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    )
