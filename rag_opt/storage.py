"""Opening Optuna storages safely, and everything that touches Optuna's internals."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rag_opt.errors import DriftError, StorageError, StudyError

BUSY_SECONDS = 60
FINGERPRINTS = "rag_opt:fingerprints"
SNAPSHOT = "rag_opt:sampler_state"
INTERRUPTED = "interrupted"
"""User attribute of a trial whose process died; its place is taken by another trial."""

QMC = "qmc:"
"""Prefix of the study attributes in which QMCSampler counts its points."""

LEDGER = "rag_opt:ledger"
EXHAUSTED = "rag_opt:exhausted"
"""Study attribute: a sampler has said that every combination was tried."""

NOTE_PART = 2045
"""Characters that one of optuna-dashboard's attributes holds."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder made, and held by this process alone; raises StudyError when that can't be."""
    lock = FileLock(folder / "study.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StudyError(
            f"{folder}: another process is running this study; wait for it, or choose name=<another name>"
        ) from error
    except OSError as error:
        raise StudyError(
            f"{folder}: can't be written: {error.strerror}; choose another place with studies_dir="
        ) from error
    try:
        yield
    finally:
        lock.release()


def opened(url: str, name: str, directions: list[StudyDirection]) -> optuna.Study:
    """The study of this name, new or as it was left; raises StorageError when the storage can't be used."""
    database = sqlite_path(url)
    if database is not None:
        check_sqlite(database)
    try:
        storage = RDBStorage(url, engine_kwargs=_engine_options(database is not None))
        if database is not None:
            _immediate(storage.engine)
        return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"storage.url={hidden(url)}: can't be opened: {reason}") from error


def hidden(url: str) -> str:
    """The URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError as error:
        raise StorageError("storage.url is not a database URL, such as sqlite:///folder/study.db") from error


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases."""
    hidden(url)
    parts = sqlalchemy.make_url(url)
    return Path(parts.database) if parts.get_backend_name() == "sqlite" and parts.database else None


def check_sqlite(path: Path) -> None:
    """Switch the file to write-ahead logging; raises StorageError when it is damaged or something else."""
    if path.exists() and path.stat().st_size == 0:
        raise StorageError(f"{path}: the study file is empty; remove it to start anew, or put a backup in its place")
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            found = connection.execute("PRAGMA quick_check").fetchone()[0]
            if found != "ok":
                raise StorageError(f"{path}: the study file is damaged ({found}); put a backup in its place")
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "studies" not in tables:
                raise StorageError(f"{path}: this database is no Optuna study; choose another name=<study name>")
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"{path}: can't be used as a study file ({error}); move it away, or choose another name=<study name>"
        ) from error


def _engine_options(is_sqlite: bool) -> dict[str, Any]:
    return {"connect_args": {"timeout": BUSY_SECONDS}} if is_sqlite else {"pool_pre_ping": True}


def _immediate(engine: sqlalchemy.Engine) -> None:
    """Take SQLite's write lock when a transaction begins: taking it later is what makes writers fail."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def no_implicit_begin(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    # Connections made so far don't know of this.
    engine.dispose()


def check_fingerprints(study: optuna.Study, now: Mapping[str, str], folder: Path) -> None:
    """Remember what a new study is made of; raises DriftError when an old one was made of something else."""
    then: Mapping[str, str] = study.user_attrs.get(FINGERPRINTS, {})
    if not then:
        if study.get_trials(deepcopy=False):
            raise DriftError(
                f"study '{study.study_name}' has trials that another program made; "
                f"choose name=<new name>, or remove {folder}"
            )
        study.set_user_attr(FINGERPRINTS, dict(now))
        return
    changed = [name for name in now if then.get(name) != now[name]]
    if changed:
        lines = [f"  {name}: then {then.get(name, 'unknown')}, now {now[name]}" for name in changed]
        raise DriftError(
            f"study '{study.study_name}' was made with another {' and '.join(changed)}; its scores would not compare\n"
            + "\n".join(lines)
            + f"\n  either keep it and start another: name=<new name>\n  or start it anew: remove {folder}"
        )


def close(study: optuna.Study) -> None:
    """Let go of the database: SQLite then folds its log into the file."""
    engine = getattr(_backend(study), "engine", None)
    if engine is not None:
        engine.dispose()


def _backend(study: optuna.Study) -> Any:
    # Optuna wraps a database storage in a cache.
    return getattr(study._storage, "_backend", study._storage)


def ledger_of(study: optuna.Study) -> str:
    """The name under which the study's payments are entered: one of its own, wherever its folder lies."""
    known = study.user_attrs.get(LEDGER)
    if known is None:
        known = uuid4().hex
        study.set_user_attr(LEDGER, known)
    return str(known)


