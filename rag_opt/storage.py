"""Opening Optuna storages safely, and everything that touches Optuna's internals."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from copy import copy
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from rag_opt.attributes import StudyAttributes, TrialAttributes, attributes_of, study_attributes
from rag_opt.databases import check_kind, engine_url, hidden, patient, reach, reason_of, sqlite_path
from rag_opt.errors import StorageError, StudyError
from rag_opt.gate import Gate, creating, gate_of
from rag_opt.lost import Guard
from rag_opt.progress import say
from rag_opt.sharing import make_file, whose
from rag_opt.sqlite import begin_at_once, check_sqlite, engine_options, fold
from rag_opt.waiting import taken

QMC = "qmc:"
"""Prefix of the study attributes in which QMCSampler counts its points."""

NOTE_PART = 2045
"""Characters that one of optuna-dashboard's attributes holds."""

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)

_TELL = "set_trial_state_values"

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


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


for _name in (*BaseStorage.__abstractmethods__, "_create_new_trial", "_set_trial_param", "_get_trials"):
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


setattr(PatientStorage, _TELL, _folded(getattr(PatientStorage, _TELL)))


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
    storage = _backend(study)
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
        guard: Guard | None = getattr(_backend(study), "guard", None)
        if guard is not None and guard.lost:
            raise guard.rescue()


def engine_of(study: optuna.Study) -> sqlalchemy.Engine:
    """The engine of the database that the study lies in."""
    engine: sqlalchemy.Engine = _backend(study).engine
    return engine


def gate_for(study: optuna.Study) -> Gate:
    """This process's place among those at work on the study."""
    return gate_of(_backend(study).url, study._study_id)


def _backend(study: optuna.Study) -> Any:
    # Optuna wraps a database storage in a cache.
    return getattr(study._storage, "_backend", study._storage)


def ledger_of(study: optuna.Study) -> str:
    """The name under which the study's payments are entered: one of its own, wherever its folder lies."""
    known = study_attributes(study).ledger
    if not known:
        known = uuid4().hex
        StudyAttributes.ledger.note(study, known)
    return known


class Moment:
    """A study as it is now, to be asked many things without going to the storage for each, and to stay as it is.

    Or as it was when it had so many trials, of which these were unfinished.
    """

    def __init__(self, study: optuna.Study, trials: int | None = None, unfinished: Container[int] = ()) -> None:
        self.directions = study.directions
        self.user_attrs = study.user_attrs
        now = study.get_trials(deepcopy=False)[:trials]
        self._trials = [_begun(trial) if trial.number in unfinished else trial for trial in now]

    @property
    def unfinished(self) -> tuple[int, ...]:
        """The trials that are waiting or under way."""
        return tuple(trial.number for trial in self._trials if not trial.state.is_finished())

    def get_trials(self, deepcopy: bool = False, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """As a study's; never copied."""
        del deepcopy
        return [trial for trial in self._trials if states is None or trial.state in states]


def _begun(trial: FrozenTrial) -> FrozenTrial:
    """The trial without how it ended."""
    begun = copy(trial)
    begun.state, begun.values, begun.user_attrs = TrialState.RUNNING, None, {}
    return begun


Trials = optuna.Study | Moment


def places_taken(study: Trials) -> int:
    """Finished trials that count: what n_trials is compared with.

    Those of stopped processes don't, nor do configurations that were given up.
    """
    finished = map(attributes_of, study.get_trials(deepcopy=False, states=FINISHED))
    return sum(not noted.interrupted and not noted.given_up for noted in finished)


def interrupt(
    study: optuna.Study, trial: FrozenTrial, retries: int | None = None, told: Mapping[str, str] | None = None
) -> None:
    """End a trial whose place is to be taken again; one that has ended meanwhile stays as it is.

    With `retries` its process died: after so many repeated deaths over a configuration that is given up. `told`:
    attributes that say why it is ended.
    """
    deaths = attributes_of(trial).earlier_deaths + (retries is not None)
    given_up = retries is not None and deaths > retries
    reason = "its process was stopped" if retries is None else "its process died"
    if given_up:
        reason = f"given up: its process died {deaths} times over this configuration (retries={retries})"
    ending = TrialAttributes.given_up if given_up else TrialAttributes.interrupted
    about = {
        TrialAttributes.reason.name: reason,
        TrialAttributes.deaths.name: deaths,
        ending.name: True,
        **(told or {}),
    }
    with suppress(UpdateFinishedTrialError):
        for key, value in about.items():
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        # Not told to the sampler: one that stops the study by itself may do so only where a trial was measured.
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    if trial.number == len(study.get_trials(deepcopy=False)) - 1 and not drawn(trial):
        _put_back(study)


def drawn(trial: FrozenTrial) -> bool:
    """Whether all its parameters are there: its origin is noted after the last one, a seed's when it is enqueued."""
    fixed: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
    return bool(attributes_of(trial).origin) and bool(trial.params) and set(fixed) <= set(trial.params)


def _put_back(study: optuna.Study) -> None:
    """Put the sampler back to where the latest trial began, which is to be drawn again."""
    before = study_attributes(study).sampler_state
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


def name_metrics(study: optuna.Study, names: list[str]) -> None:
    """Have optuna-dashboard call the objectives by these names."""
    if study.metric_names != names:
        with warnings.catch_warnings():
            # It may change, says Optuna.
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(names)


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
    if state and state != study_attributes(study).sampler_state:
        StudyAttributes.sampler_state.note(study, state)


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
