"""`python -m rag_opt.update models:/<name> docs/`: a registered model over changed documents, as a new version.

Documents are compared by id and content; what is new or changed is encoded, the rest found in the version that there
is. A service that answers with the alias goes over to the new version by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import build_console, format_names, sanitize_line
from rag_opt.system import environment

if TYPE_CHECKING:
    from rag_opt.production.updating import ProbeCheck, Update

SHOWN = 10
"""Probes that are answered worse and shown."""


@command_line("update", __doc__, studies=False)
def main(
    model: Annotated[str, Argument(help="models:/<name> or models:/<name>@<alias>; the first means the champion")],
    documents: Annotated[Path, Argument(help="a folder of files, or a JSON Lines file, as the model was made of")],
    because: Annotated[
        str, Option(help="why the new version is put up although its probes are answered worse; kept with it")
    ] = "",
    tracking: Annotated[
        str | None, Option(help="MLflow's address; MLFLOW_TRACKING_URI or studies/mlflow.db where none is given")
    ] = None,
) -> None:
    """The command line."""
    print(sanitize_line("rag_opt.update: loading the model and reading the documents, which takes some seconds"))
    with environment.disable_gc():
        environment.silence_optuna()
        from rag_opt.production.registry import Registry
        from rag_opt.production.updating import WorseError, update_model

        # The model's libraries are loaded within it.
        try:
            found = update_model(Registry.connect(tracking), model, documents, because)
        except WorseError as error:
            # The table first; `command` then says why, as of anything that is refused.
            _print_lost(error.check)
            raise
    for line in format_update(found, model):
        print(sanitize_line(line))


def format_update(found: Update, address: str) -> Iterator[str]:
    """What changed, what was done, and what the probes say."""
    change = found.difference
    if found.model is None:
        yield f"{address} stays: no document was added, changed or removed"
        return
    for word, names in (("added", change.added), ("changed", change.changed), ("removed", change.removed)):
        if names:
            yield f"  {len(names):,} {word}: {format_names(names)}"
    if found.texts:
        yield f"  {found.encoded:,} of {found.texts:,} texts were encoded"
    check = found.check
    if check is not None and check.probes:
        before, after = (sum(values) / len(values) for values in (check.before, check.after))
        yield f"  nDCG@10 of {len(check.probes)} probes: {before:.3f} before, {after:.3f} now (p = {check.p:.2f})"
    if check is not None and check.gone:
        yield f"  {check.gone} probes asked for documents that are gone, and were not counted"
    yield f"{address} is version {found.model.version} now"


def _print_lost(check: ProbeCheck) -> None:
    if not check.lost:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title="probes that are answered worse", title_justify="left")
    for name in ("question", "before", "now"):
        table.add_column(name, justify="left" if name == "question" else "right", overflow="fold")
    for question, before, now in check.lost[:SHOWN]:
        table.add_row(Text(sanitize_line(question)), f"{before:.3f}", f"{now:.3f}")
    build_console().print(table)
