"""`python -m rag_opt.backup studies/<name> <file>`: a copy of a study's database, whole also while the study runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.errors import StorageError, StudyError
from rag_opt.system import environment
from rag_opt.system.permissions import make_file

TRIALS = "select count(*) from trials where state in ('COMPLETE', 'PRUNED', 'FAIL')"


def back_up_study(folder: Path, target: Path, storage: str | None = None) -> int:
    """Copy the study's database to a new file, as it is at one moment; gives the number of finished trials in it.

    Raises StudyError or StorageError where there is nothing to copy, or no place for it.
    """
    from rag_opt.analysis.findings import resolve_storage_url
    from rag_opt.storages.databases import get_sqlite_path, redact_url

    url = resolve_storage_url(folder, storage)
    path = get_sqlite_path(url)
    if path is None:
        raise StorageError(f"{redact_url(url)}: a PostgreSQL server makes its backups itself: pg_dump")
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file; name a study's folder, or its storage with --storage")
    if target.exists():
        raise StorageError(f"{target}: it is there already; name a new file")
    # Whole or not at all: it gets its name last.
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        trials = _copy_database(path, unfinished)
        unfinished.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{path} can't be copied to {target}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return trials


def _copy_database(path: Path, target: Path) -> int:
    # Made before SQLite would, which leaves a file that only its owner may write.
    make_file(target)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        # A copy of the bytes would lack what is still in the log, and be torn by a writer.
        source.backup(copy)
        # One file, without a log beside it.
        copy.execute("PRAGMA journal_mode=DELETE")
        return int(copy.execute(TRIALS).fetchone()[0])


@command_line("backup", __doc__)
def main(
    study: Annotated[Path, Argument(help="a study's folder")],
    file: Annotated[Path, Argument(help="the new file")],
    storage: Annotated[str | None, Option(help="the storage's URL, where it is not in the folder")] = None,
) -> None:
    """The command line."""
    with environment.disable_gc():
        trials = back_up_study(study, file, storage)
    told = f"the study with its {trials:,} finished trial{'s' * (trials != 1)}; as study.db it goes on"
    print(sanitize_line(f"{file}: {told}"))
