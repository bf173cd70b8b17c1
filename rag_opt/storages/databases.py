"""Database URLs, and patience with databases that are away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from rag_opt.console.screens import report_line
from rag_opt.errors import StorageError
from rag_opt.system.signals import Patience

PATIENCE = 90.0
"""Seconds that a database may be locked, restarting or out of reach."""

FIRST_PATIENCE = 6.0
"""Seconds that a server may take to answer at all: what is out of reach from the start is a wrong address."""

SAID_AFTER = 3.0
"""Seconds of waiting after which that is said."""

LONGEST_WAIT = 1.0
"""Seconds of the longest pause between two tries."""

P = ParamSpec("P")
T = TypeVar("T")


def redact_url(url: str) -> str:
    """The URL without its password."""
    return parse_url(url).render_as_string(hide_password=True)


def parse_url(url: str) -> sqlalchemy.URL:
    """The parts of a URL, PostgreSQL's with the driver that is used here; raises StorageError for what is none."""
    try:
        found = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        # Not repeated: a password can't be hidden in what has no known form.
        raise StorageError("storage.url is not a database URL, such as sqlite:///folder/study.db") from error
    # Without a driver's name SQLAlchemy would import psycopg2.
    return found.set(drivername="postgresql+psycopg") if found.drivername == "postgresql" else found


def get_engine_url(url: str) -> str:
    """The URL as an engine takes it, password included."""
    return parse_url(url).render_as_string(hide_password=False)


def get_sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases."""
    parts = parse_url(url)
    return Path(parts.database) if parts.get_backend_name() == "sqlite" and parts.database else None


def check_backend(url: str) -> None:
    """Raise StorageError unless the URL is one of the databases in which processes can take turns."""
    if parse_url(url).get_backend_name() not in ("sqlite", "postgresql"):
        raise StorageError(f"storage.url={redact_url(url)}: a SQLite file or a PostgreSQL server is expected")


def check_connection(url: str) -> None:
    """Connect once; raises what the database raises."""
    # Without a pool, so that `close` ends the connection instead of keeping it.
    engine = sqlalchemy.create_engine(get_engine_url(url), poolclass=sqlalchemy.pool.NullPool)
    retry_transient(engine.connect, FIRST_PATIENCE)().close()


def is_transient(error: BaseException) -> bool:
    """Whether the database may be there again in a moment: it is locked, restarting, or the connection broke."""
    cause = _find_driver_error(error)
    if cause is None:
        return False
    # SQLAlchemy itself has found that the connection is broken, whatever the driver calls it.
    if cause.connection_invalidated:
        return True
    # None where psycopg has no code of the server's, "" where the driver knows none (SQLite).
    state = getattr(cause.orig, "sqlstate", "")
    if state is None or (state and state.startswith(("08", "57P"))):
        # PostgreSQL: no answer at all, a broken connection, a server that stops or starts.
        # psycopg's own complaints have no state either, and no wait mends them: they are other errors than this.
        return isinstance(cause, sqlalchemy.exc.OperationalError)
    return "database is locked" in str(cause.orig)


def _find_driver_error(error: BaseException | None) -> DBAPIError | None:
    """What the database itself said: Optuna and SQLAlchemy's sessions may have wrapped it more than once."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__ or error.__context__
    return error


def retry_transient(call: Callable[P, T], seconds: float | None = None) -> Callable[P, T]:
    """The call, made again while the database is away for a moment (PATIENCE); raises what it raised last."""

    @wraps(call)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        limit = PATIENCE if seconds is None else seconds
        start, wait, said, stop = time.monotonic(), 0.05, False, Patience()
        while True:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                # First of all: who is told to stop while the database is away ends as stopped, not with this error.
                stop.check()
                waited = time.monotonic() - start
                if not is_transient(error) or waited > limit:
                    raise
                if waited > SAID_AFTER and not said:
                    said = True
                    report_line(
                        f"the study's database is away ({format_driver_error(error)}); trying again for {limit:.0f} s"
                    )
            time.sleep(wait)
            wait = min(LONGEST_WAIT, 1.6 * wait)

    return again


def format_driver_error(error: BaseException) -> str:
    """Why a database refused, in one line, without statements and their values."""
    cause: Any = _find_driver_error(error) or error.__cause__ or error
    orig = getattr(cause, "orig", None) or cause
    return str(orig).strip().splitlines()[0][:200] if str(orig).strip() else type(orig).__name__
