"""SQLite files as studies use them: checked on opening, written by several processes, each whole in its one file."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from rag_opt.errors import StorageError
from rag_opt.system.permissions import format_owner, make_file
from rag_opt.system.waiting import STEP, retry_locked

BUSY_SECONDS = 90
"""Seconds that another process may hold the file's lock: as long as a server may be away (databases.PATIENCE)."""


def check_sqlite(path: Path) -> None:
    """Switch the file to write-ahead logging; raises StorageError when it is damaged or something else."""
    # SQLite takes an empty file for a new database, so a study that was lost would begin anew in silence.
    if path.exists() and path.stat().st_size == 0:
        raise StorageError(f"{path}: the study file is empty; remove it to start anew, or put a backup in its place")
    try:
        if not path.exists():
            # Resolved, since renaming over a link would put a file in its place.
            _create_database(path.resolve())
        with closing(sqlite3.connect(path, timeout=STEP)) as connection:

            def ask(statement: str) -> list[Any]:
                return retry_locked(path, lambda: connection.execute(statement).fetchall(), BUSY_SECONDS)

            # A zeroed page passes in silence otherwise.
            found = ask("PRAGMA quick_check")[0][0]
            if found != "ok":
                raise StorageError(f"{path}: the study file is damaged ({found}); put a backup in its place")
            tables = {row[0] for row in ask("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "studies" not in tables:
                raise StorageError(f"{path}: this database is no Optuna study; choose another name=<study name>")
            ask("PRAGMA journal_mode=WAL")
            # A file that can't be written says so here, not in the first trial.
            ask("BEGIN IMMEDIATE")
            ask("CREATE TABLE IF NOT EXISTS rag_opt_write_check (x)")
            ask("ROLLBACK")
    except (sqlite3.DatabaseError, OSError) as error:
        foreign = format_owner(
            path, *(path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm")), path.parent
        )
        advice = f"{foreign}; or" if foreign else "; move it away, or"
        raise StorageError(
            f"{path}: can't be used as a study file ({error}){advice} choose another name=<study name>"
        ) from error


def _create_database(path: Path) -> None:
    """A study's database where there was none, under the study's lock: whole, whenever this process may be killed.

    Its tables and their indexes are made one by one. A kill between a table and its index left a file that took a
    second study of the same name, and could then not be opened any more.
    """
    new = path.with_name(f"{path.name}.new")
    # What a kill has left.
    for ending in ("", "-wal", "-shm", "-journal"):
        new.with_name(f"{new.name}{ending}").unlink(missing_ok=True)
    make_file(new)
    url = sqlalchemy.URL.create("sqlite", database=str(new)).render_as_string()
    # Its schema is the one of this Optuna: nothing to check, which would read Optuna's migrations once more.
    options = get_engine_options(is_sqlite=True)
    storage = optuna.storages.RDBStorage(url, engine_kwargs=options, skip_compatibility_check=True)
    storage.engine.dispose()
    with closing(sqlite3.connect(new, timeout=STEP)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    # The last connection is closed and took its log along: this one file is all there is.
    new.replace(path)


def get_engine_options(is_sqlite: bool) -> dict[str, Any]:
    """What `create_engine` is to be told beside the URL."""
    # SQLite waits in C, where no signal is heard, so only a step at a time. A pool's connections to a server that was
    # restarted are dead, and that is noticed only in use unless they are asked first.
    return {"connect_args": {"timeout": STEP}} if is_sqlite else {"pool_pre_ping": True}


def begin_immediately(engine: sqlalchemy.Engine, path: Path) -> None:
    """Take SQLite's write lock when a transaction begins: taking it later is what makes writers fail."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def no_implicit_begin(connection: Any, _: Any) -> None:
        # Otherwise sqlite3 begins transactions of its own, and they take the lock late.
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        raw: Any = connection.connection.driver_connection
        try:
            # A transaction that reads first and then wants to write fails at once, whatever the timeout: 5 to 7 of 8
            # workers died of that.
            retry_locked(path, lambda: raw.execute("BEGIN IMMEDIATE"), BUSY_SECONDS)
        except sqlite3.Error:
            # What else is wrong is raised as SQLAlchemy raises it.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    # Connections made so far don't know of this.
    engine.dispose()


def checkpoint_wal(engine: sqlalchemy.Engine, *, whole: bool = False) -> None:
    """Bring what the write-ahead log holds into the file, so that a copy of the file alone is the study.

    Nobody is waited for: what readers or writers are in the way of comes next time. `whole` also empties the log,
    whoever is connected, unless a transaction is open. Nothing for other databases.
    """
    if engine.dialect.name != "sqlite":
        return
    # The log holds whatever could not be folded in, and the next write says why.
    with suppress(sqlite3.Error, SQLAlchemyError), closing(engine.raw_connection()) as connection:
        # Not through SQLAlchemy's own connection, which would begin a transaction.
        raw: Any = connection.driver_connection
        raw.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if whole else 'PASSIVE'})").fetchall()
