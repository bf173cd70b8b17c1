"""A finished study → sentences, tables, report.md, best.yaml, and what a terminal shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState
from rich.console import Console

from rag_opt.analysis import history
from rag_opt.analysis.details import format_edges, tabulate_metrics
from rag_opt.analysis.formats import capitalize_first, format_score
from rag_opt.analysis.history import BASELINE
from rag_opt.analysis.price import format_price, tabulate_settings
from rag_opt.analysis.verdict import explain_alike, explain_choice, format_evidence
from rag_opt.config.experiments import format_experiment
from rag_opt.config.overrides import format_overrides, to_config_values
from rag_opt.console.progress import format_duration
from rag_opt.console.terminal import sanitize_line
from rag_opt.reporting.inference import format_level, format_looks, format_method
from rag_opt.reporting.tables import (
    _narrow_finalists,
    build_rich_table,
    format_pipe_table,
    tabulate_costs,
    tabulate_finalists,
    tabulate_top_trials,
)
from rag_opt.storages.attributes import get_attributes
from rag_opt.study import failures, terminator

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings
    from rag_opt.storages.snapshot import Trials


def format_conclusion(findings: Findings, study: Trials) -> str:
    """The result in a sentence, or two, what it costs, and how many trials failed."""
    counts = history.count_outcomes(study)
    tried = counts["complete"] + counts["pruned"] + counts["failed"]
    failed = f"; {counts['failed']} of {tried} trials failed" if counts["failed"] else ""
    paid = format_price(findings, study)
    kept = "Keep the baseline. " if findings.confirmation and findings.confirmation.keeps_baseline else ""
    return f"{kept}{_format_result(findings, study)}{f'; its price: {paid}' if paid else ''}{failed}"


def _format_result(findings: Findings, study: Trials) -> str:
    front = history.find_front(study)
    if not front:
        complete = history.get_measured(study, TrialState.COMPLETE)
        if complete:
            return f"None of {len(complete)} complete trials keeps the constraints; loosen them, or search more"
        return f"No trial was completed. The first failed with: {findings.reason}"
    confirmed = ". ".join(_collect_evidence(findings))
    if len(findings.targets) == 1:
        return confirmed or "The best configuration could not be measured on the unseen questions: nothing is confirmed"
    numbers = ", ".join(str(trial.number) for trial in front)
    knee = history.find_knee(study, front)
    if len(front) == 1:
        return f"Trial {numbers} is the best in all objectives: the Pareto front is that trial alone. {confirmed}"
    best = f"No configuration is better in all objectives than trials {numbers} (the Pareto front)"
    return f"{best}; its knee is trial {knee.number}. {confirmed}" if knee else f"{best}. {confirmed}"


def _collect_evidence(findings: Findings) -> list[str]:
    """What the unseen questions show of the selected configuration, objective by objective."""
    found = findings.confirmations
    stays = bool(found) and found[0].selected_arm.role == BASELINE
    # Where the baseline was selected nothing is compared, and one objective says so.
    return [format_evidence(each) for each in (found[:1] if stays else found)]


def format_recommendation(findings: Findings) -> str:
    """Which configuration, and why; "" without a confirmation."""
    if findings.confirmation is None:
        return ""
    if findings.confirmation.alike:
        return explain_alike(findings.confirmation)
    of = f" (of the front's, by {findings.targets[0]})" if findings.others else ""
    return f"Recommended: {explain_choice(findings.confirmation)}{of}"


def format_settings_title(findings: Findings) -> str:
    """Whose settings are told beside the baseline's."""
    found = findings.confirmation
    if found is not None and found.keeps_baseline:
        return f"what trial {found.selected_arm.trial} would change"
    return "what the recommended configuration changes"


def format_ablation(findings: Findings) -> str:
    """What the settings' own differences are; "" where none was measured."""
    if all(math.isnan(each.difference) for each in findings.ablations):
        return ""
    crossfitted = findings.confirmation is not None and findings.confirmation.crossfitted
    whose = "all questions, which were searched," if crossfitted else "the unseen questions"
    return (
        f"The effect of a setting: the score on {whose} less that with this setting, and what depends on it, put back. "
        "Where settings interact, these need not add up."
    )


