"""Among all processes at work on a study: one at a time, and who of them lives.

A dead process can't say that it died, and a busy one can't always say that it lives: its heartbeat stops while C code
holds the interpreter's lock, or while it is suspended. So a worker holds a lock that the system takes back when its
process ends and not before: on a file beside a SQLite database, or in a session of its own of PostgreSQL.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from pathlib import Path

import sqlalchemy
from filelock import FileLock
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from rag_opt.cache.leases import is_abandoned
from rag_opt.errors import LostError, StorageError
from rag_opt.storages.databases import get_engine_url, get_sqlite_path, redact_url, retry_transient
from rag_opt.system.permissions import format_owner
from rag_opt.system.waiting import Wait, acquire_lock, hold_lock

GRACE = 5.0
"""Seconds after which a PostgreSQL session that is not there counts as ended: a server that restarts ends them all, and
the living come back."""

KEEP_EVERY = 1.0
"""Seconds between two looks of a worker at its own session."""

KEEPALIVE = "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""So that the server ends the session of a machine that lost its power within a minute."""

TRIALS, MIRROR = "trials", "mlflow"
"""What one process does at a time: giving out trials, and making the mirror true."""

DOES = {TRIALS: "is giving out a trial of this study", MIRROR: "is repairing this study in MLflow"}

LOCK_TIMEOUT = 500
"""Milliseconds of one step of a wait for PostgreSQL: each begins at the end of the queue."""

LOCK_NOT_AVAILABLE = "55P03"
"""What PostgreSQL says when a lock was not had within lock_timeout."""

CREATION = 0x7261675F
"""The first part of the advisory lock under which tables and studies are made."""


class Life(Enum):
    """What can be known of a worker."""

    ALIVE = "its lock is held"
    DOUBTFUL = "its lock is gone, which a restart of the server may have done"
    DEAD = "it has ended"


class Member:
    """One process among those at work on a study; `me` is its name."""

    def __init__(self) -> None:
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
        self.me = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"

    def take_turn(self, at: str = TRIALS) -> AbstractContextManager[None]:
        """No other process is at the same thing meanwhile; one that dies at it is no hindrance.

        What may take long, such as asking a tracking server, is something else than giving out trials.
        """
        raise NotImplementedError

    def has_turn(self) -> bool:
        """Whether the turn that this process has taken is still its own."""
        raise NotImplementedError

    def get_life(self, worker: str) -> Life:
        """Whether the worker of this name lives."""
        raise NotImplementedError

    def is_dead(self, worker: str) -> bool:
        """Whether it has ended, after waiting for that to be certain."""
        while (life := self.get_life(worker)) is Life.DOUBTFUL:
            time.sleep(0.1)
        return life is Life.DEAD

    def leave(self) -> None:
        """Give up the place: from now on this process is as good as dead to the others."""
        raise NotImplementedError


