"""Opening Optuna storages safely, waiting for them, and closing them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from rag_opt.console.screens import report_line
from rag_opt.errors import StorageError, StudyError
from rag_opt.samplers.internals import ASKING, TELLING, get_backend, get_study_id
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes
from rag_opt.storages.databases import (
    check_backend,
    check_connection,
    format_driver_error,
    get_engine_url,
    get_sqlite_path,
    redact_url,
    retry_transient,
)
from rag_opt.storages.file_guard import FileGuard
from rag_opt.storages.locks import Member, build_member, lock_creation
from rag_opt.storages.sqlite import begin_immediately, check_sqlite, checkpoint_wal, get_engine_options
from rag_opt.system.permissions import format_owner, make_file
from rag_opt.system.waiting import acquire_lock

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """The folder made, its reports this process's alone; others wait. Raises StudyError when that can't be."""
    lock = FileLock(folder / "study.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        acquire_lock(lock, f"writes the report of {folder}")
    except OSError as error:
        raise StudyError(
            f"{folder}: can't be written: {error.strerror}{format_owner(folder, Path(lock.lock_file))}; "
            "or choose another place with studies_dir="
        ) from error
    try:
        yield
    finally:
        lock.release()


class PatientStorage(RDBStorage):
    """Optuna's storage, which waits for a database that is locked, restarts, or is out of reach for a moment."""

    guard: FileGuard | None = None


# Whole methods are repeated: in each Optuna opens a session, and rolls it back where it fails.
for _name in ASKING:
    setattr(PatientStorage, _name, retry_transient(getattr(RDBStorage, _name)))


def _checkpoint_after(tell: Callable[..., bool]) -> Callable[..., bool]:
    """The telling of a trial's end, after which a copy of a SQLite file alone holds that trial."""

    @wraps(tell)
    def told(storage: PatientStorage, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done = tell(storage, trial_id, state, values)
        if state.is_finished():
            checkpoint_wal(storage.engine)
        return done

    return told


# Wrapped last, around the patient method: the log is folded in once, after the telling has succeeded.
setattr(PatientStorage, TELLING, _checkpoint_after(getattr(PatientStorage, TELLING)))


def open_study(url: str, name: str, directions: list[StudyDirection]) -> optuna.Study:
    """The study of this name, new or as it was left; raises StorageError when the storage can't be used.

    Of several processes that begin at once one makes the tables, and the study.
    """
    check_backend(url)
    database = get_sqlite_path(url)
    with translate_errors(url):
        if database is None:
            try:
                # Before the lock, which is more patient with a server: a wrong address is said within seconds.
                check_connection(url)
            except ImportError as error:
                raise StorageError(
                    f"storage.url={redact_url(url)}: its driver is missing: pip install 'rag-opt-studies[postgresql]'"
                ) from error
        # Optuna lets processes make its tables side by side, and of 8 that began at once 4 died of it.
        with lock_creation(url):
            if database is not None:
                check_sqlite(database)
            storage = retry_transient(_open_storage)(get_engine_url(url), database)
            return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)


def _open_storage(url: str, database: Path | None) -> PatientStorage:
    """The storage, its tables as this version wants them."""
    # Optuna's own check refuses older tables; here they are upgraded.
    storage = PatientStorage(url, engine_kwargs=get_engine_options(database is not None), skip_compatibility_check=True)
    _upgrade_tables(storage, database)
    if database is not None:
        storage.guard = FileGuard(database)
        # First of the two: listeners are called in this order, and nothing may begin in a file that was lost.
        storage.guard.watch(storage.engine)
        begin_immediately(storage.engine, database)
    return storage


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """What a database raises becomes a StorageError: what, where, what to do."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise StorageError(
            f"storage.url={redact_url(url)}: can't be used: {format_driver_error(error)}; nothing that was told "
            "is lost: once that "
            "is mended the same command goes on from here"
        ) from error


def _upgrade_tables(storage: RDBStorage, database: Path | None) -> None:
    """Bring tables that an older Optuna made up to date, a copy of the file kept; raises StorageError otherwise."""
    found, wanted = storage.get_current_version(), storage.get_head_version()
    if found == wanted:
        return
    if found not in storage.get_all_versions():
        raise StorageError(
            f"{redact_url(storage.url)}: a newer Optuna made these tables ({found}); pip install -U optuna"
        )
    if database is None:
        raise StorageError(
            f"{redact_url(storage.url)}: an older Optuna made these tables ({found}, now {wanted}): back the "
            "database up "
            "(pg_dump), then run: optuna storage upgrade --storage <the URL>"
        )
    copy = database.with_name(f"{database.name}.backup-{found}")
    make_file(copy)
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(copy)) as new:
        # Not a copy of the file, which would lack what is still in its write-ahead log.
        old.backup(new)
    storage.upgrade()
    report_line(
        f"{database}: an older Optuna made it; its tables are up to date now, the file as it was is {copy.name}"
    )


def close_study(study: optuna.Study) -> None:
    """Let go of the database; a SQLite file then holds all that was told, whoever else has it open."""
    storage = get_backend(study)
    # Optuna's storages in memory have neither.
    engine, guard = getattr(storage, "engine", None), getattr(storage, "guard", None)
    if engine is not None:
        # A connection that is made now would open, or make, what has the lost file's name.
        if guard is None or not guard.lost:
            checkpoint_wal(engine, whole=True)
        engine.dispose()
    if guard is not None:
        guard.release()


@contextmanager
def rescue_lost_file(study: optuna.Study) -> Iterator[None]:
    """Within it a file that is lost ends the study: raises LostError, which names the new file with what it held."""
    try:
        yield
    finally:
        # Whatever the loss has led to first, this is the error that says where the trials are now.
        guard: FileGuard | None = getattr(get_backend(study), "guard", None)
        if guard is not None and guard.lost:
            raise guard.rescue()


def get_engine(study: optuna.Study) -> sqlalchemy.Engine:
    """The engine of the database that the study lies in."""
    engine: sqlalchemy.Engine = get_backend(study).engine
    return engine


def open_member(study: optuna.Study) -> Member:
    """This process's place among those at work on the study, until its `leave`."""
    return build_member(get_backend(study).url, get_study_id(study))


def get_ledger(study: optuna.Study) -> str:
    """The name under which the study's payments are entered: one of its own, wherever its folder lies.

    One process at a time may call it: two at once would give it two names.
    """
    # Neither its name nor its path would do: studies share a store, and their folders may move.
    known = get_study_attributes(study).ledger
    if not known:
        known = uuid4().hex
        StudyAttributes.ledger.save(study, known)
    return known