def format_paid(findings: Findings) -> str:
    """What this study was charged for; "" where no model was asked."""
    if not findings.paid:
        return ""
    paid, told = findings.paid, findings.forecast
    expected = f" (forecast: {told['calls']:,.0f} calls, {told['tokens']:,.0f} tokens)" if told else ""
    return (
        f"paid for: {paid['calls']:,.0f} calls to models, {paid['tokens']:,.0f} tokens, ${paid['usd']:,.4g}{expected}; "
        "whatever had been asked before came from the store"
    )


def format_noise(findings: Findings) -> str:
    """How much the judge disagrees with itself; "" where that was not measured."""
    if not findings.noise:
        return ""
    spread, share = findings.noise["spread"], findings.noise["share"]
    return (
        f"the judge's own noise: repeated grades of the same answer lie {spread:.2f} apart (standard deviation); it "
        f"makes {share:.0%} of the variance of the difference, which the intervals hold"
    )


def format_trial_counts(findings: Findings, study: Trials) -> str:
    """Trials by their end and by how they were drawn, and the time they took."""
    counts = history.count_outcomes(study)
    broken = sum(not history.is_feasible(trial) for trial in history.get_measured(study, TrialState.COMPLETE))
    ends = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    ends += f"; {broken} of the complete ones beyond a constraint" if broken else ""
    ways = ", ".join(f"{count} {way}" for way, count in history.count_origins(study).items())
    spent = format_duration(history.sum_seconds(study))
    return f"{sum(counts.values())} trials ({ends}; drawn: {ways}) in {spent} of measuring; {findings.store}"


def format_savings(findings: Findings, study: Trials) -> str:
    """What stopping trials early has spared; "" where nothing was stopped."""
    pruned = history.get_measured(study, TrialState.PRUNED)
    if not pruned:
        return ""
    counts = [get_attributes(trial).questions for trial in pruned]
    asked = sum(findings.dev if count is None else count for count in counts)
    told = "1 trial was" if len(pruned) == 1 else f"{len(pruned)} trials were"
    return f"{told} stopped early, after {asked:,} of {len(pruned) * findings.dev:,} questions"


def format_given_up(study: Trials) -> list[str]:
    """The configurations over which processes died too often, and why each was given up."""
    given_up = [trial for trial in study.get_trials(deepcopy=False) if get_attributes(trial).given_up]
    told = [f"trial {trial.number} was {get_attributes(trial).reason or 'given up'}" for trial in given_up]
    return [
        f"{line}: {' '.join(format_overrides(to_config_values(trial.params)))}"
        for line, trial in zip(told, given_up, strict=True)
    ]


def format_latencies(findings: Findings) -> str:
    """What a question costs with the selected configuration and with the others that were timed."""
    if not findings.latencies:
        return ""
    parts = "; ".join(f"{name} {latency}" for name, latency in findings.latencies.items())
    counts = sorted({latency.questions for latency in findings.latencies.values()})
    asked = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    return f"one question at a time, nothing cached ({asked} timed): {parts}"


def format_details(findings: Findings, study: Trials) -> list[str]:
    """The lines about how the result was made."""
    lines = (
        format_trial_counts(findings, study),
        format_paid(findings),
        format_savings(findings, study),
        terminator.format_stop_reason(study),
        *failures.format_failures(study),
        *format_given_up(study),
        format_edges(findings, study),
        format_latencies(findings),
        format_noise(findings),
        format_looks(findings),
        *findings.notes,
    )
    return [line for line in lines if line]


