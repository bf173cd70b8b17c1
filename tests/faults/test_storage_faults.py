"""Files and servers that are broken: a named error or a recovery, never silence, never a lost trial."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from rag_opt.cli.study import run_study
from rag_opt.errors import RagOptError, StorageError, StudyError
from rag_opt.storages.opening import close_study, open_study
from rag_opt.storages.sqlite import check_sqlite
from tests.conftest import animals_study
from tests.faults.conftest import Figure
from tests.faults.workers import FORK, study_of

HARM = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a zeroed page": lambda path: _overwrite(path, 8192, b"\0" * 4096),
    "not a database": lambda path: path.write_bytes(b"PK\x03\x04 this is no database" * 400),
    "zero bytes": lambda path: path.write_bytes(b""),
    "a half-written header": lambda path: _overwrite(path, 0, b"SQLite format 3\0\xff\xff\xff"),
}


def _overwrite(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


@pytest.fixture(scope="module")
def four_trials(animals, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("four")
    animals_study(animals, place, "sampler=random", "n_trials=4")
    return place


@pytest.fixture
def four(four_trials: Path, tmp_path: Path, words: list[str]) -> list[str]:
    """The words of a study of four trials that is done, a copy."""
    shutil.copytree(four_trials, tmp_path, dirs_exist_ok=True)
    return [*words, "pruner=none"]


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_file_is_named_and_left_for_a_backup(four, tmp_path, harm: str, figure: Figure) -> None:
    words = four
    path = tmp_path / "studies/animals/study.db"
    backup = shutil.copy(path, tmp_path / "backup.db")
    HARM[harm](path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"study\.db.*(damaged|empty|can't be used)") as caught:
        run_study([*words, "n_trials=6"])
    assert "backup" in str(caught.value) or "move it away" in str(caught.value)
    assert path.read_bytes()[:4096] == before[:4096]
    for ending in ("-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    shutil.copy(backup, path)
    run_study([*words, "n_trials=6"])
    assert len(study_of([*words, "n_trials=6"]).trials) == 6
    figure("storage faults", f"SQLite {harm}: named, and a backup goes on")


def test_a_stop_while_the_file_is_made_leaves_no_empty_one(tmp_path, monkeypatch) -> None:
    path = tmp_path / "study.db"

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", stopped)
        with pytest.raises(KeyboardInterrupt):
            check_sqlite(path)
    assert not path.exists()
    check_sqlite(path)
    assert path.stat().st_size
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("statement", range(15))
def test_a_kill_while_the_tables_are_made_leaves_a_file_that_can_be_used(tmp_path, statement: int) -> None:
    """After so many statements: between a table and its index, too."""
    url, name = f"sqlite:///{tmp_path}/study.db", "animals"

    def killed() -> None:
        left = iter(range(statement))

        @sqlalchemy.event.listens_for(sqlalchemy.Engine, "after_cursor_execute")
        def count(connection, cursor, text: str, *_: object) -> None:
            if text.strip().startswith("CREATE") and next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        open_study(url, name, [optuna.study.StudyDirection.MAXIMIZE])

    child = FORK.Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    for _ in range(2):
        close_study(open_study(url, name, [optuna.study.StudyDirection.MAXIMIZE]))
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        assert connection.execute("select study_name from studies").fetchall() == [(name,)]
        (unique,) = connection.execute("select sql from sqlite_master where name = 'ix_studies_study_name'").fetchone()
    assert "UNIQUE" in unique
    assert not list(tmp_path.glob("*.new*"))


def test_a_file_that_can_not_be_written_is_named(words, figure: Figure) -> None:
    # Permissions are no hindrance to root, so a forked child becomes nobody; pytest's own folder is closed to that.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "studies"
        words = [*[word for word in words if not word.startswith("studies_dir")], f"studies_dir={folder}"]
        run_study([*words, "n_trials=4"])
        path = folder / "animals/study.db"
        Path(place).chmod(0o755)
        for each in (folder, path.parent, path):
            each.chmod(each.stat().st_mode & 0o555 | 0o444)
        url, told = f"sqlite:///{path}", FORK.Queue()

        def opens() -> None:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            try:
                open_study(url, "animals", [optuna.study.StudyDirection.MAXIMIZE])
            except StudyError as error:
                told.put(str(error))
            except BaseException as error:
                told.put(f"not named: {error!r}")
            else:
                told.put("silent")

        process = FORK.Process(target=opens)
        process.start()
        found = told.get(timeout=60)
        process.join()
        for each in (folder, path.parent, path):
            each.chmod(0o755)
    assert "can't be" in found
    assert "not named" not in found
    assert "animals" in found
    figure("storage faults", "SQLite read-only: named")


def test_a_full_disk_is_named_and_what_was_told_stays(four, monkeypatch, figure: Figure) -> None:
    """SQLite meets its own limit of pages, which it reports as a full disk does."""
    words = four
    before = [(t.params, t.values) for t in study_of([*words, "n_trials=4"]).trials]
    real = optuna.storages.RDBStorage.__init__

    def limited(self, *arguments, **kwargs):
        real(self, *arguments, **kwargs)
        import sqlalchemy

        @sqlalchemy.event.listens_for(self.engine, "connect")
        def full(connection, _):
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={pages}")

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", limited)
    with pytest.raises(StorageError, match="full") as caught:
        run_study([*words, "n_trials=400"])
    assert "the same command goes on from here" in str(caught.value)
    monkeypatch.undo()
    run_study([*words, "n_trials=6"])
    study = study_of([*words, "n_trials=6"])
    assert [(t.params, t.values) for t in study.trials[:4]] == before
    assert not [t for t in study.trials if t.state.name == "RUNNING"]
    figure("storage faults", "SQLite disk full: named; 0 lost, the same command goes on")


def test_a_database_that_is_locked_is_waited_for(four, tmp_path, long: bool, figure: Figure) -> None:
    path, seconds = tmp_path / "studies/animals/study.db", 65 if long else 4
    base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    base.execute("BEGIN IMMEDIATE")

    def unlock() -> None:
        time.sleep(seconds)
        base.execute("ROLLBACK")
        base.close()

    thread = threading.Thread(target=unlock)
    thread.start()
    began = time.monotonic()
    run_study([*four, "n_trials=6"])
    thread.join()
    assert time.monotonic() - began >= seconds - 1
    assert len(study_of([*four, "n_trials=6"]).trials) == 6
    figure("storage faults", f"SQLite locked for {seconds} s: waited for, nothing lost")


def test_postgresql_that_is_not_there_is_named_without_its_password(words, monkeypatch) -> None:
    monkeypatch.setattr("rag_opt.storages.databases.FIRST_PATIENCE", 1.0)
    with pytest.raises(StorageError, match=r"storage\.url=postgresql.*can't be used") as caught:
        run_study([*words, "storage.url='postgresql://me:canary@127.0.0.1:1/none'", "n_trials=2"])
    assert "canary" not in str(caught.value)


def test_another_kind_of_database_is_refused(words) -> None:
    with pytest.raises(RagOptError, match="a SQLite file or a PostgreSQL server is expected"):
        run_study([*words, "storage.url='mysql://me@localhost/x'", "n_trials=2"])


def test_tables_of_an_older_optuna_are_upgraded_a_copy_kept(four, tmp_path, said) -> None:
    """As Optuna 3.1 left them: stamped with the version before the index that 3.2 added."""
    path = tmp_path / "studies/animals/study.db"
    old = "v3.0.0.d"
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("update alembic_version set version_num = ?", (old,))
    run_study([*four, "n_trials=5"])
    assert len(study_of([*four, "n_trials=5"]).trials) == 5
    copy = path.with_name(f"study.db.backup-{old}")
    with closing(sqlite3.connect(copy)) as base:
        assert base.execute("select count(*) from trials").fetchone()[0] == 4
        assert base.execute("select version_num from alembic_version").fetchone()[0] == old
