"""`python -m rag_opt.report studies/<name> [studies/<other> ...]`: a study's report anew, or several compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from rag_opt.cli.arguments import Storage, command_line
from rag_opt.console.terminal import console
from rag_opt.system import environment


@command_line("report", __doc__)
def main(studies: Annotated[list[Path], Argument(help="folders of finished studies")], storage: Storage = None) -> None:
    """The command line."""
    with environment.no_collection():
        from rag_opt.reporting.report import readable
    with readable(studies):
        _run(studies, storage)


def _run(studies: list[Path], storage: str | None) -> None:
    with environment.no_collection():
        from rag_opt.analysis.finished import PAGE, open_finished
        from rag_opt.reporting import comparison, summary
        from rag_opt.reporting.report import written
        from rag_opt.storages.moment import places_taken

        environment.quiet_optuna()
    screen = console()
    if len(studies) > 1:
        page = comparison.compared([open_finished(folder, storage) for folder in studies], studies, screen)
    else:
        findings, study = open_finished(studies[0], storage)
        now = findings.moment(study)
        summary.printed(findings, now, screen)
        if added := places_taken(study) - places_taken(now):
            screen.print(f"{added} trials were finished since; the study's command makes the result anew", markup=False)
        written(findings, study, studies[0])
        page = studies[0] / PAGE
    screen.print(f"\n{'open:':<10} {page}", markup=False)