def print_summary(findings: Findings, study: Trials, console: Console) -> None:
    """The summary on a terminal."""
    console.print()
    title = f"{findings.name}: top trials (scores on the {findings.dev} questions that were searched)"
    console.print(build_rich_table(title, tabulate_top_trials(study, findings)))
    if findings.confirmation:
        for place, each in enumerate(findings.confirmations):
            name = f", {each.metric}" if findings.others else ""
            title = f"finalists on the {findings.unseen}, with {format_level(findings)} intervals{name}"
            console.print(build_rich_table(title, _narrow_finalists(findings, place)))
    if tabulate_settings(findings, study)[1]:
        console.print(build_rich_table(format_settings_title(findings), tabulate_settings(findings, study)))
    if tabulate_costs(findings, study)[1]:
        console.print(build_rich_table("calls to models, a question", tabulate_costs(findings, study)))
    # Names, reasons and parameters are others' words: no control character and no markup of theirs is obeyed.
    for line in format_details(findings, study):
        console.print(sanitize_line(line), markup=False)
    console.print()
    for line in (format_conclusion(findings, study), format_recommendation(findings)):
        if line:
            console.print(sanitize_line(line), markup=False, style="bold")
    console.print()
    for label, command in findings.commands.items():
        # Not wrapped, so that a command can be copied as one line.
        console.print(f"{label + ':':<10} {sanitize_line(command)}", markup=False, soft_wrap=True)


def format_markdown(findings: Findings, study: Trials) -> str:
    """The summary as report.md."""
    lines = [f"# {findings.name}", "", f"**{format_conclusion(findings, study)}**", ""]
    lines += [format_recommendation(findings), ""] if findings.confirmation else []
    if "replay" in findings.commands:
        lines += ["```sh", findings.commands["replay"], "```", ""]
    if findings.confirmation:
        for place, each in enumerate(findings.confirmations):
            lines += [f"## {each.metric} on the {findings.unseen}", ""]
            lines += [*format_pipe_table(tabulate_finalists(findings, place)), ""]
        lines += [format_method(findings), ""]
    if tabulate_metrics(findings)[1]:
        lines += [f"## Other metrics on the {findings.unseen}", ""]
        lines += [*format_pipe_table(tabulate_metrics(findings)), ""]
    lines += [line for each in format_details(findings, study) for line in (f"{capitalize_first(each)}.", "")]
    if tabulate_settings(findings, study)[1]:
        lines += [
            f"## {capitalize_first(format_settings_title(findings))}",
            "",
            *format_pipe_table(tabulate_settings(findings, study)),
            "",
            *([told, ""] if (told := format_ablation(findings)) else []),
        ]
    if tabulate_costs(findings, study)[1]:
        lines += ["## Calls to models, a question", "", *format_pipe_table(tabulate_costs(findings, study)), ""]
    lines += ["## Top trials", "", f"Scores are on the {findings.dev} questions that were searched.", ""]
    lines += [*format_pipe_table(tabulate_top_trials(study, findings)), ""]
    lines += ["## Commands", "", "```sh", *(f"# {label}\n{text}" for label, text in findings.commands.items()), "```"]
    lines += ["", "## Pipeline", "", "```mermaid", findings.mermaid.rstrip(), "```", ""]
    lines += ["## Fingerprints", "", *(f"- {name}: `{value}`" for name, value in findings.fingerprints.items()), ""]
    return "\n".join(lines)


def format_best_yaml(findings: Findings, study: Trials) -> str:
    """The recommended configuration as an experiment file, its scores and the command that replays it on top.

    "" without a complete trial, and for findings of an older version.
    """
    if "replay" not in findings.commands or not findings.experiment:
        return ""
    front = history.find_front(study)
    chosen = findings.confirmation.recommended if findings.confirmation else front[0].number
    trial = study.get_trials(deepcopy=False)[chosen]
    scores = ", ".join(
        f"{name} {format_score(value)}" for name, value in zip(findings.targets, trial.values, strict=True)
    )
    return format_experiment(
        findings.experiment,
        [
            f"{findings.name}, trial {chosen}: {scores} on the {findings.dev} questions that were searched.",
            format_conclusion(findings, study),
            findings.commands["replay"],
        ],
    )
