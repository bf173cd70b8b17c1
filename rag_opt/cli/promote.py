"""`python -m rag_opt.promote studies/<name> [key=value ...]`: what a study recommends as a registered MLflow model."""

from __future__ import annotations

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import Storage, command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.system import environment


@command_line("promote", __doc__)
def main(
    study: Annotated[Path, Argument(help="a finished study's folder")],
    overrides: Annotated[
        list[str] | None, Argument(help="key=value: what is to differ from what the study recommends")
    ] = None,
    name: Annotated[str | None, Option(help="the registered model; the study's name where none is given")] = None,
    alias: Annotated[
        str | None, Option(help="champion or challenger; champion where there is none, else challenger")
    ] = None,
    because: Annotated[
        str, Option(help="why it becomes the champion although it was not confirmed better; kept with it")
    ] = "",
    tracking: Annotated[
        str | None, Option(help="MLflow's address; MLFLOW_TRACKING_URI or studies/mlflow.db where none is given")
    ] = None,
    storage: Storage = None,
    hayhooks: Annotated[Path | None, Option(help="register nothing; write a folder that Hayhooks serves")] = None,
) -> None:
    """The command line."""
    print(sanitize_line("rag_opt.promote: loading the study, its documents and its index, which takes some seconds"))
    with environment.disable_gc():
        environment.silence_optuna()
        from rag_opt.production.haystack_files import write_wrapper
        from rag_opt.production.promotion import bundle_study, format_promotion, promote_study
    if hayhooks is None:
        found = promote_study(study, name, alias, because, overrides or (), tracking, storage)
        for line in format_promotion(found):
            print(sanitize_line(line))
        return
    with TemporaryDirectory(dir=study if study.is_dir() else None, prefix=".bundle-") as place:
        written = write_wrapper(bundle_study(study, Path(place) / "bundle", overrides or (), storage), hayhooks)
    print(sanitize_line(f"written: {written}"))
    print(sanitize_line(f"serve:   hayhooks run --pipelines-dir {shlex.quote(str(written))}"))
