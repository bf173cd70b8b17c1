"""`python -m rag_opt.gate studies/<name> [key=value ...]`: for pull requests, whether a change makes answers worse.

What the study recommends is measured as it is now, with the changes that are given or that were made to its documents
and files, on the questions that confirmed it, against what it recorded then. Status 0: not worse by more than --margin;
1: worse; 2: these questions can't tell. --summary leaves it as Markdown, such as in $GITHUB_STEP_SUMMARY.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import Storage, command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.system import environment


@command_line("gate", __doc__)
def main(
    study: Annotated[Path, Argument(help="a finished study's folder")],
    overrides: Annotated[
        list[str] | None, Argument(help="key=value: what is to differ from what the study recommends")
    ] = None,
    margin: Annotated[float, Option(min=0.0, help="how much worse would do, in the metric's own unit")] = 0.02,
    summary: Annotated[Path | None, Option(help="a file to which the Markdown summary is added")] = None,
    storage: Storage = None,
) -> None:
    """The command line."""
    print(sanitize_line("rag_opt.gate: loading the study and measuring its recommendation as it is now"), flush=True)
    with environment.disable_gc():
        environment.silence_optuna()
        from rag_opt.analysis.finished import open_finished
        from rag_opt.cli.trial import measure_configuration
        from rag_opt.config.compose import compose_config
        from rag_opt.config.stages import is_whole
        from rag_opt.console.progress import Screen
        from rag_opt.evaluation.evaluator import load_dataset
        from rag_opt.evaluation.objective import build_objective
        from rag_opt.production.gating import check_measured, compare, format_summary, needs_answers, read_recorded
        from rag_opt.production.promotion import build_words
    findings, _ = open_finished(study, storage)
    recorded, metric = read_recorded(study, findings), findings.targets[0]
    crossfitted = findings.confirmation is not None and findings.confirmation.crossfitted
    # A crossfit keeps no question back: those that it searched are those that confirmed.
    words = [*build_words(study, findings, overrides or ()), f"split={'dev' if crossfitted else 'test'}"]
    config = compose_config(words)
    objective = build_objective(config)
    # Where rankings alone are compared no answer is paid for.
    words += [] if needs_answers(objective) or is_whole(config) else ["generator=none"]
    evaluation = measure_configuration(words)
    check_measured(objective, evaluation)
    found = compare(recorded, evaluation, metric, findings.signs[metric], margin)
    with Screen():
        texts = {query.id: query.text for query in load_dataset(compose_config(words)).queries}
    lines = list(format_summary(found, texts, overrides or ()))
    for line in lines:
        print(sanitize_line(line))
    if summary is not None:
        # Added, since other steps of a workflow write to $GITHUB_STEP_SUMMARY, too.
        with summary.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    sys.exit(found.status)
