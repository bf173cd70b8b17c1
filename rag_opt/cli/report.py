"""`python -m rag_opt.report studies/<name> [studies/<other> ...]`: a study's report anew, or several compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from rag_opt.cli.arguments import Storage, command_line
from rag_opt.console.terminal import build_console
from rag_opt.system import environment


@command_line("report", __doc__)
def main(studies: Annotated[list[Path], Argument(help="folders of finished studies")], storage: Storage = None) -> None:
    """The command line."""
    with environment.disable_gc():
        from rag_opt.reporting.report import translate_read_errors
    with translate_read_errors(studies):
        _run(studies, storage)


def _run(studies: list[Path], storage: str | None) -> None:
    with environment.disable_gc():
        from rag_opt.analysis.finished import PAGE, open_finished
        from rag_opt.reporting import comparison, summary
        from rag_opt.reporting.report import write_report
        from rag_opt.storages.snapshot import count_finished

        environment.silence_optuna()
    screen = build_console()
    if len(studies) > 1:
        page = comparison.compare_studies([open_finished(folder, storage) for folder in studies], studies, screen)
    else:
        findings, study = open_finished(studies[0], storage)
        now = findings.get_snapshot(study)
        summary.print_summary(findings, now, screen)
        if added := count_finished(study) - count_finished(now):
            screen.print(f"{added} trials were finished since; the study's command makes the result anew", markup=False)
        write_report(findings, study, studies[0])
        page = studies[0] / PAGE
    screen.print(f"\n{'open:':<10} {page}", markup=False)
