"""`python -m rag_opt.report studies/<name> [studies/<other> ...]`: a study's report anew, or several compared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_opt.analysis.finished import PAGE, open_finished
from rag_opt.console.terminal import command, console
from rag_opt.reporting.report import readable, written
from rag_opt.system import environment


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rag_opt.report", description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path, help="folders of finished studies")
    parser.add_argument("--storage", help="the storage's URL, where it is not in the folder and needs a password")
    given = parser.parse_args(arguments)
    with readable(given.studies):
        _run(given)


def _run(given: Any) -> None:
    with environment.no_collection():
        from rag_opt.reporting import comparison, summary
        from rag_opt.storages.moment import places_taken

        environment.quiet_optuna()
    screen = console()
    if len(given.studies) > 1:
        page = comparison.compared(
            [open_finished(folder, given.storage) for folder in given.studies], given.studies, screen
        )
    else:
        findings, study = open_finished(given.studies[0], given.storage)
        now = findings.moment(study)
        summary.printed(findings, now, screen)
        if added := places_taken(study) - places_taken(now):
            screen.print(f"{added} trials were finished since; the study's command makes the result anew", markup=False)
        written(findings, study, given.studies[0])
        page = given.studies[0] / PAGE
    screen.print(f"\n{'open:':<10} {page}", markup=False)
