"""A finished study → sentences, tables, report.md, best.yaml, and what a terminal shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState
from rich.console import Console

from rag_opt.analysis import history
from rag_opt.analysis.confirmation import scored
from rag_opt.analysis.details import edge_line, other_metrics
from rag_opt.analysis.history import BASELINE
from rag_opt.analysis.price import price, settings
from rag_opt.config.experiments import text_of
from rag_opt.config.overrides import values_of, words
from rag_opt.console.progress import clock
from rag_opt.console.terminal import inline
from rag_opt.reporting.tables import _narrow, as_table, costs, finalists, pipes, top_trials
from rag_opt.storages.attributes import attributes_of
from rag_opt.study import failures, terminator

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings
    from rag_opt.storages.moment import Trials


def conclusion(findings: Findings, study: Trials) -> str:
    """The result in a sentence, or two, what it costs, and how many trials failed."""
    counts = history.counts_of(study)
    tried = counts["complete"] + counts["pruned"] + counts["failed"]
    failed = f"; {counts['failed']} of {tried} trials failed" if counts["failed"] else ""
    paid = price(findings, study)
    return f"{_conclusion(findings, study)}{f'; its price: {paid}' if paid else ''}{failed}"


def _conclusion(findings: Findings, study: Trials) -> str:
    front = history.front_of(study)
    if not front:
        complete = history.finished(study, TrialState.COMPLETE)
        if complete:
            return f"None of {len(complete)} complete trials keeps the constraints; loosen them, or search more"
        return f"No trial was completed. The first failed with: {findings.reason}"
    confirmed = ". ".join(_sentences(findings))
    if len(findings.targets) == 1:
        return confirmed or "The best configuration could not be measured on the unseen questions: nothing is confirmed"
    numbers = ", ".join(str(trial.number) for trial in front)
    knee = history.knee_of(study, front)
    if len(front) == 1:
        return f"Trial {numbers} is the best in all objectives: the Pareto front is that trial alone. {confirmed}"
    best = f"No configuration is better in all objectives than trials {numbers} (the Pareto front)"
    return f"{best}; its knee is trial {knee.number}. {confirmed}" if knee else f"{best}. {confirmed}"


def _sentences(findings: Findings) -> list[str]:
    """What the unseen questions show of the recommended configuration, objective by objective."""
    found = findings.confirmations
    stays = bool(found) and found[0].chosen.role == BASELINE
    return [each.sentence() for each in (found[:1] if stays else found)]


def recommendation(findings: Findings) -> str:
    """Which configuration, and why; "" without a confirmation."""
    if findings.confirmation is None:
        return ""
    if findings.confirmation.alike:
        return findings.confirmation.nothing()
    of = f" (of the front's, by {findings.targets[0]})" if findings.others else ""
    return f"Recommended: {findings.confirmation.why()}{of}"


def paid_line(findings: Findings) -> str:
    """What this study was charged for; "" where no model was asked."""
    if not findings.paid:
        return ""
    paid = findings.paid
    return (
        f"paid for: {paid['calls']:,.0f} calls to models, {paid['tokens']:,.0f} tokens, ${paid['usd']:,.4g}; whatever "
        "had been asked before came from the store"
    )


def noise_line(findings: Findings) -> str:
    """How much the judge disagrees with itself; "" where that was not measured."""
    if not findings.noise:
        return ""
    spread, share = findings.noise["spread"], findings.noise["share"]
    return (
        f"the judge's own noise: repeated grades of the same answer lie {spread:.2f} apart (standard deviation); it "
        f"makes {share:.0%} of the variance of the difference, which the intervals hold"
    )


def cost_line(findings: Findings, study: Trials) -> str:
    """Trials by their end and by how they were drawn, and the time they took."""
    counts = history.counts_of(study)
    broken = sum(not history.feasible(trial) for trial in history.finished(study, TrialState.COMPLETE))
    ends = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    ends += f"; {broken} of the complete ones beyond a constraint" if broken else ""
    ways = ", ".join(f"{count} {way}" for way, count in history.origins(study).items())
    spent = clock(history.seconds_of(study))
    return f"{sum(counts.values())} trials ({ends}; drawn: {ways}) in {spent} of measuring; {findings.store}"


def spared_line(findings: Findings, study: Trials) -> str:
    """What stopping trials early has spared; "" where nothing was stopped."""
    pruned = history.finished(study, TrialState.PRUNED)
    if not pruned:
        return ""
    counts = [attributes_of(trial).questions for trial in pruned]
    asked = sum(findings.dev if count is None else count for count in counts)
    told = "1 trial was" if len(pruned) == 1 else f"{len(pruned)} trials were"
    return f"{told} stopped early, after {asked:,} of {len(pruned) * findings.dev:,} questions"


def given_up_lines(study: Trials) -> list[str]:
    """The configurations over which processes died too often, and why each was given up."""
    given_up = [trial for trial in study.get_trials(deepcopy=False) if attributes_of(trial).given_up]
    told = [f"trial {trial.number} was {attributes_of(trial).reason or 'given up'}" for trial in given_up]
    return [f"{line}: {' '.join(words(values_of(trial.params)))}" for line, trial in zip(told, given_up, strict=True)]


def looks_line(findings: Findings) -> str:
    """A caution where the unseen questions are not unseen any more; "" at the first look."""
    if findings.looks < 2:
        return ""
    return (
        f"the unseen questions were looked at {findings.looks} times as this study grew: whoever went on had seen the "
        "last result, so the intervals are somewhat too narrow"
    )


def latency_line(findings: Findings) -> str:
    """What a question costs with the recommended configuration and with the others that were timed."""
    if not findings.latencies:
        return ""
    parts = "; ".join(f"{name} {latency}" for name, latency in findings.latencies.items())
    counts = sorted({latency.questions for latency in findings.latencies.values()})
    asked = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    return f"one question at a time, nothing cached ({asked} timed): {parts}"


def told(findings: Findings, study: Trials) -> list[str]:
    """The lines about how the result was made."""
    lines = (
        cost_line(findings, study),
        paid_line(findings),
        spared_line(findings, study),
        terminator.line(study),
        *failures.grouped(study),
        *given_up_lines(study),
        edge_line(findings, study),
        latency_line(findings),
        noise_line(findings),
        looks_line(findings),
        *findings.notes,
    )
    return [line for line in lines if line]


def printed(findings: Findings, study: Trials, console: Console) -> None:
    """The summary on a terminal."""
    console.print()
    title = f"{findings.name}: top trials (scores on the {findings.dev} questions that were searched)"
    console.print(as_table(title, top_trials(study, findings)))
    if findings.confirmation:
        for place, each in enumerate(findings.confirmations):
            name = f", {each.metric}" if findings.others else ""
            title = f"finalists on the {findings.unseen}, with 95 % intervals{name}"
            console.print(as_table(title, _narrow(findings, place)))
    if settings(findings, study)[1]:
        console.print(as_table("what the recommended configuration changes", settings(findings, study)))
    if costs(findings, study)[1]:
        console.print(as_table("calls to models, a question", costs(findings, study)))
    for line in told(findings, study):
        console.print(inline(line), markup=False)
    console.print()
    for line in (conclusion(findings, study), recommendation(findings)):
        if line:
            console.print(inline(line), markup=False, style="bold")
    console.print()
    for label, command in findings.commands.items():
        console.print(f"{label + ':':<10} {inline(command)}", markup=False, soft_wrap=True)


def markdown(findings: Findings, study: Trials) -> str:
    """The summary as report.md."""
    lines = [f"# {findings.name}", "", f"**{conclusion(findings, study)}**", ""]
    lines += [recommendation(findings), ""] if findings.confirmation else []
    if "replay" in findings.commands:
        lines += ["```sh", findings.commands["replay"], "```", ""]
    if findings.confirmation:
        for place, each in enumerate(findings.confirmations):
            lines += [f"## {each.metric} on the {findings.unseen}", ""]
            lines += [*pipes(finalists(findings, place)), ""]
        lines += [
            "Intervals are 95 % bootstrap intervals; p (paired randomisation) is corrected for several comparisons.",
            "",
        ]
    if other_metrics(findings)[1]:
        lines += [f"## Other metrics on the {findings.unseen}", ""]
        lines += [*pipes(other_metrics(findings)), ""]
    lines += [line for each in told(findings, study) for line in (f"{each[0].upper()}{each[1:]}.", "")]
    if settings(findings, study)[1]:
        lines += ["## What the recommended configuration changes", "", *pipes(settings(findings, study)), ""]
    if costs(findings, study)[1]:
        lines += ["## Calls to models, a question", "", *pipes(costs(findings, study)), ""]
    lines += ["## Top trials", "", f"Scores are on the {findings.dev} questions that were searched.", ""]
    lines += [*pipes(top_trials(study, findings)), ""]
    lines += ["## Commands", "", "```sh", *(f"# {label}\n{text}" for label, text in findings.commands.items()), "```"]
    lines += ["", "## Pipeline", "", "```mermaid", findings.mermaid.rstrip(), "```", ""]
    lines += ["## Fingerprints", "", *(f"- {name}: `{value}`" for name, value in findings.fingerprints.items()), ""]
    return "\n".join(lines)


def best_yaml(findings: Findings, study: Trials) -> str:
    """The recommended configuration as an experiment file, its scores and the command that replays it on top.

    "" without a complete trial, and for findings of an older version.
    """
    if "replay" not in findings.commands or not findings.experiment:
        return ""
    front = history.front_of(study)
    chosen = findings.confirmation.recommended if findings.confirmation else front[0].number
    trial = study.get_trials(deepcopy=False)[chosen]
    scores = ", ".join(f"{name} {scored(value)}" for name, value in zip(findings.targets, trial.values, strict=True))
    return text_of(
        findings.experiment,
        [
            f"{findings.name}, trial {chosen}: {scores} on the {findings.dev} questions that were searched.",
            conclusion(findings, study),
            findings.commands["replay"],
        ],
    )