class FileMember(Member):
    """For processes of one machine: locks on files in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._life = FileLock(self._get_path(self.me))
        self._life.acquire()

    @contextmanager
    def take_turn(self, at: str = TRIALS) -> Iterator[None]:
        if not self._folder.is_dir():
            # To lock would be to make it again.
            raise LostError(f"{self._folder}: was removed, or moved, while the study ran")
        with hold_lock(FileLock(self._folder / f"{at}.lock", poll_interval=0.005), DOES[at]):
            yield

    def has_turn(self) -> bool:
        return True

    def get_life(self, worker: str) -> Life:
        here = worker == self.me or (self._get_path(worker).exists() and not is_abandoned(self._get_path(worker)))
        return Life.ALIVE if here else Life.DEAD

    def leave(self) -> None:
        self._life.release()
        self._get_path(self.me).unlink(missing_ok=True)

    def _get_path(self, worker: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9-]', '-', worker)[:120]}.worker"


class PostgresMember(Member):
    """For processes anywhere: advisory locks, each of a session that PostgreSQL ends with its client."""

    def __init__(self, url: str, study_id: int) -> None:
        super().__init__()
        self._engine = _build_engine(url)
        self._space = _to_signed(zlib.crc32(f"rag_opt/{study_id}".encode()))
        self._missed: dict[str, float] = {}
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._turn: sqlalchemy.Connection
        self._life = retry_transient(self._acquire_own_lock)()
        threading.Thread(target=self._keep_alive, name="rag_opt-life", daemon=True).start()

    @contextmanager
    def take_turn(self, at: str = TRIALS) -> Iterator[None]:
        with _hold_lock(self._engine, self._space, _compute_lock_id(at), DOES[at]) as self._turn:
            yield

    def has_turn(self) -> bool:
        try:
            self._turn.execute(sqlalchemy.text("select 1"))
        except SQLAlchemyError:
            return False
        return True

    def get_life(self, worker: str) -> Life:
        if worker == self.me or self._has_lock(worker):
            self._missed.pop(worker, None)
            return Life.ALIVE
        since = self._missed.setdefault(worker, time.monotonic())
        return Life.DOUBTFUL if time.monotonic() - since < GRACE else Life.DEAD

    def leave(self) -> None:
        self._over.set()
        with self._guard, suppress(SQLAlchemyError):
            self._life.close()
        self._engine.dispose()

    @retry_transient
    def _has_lock(self, worker: str) -> bool:
        # pg_locks marks a key of two numbers by objsubid 2 and shows both numbers unsigned.
        wanted = sqlalchemy.text(
            "select count(*) from pg_locks where locktype = 'advisory' and granted and objsubid = 2 "
            "and database = (select oid from pg_database where datname = current_database()) "
            "and classid = cast(:space as bigint)::oid and objid = cast(:worker as bigint)::oid"
        )
        values = {"space": self._space & 0xFFFFFFFF, "worker": _compute_lock_id(worker) & 0xFFFFFFFF}
        with self._engine.connect() as connection:
            return bool(connection.execute(wanted, values).scalar())

    def _acquire_own_lock(self) -> sqlalchemy.Connection:
        connection = self._engine.connect()
        connection.execute(
            sqlalchemy.text("select pg_advisory_lock(:a, :b)"), {"a": self._space, "b": _compute_lock_id(self.me)}
        )
        return connection

    def _keep_alive(self) -> None:
        """Look after the session that says that this process lives, and take it up again when a restart ended it."""
        while not self._over.wait(KEEP_EVERY):
            with self._guard:
                if self._over.is_set():
                    return
                try:
                    self._life.execute(sqlalchemy.text("select 1"))
                except SQLAlchemyError:
                    with suppress(SQLAlchemyError):
                        self._life.close()
                    with suppress(SQLAlchemyError):
                        self._life = self._acquire_own_lock()


def build_member(url: str, study_id: int) -> Member:
    """This process among those at work on a study in the database of this URL."""
    path = get_sqlite_path(url)
    return PostgresMember(url, study_id) if path is None else FileMember(_get_folder(path) / str(study_id))


@contextmanager
def lock_creation(url: str) -> Iterator[None]:
    """Nobody else makes or upgrades this database's tables meanwhile; raises StorageError where that can't be had."""
    path = get_sqlite_path(url)
    if path is not None:
        locks = [_get_folder(path) / "creating.lock"]
        try:
            _get_folder(path).mkdir(parents=True, exist_ok=True)
            lock = FileLock(locks[0])
            acquire_lock(lock, f"opens {path}")
        except OSError as error:
            raise StorageError(
                f"{path.parent}: can't be written: "
                f"{error.strerror}{format_owner(path.parent, _get_folder(path), *locks)}; "
                "or choose another place with studies_dir="
            ) from error
        try:
            yield
        finally:
            lock.release()
        return
    engine = _build_engine(url)
    with _hold_lock(engine, CREATION, 0, f"makes tables in {redact_url(url)}"):
        yield
    engine.dispose()


@contextmanager
def _hold_lock(engine: sqlalchemy.Engine, first: int, second: int, does: str) -> Iterator[sqlalchemy.Connection]:
    """An advisory lock, in a session of its own so that it ends with it; gives the session.

    Whoever has it before `does` something.
    """
    values = {"a": first, "b": second}
    connection = retry_transient(_acquire_lock)(engine, values, Wait(does, lambda: _find_holder(engine, values)))
    try:
        yield connection
    finally:
        # A session that a restart has ended has no lock to give back.
        with suppress(SQLAlchemyError):
            connection.close()


def _acquire_lock(engine: sqlalchemy.Engine, values: Mapping[str, int], wait: Wait) -> sqlalchemy.Connection:
    connection = engine.connect()
    connection.execute(sqlalchemy.text(f"set lock_timeout = {LOCK_TIMEOUT}"))
    while True:
        try:
            connection.execute(sqlalchemy.text("select pg_advisory_lock(:a, :b)"), dict(values))
            return connection
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", "") != LOCK_NOT_AVAILABLE:
                raise
        wait.step()


def _find_holder(engine: sqlalchemy.Engine, values: Mapping[str, int]) -> str:
    """Whose session has an advisory lock."""
    wanted = sqlalchemy.text(
        "select application_name || ', connected ' || date_trunc('second', backend_start) "
        "from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory' and granted and objsubid = 2 "
        "and pg_locks.database = (select oid from pg_database where datname = current_database()) "
        "and classid = cast(:a as bigint)::oid and objid = cast(:b as bigint)::oid"
    )
    with suppress(SQLAlchemyError), engine.connect() as connection:
        unsigned = {name: number & 0xFFFFFFFF for name, number in values.items()}
        if found := connection.execute(wanted, unsigned).scalar():
            return str(found)
    return "another process"


def _build_engine(url: str) -> sqlalchemy.Engine:
    application = f"process {os.getpid()} on {socket.gethostname()}"[:63]
    return sqlalchemy.create_engine(
        get_engine_url(url),
        poolclass=sqlalchemy.pool.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"options": KEEPALIVE, "connect_timeout": 10, "application_name": application},
    )


def _get_folder(database: Path) -> Path:
    return database.parent / f".{database.name}.workers"


def _compute_lock_id(worker: str) -> int:
    return _to_signed(zlib.crc32(worker.encode()))


def _to_signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number
