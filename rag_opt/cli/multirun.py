"""The end of a multirun: its studies compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from rag_opt.console.secrets import hide_secrets
from rag_opt.console.terminal import build_console, print_error
from rag_opt.errors import RagOptError


class CompareStudies(Callback):
    """Collects the outcome of each job of a multirun and compares them at its end."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002 (Hydra's)
        """Hide what Hydra has written of the command line beside the studies."""
        path = Path(str(config.hydra.sweep.dir)) / "multirun.yaml"
        if path.is_file() and (text := path.read_text("utf-8")) != hide_secrets(text):
            path.write_text(hide_secrets(text), "utf-8")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002 (Hydra's)
        # Not `return_value`: of a job that failed that property raises what the job raised.
        if isinstance(job_return._return_value, BaseException) or job_return._return_value is None:
            return
        self.outcomes.append(job_return._return_value)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002 (Hydra's)
        folders = [outcome.folder for outcome in self.outcomes if not outcome.error]
        if folders:
            try:
                _print_comparison(folders)
            except RagOptError as error:
                print_error(error, "the studies could not be compared: ")
        failed = [outcome for outcome in self.outcomes if outcome.error]
        for outcome in failed:
            print_error(outcome.error, f"{outcome.name}: ")
        # The jobs themselves returned, so Hydra would end with status 0.
        if failed:
            sys.exit(2)


def _print_comparison(folders: list[Any]) -> None:
    from rag_opt.analysis.finished import open_finished
    from rag_opt.reporting.comparison import compare_studies

    screen = build_console()
    screen.print()
    page = compare_studies([open_finished(folder) for folder in folders], folders, screen)
    screen.print(f"\n{'open:':<10} {page}", markup=False)
