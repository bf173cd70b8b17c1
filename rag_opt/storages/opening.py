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

from rag_opt.console.progress import say
from rag_opt.errors import StorageError, StudyError
from rag_opt.samplers.internals import ASKING, TELLING, backend_of, study_id
from rag_opt.storages.attributes import StudyAttributes, study_attributes
from rag_opt.storages.databases import check_kind, engine_url, hidden, patient, reach, reason_of, sqlite_path
from rag_opt.storages.locks import Gate, creating, gate_of
from rag_opt.storages.lost import Guard
from rag_opt.storages.sqlite import begin_at_once, check_sqlite, engine_options, fold
from rag_opt.system.sharing import make_file, whose
from rag_opt.system.waiting import taken

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder made, its reports this process's alone; others wait. Raises StudyError when that can't be."""
    lock = FileLock(folder / "study.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken(lock, f"writes the report of {folder}")
    except OSError as error:
        raise StudyError(
            f"{folder}: can't be written: {error.strerror}{whose(folder, Path(lock.lock_file))}; "
            "or choose another place with studies_dir="
        ) from error
    try:
        yield
    finally:
        lock.release()


class PatientStorage(RDBStorage):
    """Optuna's storage, which waits for a database that is locked, restarts, or is out of reach for a moment."""

    guard: Guard | None = None


for _name in ASKING:
    setattr(PatientStorage, _name, patient(getattr(RDBStorage, _name)))


def _folded(tell: Callable[..., bool]) -> Callable[..., bool]:
    """The telling of a trial's end, after which a copy of a SQLite file alone holds that trial."""

    @wraps(tell)
    def told(storage: PatientStorage, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done = tell(storage, trial_id, state, values)
        if state.is_finished():
            fold(storage.engine)
        return done

    return told


setattr(PatientStorage, TELLING, _folded(getattr(PatientStorage, TELLING)))


def opened(url: str, name: str, directions: list[StudyDirection]) -> optuna.Study:
    """The study of this name, new or as it was left; raises StorageError when the storage can't be used.

    Of several processes that begin at once one makes the tables, and the study.
    """
    check_kind(url)
    database = sqlite_path(url)
    with explained(url):
        if database is None:
            try:
                reach(url)
            except ImportError as error:
                raise StorageError(
                    f"storage.url={hidden(url)}: its driver is missing: pip install 'rag-opt-studies[postgresql]'"
                ) from error
        with creating(url):
            if database is not None:
                check_sqlite(database)
            storage = patient(_storage)(engine_url(url), database)
            return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)


def _storage(url: str, database: Path | None) -> PatientStorage:
    """The storage, its tables as this version wants them."""
    storage = PatientStorage(url, engine_kwargs=engine_options(database is not None), skip_compatibility_check=True)
    _upgrade(storage, database)
    if database is not None:
        storage.guard = Guard(database)
        storage.guard.watch(storage.engine)
        begin_at_once(storage.engine, database)
    return storage


@contextmanager
def explained(url: str) -> Iterator[None]:
    """What a database raises becomes a StorageError: what, where, what to do."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise StorageError(
            f"storage.url={hidden(url)}: can't be used: {reason_of(error)}; nothing that was told is lost: once that "
            "is mended the same command goes on from here"
        ) from error


def _upgrade(storage: RDBStorage, database: Path | None) -> None:
    """Bring tables that an older Optuna made up to date, a copy of the file kept; raises StorageError otherwise."""
    found, wanted = storage.get_current_version(), storage.get_head_version()
    if found == wanted:
        return
    if found not in storage.get_all_versions():
        raise StorageError(f"{hidden(storage.url)}: a newer Optuna made these tables ({found}); pip install -U optuna")
    if database is None:
        raise StorageError(
            f"{hidden(storage.url)}: an older Optuna made these tables ({found}, now {wanted}): back the database up "
            "(pg_dump), then run: optuna storage upgrade --storage <the URL>"
        )
    copy = database.with_name(f"{database.name}.backup-{found}")
    make_file(copy)
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    storage.upgrade()
    say(f"{database}: an older Optuna made it; its tables are up to date now, the file as it was is {copy.name}")


def close(study: optuna.Study) -> None:
    """Let go of the database; a SQLite file then holds all that was told, whoever else has it open."""
    storage = backend_of(study)
    engine, guard = getattr(storage, "engine", None), getattr(storage, "guard", None)
    if engine is not None:
        if guard is None or not guard.lost:
            fold(engine, whole=True)
        engine.dispose()
    if guard is not None:
        guard.release()


@contextmanager
def rescuing(study: optuna.Study) -> Iterator[None]:
    """Within it a file that is lost ends the study: raises LostError, which names the new file with what it held."""
    try:
        yield
    finally:
        guard: Guard | None = getattr(backend_of(study), "guard", None)
        if guard is not None and guard.lost:
            raise guard.rescue()


def engine_of(study: optuna.Study) -> sqlalchemy.Engine:
    """The engine of the database that the study lies in."""
    engine: sqlalchemy.Engine = backend_of(study).engine
    return engine


def gate_for(study: optuna.Study) -> Gate:
    """This process's place among those at work on the study."""
    return gate_of(backend_of(study).url, study_id(study))


def ledger_of(study: optuna.Study) -> str:
    """The name under which the study's payments are entered: one of its own, wherever its folder lies."""
    known = study_attributes(study).ledger
    if not known:
        known = uuid4().hex
        StudyAttributes.ledger.note(study, known)
    return known