class Moment:
    """A study's trials as they are now, to be asked many things without going to the storage for each."""

    def __init__(self, study: optuna.Study) -> None:
        self.directions = study.directions
        self._trials = study.get_trials(deepcopy=False)

    def get_trials(self, deepcopy: bool = False, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """As a study's; never copied."""
        del deepcopy
        return [trial for trial in self._trials if states is None or trial.state in states]


Trials = optuna.Study | Moment


def places_taken(study: Trials) -> int:
    """Finished trials, those of killed processes not counted: what n_trials is compared with."""
    return sum(INTERRUPTED not in trial.user_attrs for trial in study.get_trials(deepcopy=False, states=FINISHED))


def close_zombies(study: optuna.Study) -> list[int]:
    """Mark trials that no process runs any more as failed, and put the sampler back to where they began."""
    zombies = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in zombies:
        interrupt(study, trial)
    return [trial.number for trial in zombies]


def interrupt(study: optuna.Study, trial: FrozenTrial) -> None:
    """End a trial whose place is to be taken again."""
    study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
    study._storage.set_trial_user_attr(trial._trial_id, "reason", "its process was stopped")
    study.tell(trial.number, state=TrialState.FAIL)
    before: Mapping[str, Any] = study.user_attrs.get(SNAPSHOT, {})
    for key in study._storage.get_study_system_attrs(study._study_id):
        if key.startswith(QMC):
            # -1 is where QMCSampler begins to count.
            study._storage.set_study_system_attr(study._study_id, key, before.get(key, -1))


def note(trial: optuna.Trial, body: str) -> None:
    """Give a new trial its note (Markdown) in optuna-dashboard.

    As `optuna_dashboard.save_note`, whose import costs a second, and which reads the notes of all trials every time.
    """
    storage, study_id, trial_id = trial.storage, trial.study._study_id, trial._trial_id
    storage.set_study_system_attr(study_id, f"dashboard:{trial_id}:note_ver", 1)
    for part, start in enumerate(range(0, len(body), NOTE_PART)):
        storage.set_study_system_attr(
            study_id, f"dashboard:{trial_id}:note_str:{part}", body[start : start + NOTE_PART]
        )


def note_study(study: optuna.Study, body: str) -> None:
    """Give a study its note (Markdown) in optuna-dashboard, in place of the one it has."""
    version = study._storage.get_study_system_attrs(study._study_id).get("dashboard:note_ver", 0)
    study._storage.set_study_system_attr(study._study_id, "dashboard:note_ver", version + 1)
    _set_parts(study, "dashboard:note_str:", body)


def plot_study(study: optuna.Study, name: str, figure: str) -> None:
    """Give a study a figure (Plotly's JSON) in optuna-dashboard, as its `save_plotly_graph_object` does."""
    _set_parts(study, f"dashboard:plot_data:{name}:", figure)


def _set_parts(study: optuna.Study, prefix: str, text: str) -> None:
    """Keep a text in as many attributes as it needs, and empty those that a longer one left."""
    storage, study_id = study._storage, study._study_id
    parts = [text[start : start + NOTE_PART] for start in range(0, len(text), NOTE_PART)]
    old = sum(key.startswith(prefix) for key in storage.get_study_system_attrs(study_id))
    for place, part in enumerate([*parts, *[""] * (old - len(parts))]):
        storage.set_study_system_attr(study_id, f"{prefix}{place}", part)


def snapshot_sampler(study: optuna.Study) -> None:
    """Remember where the sampler stands, before it draws; only QMC's stands in the storage."""
    attributes = study._storage.get_study_system_attrs(study._study_id)
    state = {key: value for key, value in attributes.items() if key.startswith(QMC)}
    if state and state != study.user_attrs.get(SNAPSHOT):
        study.set_user_attr(SNAPSHOT, state)


@contextmanager
def stoppable(study: optuna.Study) -> Iterator[None]:
    """Let a sampler or callback call study.stop(), which Optuna allows only inside its own loop."""
    study._thread_local.in_optimize_loop = True
    try:
        yield
    finally:
        study._thread_local.in_optimize_loop = False


def stopped(study: optuna.Study) -> bool:
    """Whether a sampler has said that there is nothing left to try."""
    return bool(study._stop_flag)
