"""Files and servers that are broken: a named error or a recovery, never silence, never a lost trial."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from rag_opt.errors import RagOptError, StorageError
from rag_opt.study import run
from tests.faults.conftest import Figure
from tests.faults.workers import study_of

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


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_file_is_named_and_left_for_a_backup(words, tmp_path, harm: str, figure: Figure) -> None:
    run([*words, "n_trials=4"])
    path = tmp_path / "studies/animals/study.db"
    backup = shutil.copy(path, tmp_path / "backup.db")
    HARM[harm](path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"study\.db.*(damaged|empty|can't be used)") as caught:
        run([*words, "n_trials=6"])
    assert "backup" in str(caught.value) or "move it away" in str(caught.value)
    assert path.read_bytes()[:4096] == before[:4096]
    for ending in ("-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    shutil.copy(backup, path)
    run([*words, "n_trials=6"])
    assert len(study_of([*words, "n_trials=6"]).trials) == 6
    figure("storage faults", f"SQLite {harm}: named, and a backup goes on")


def test_a_file_that_can_not_be_written_is_named(words, tmp_path, figure: Figure) -> None:
    run([*words, "n_trials=4"])
    folder = tmp_path / "studies/animals"
    # As root permissions are no hindrance: a file system that is mounted read-only is what SQLite meets.
    path = folder / "study.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA journal_mode=DELETE")
    script = (
        "import os, sys\n"
        "if os.geteuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "from rag_opt.storage import opened\nfrom rag_opt.errors import StudyError\nimport optuna\n"
        f"try:\n    opened('sqlite:///{path}', 'animals', [optuna.study.StudyDirection.MAXIMIZE])\n"
        "except StudyError as error:\n    print('named', error)\n"
    )
    for place in (tmp_path, *tmp_path.parents):
        if place != Path("/") and place.owner() == Path.home().owner():
            place.chmod(place.stat().st_mode | 0o055)
    for place in [tmp_path / "studies", folder]:
        place.chmod(0o555)
    path.chmod(0o444)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    folder.chmod(0o755)
    path.chmod(0o644)
    if "ModuleNotFoundError" in done.stderr or "Permission denied: '/root" in done.stderr:
        pytest.skip("another user may not read the packages here")
    assert "named" in done.stdout, done.stderr[-2000:]
    assert "can't be" in done.stdout
    figure("storage faults", "SQLite read-only: named")


def test_a_full_disk_is_named_and_what_was_told_stays(words, tmp_path, monkeypatch, figure: Figure) -> None:
    """SQLite meets its own limit of pages, which it reports as a full disk does."""
    run([*words, "n_trials=4"])
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
        run([*words, "n_trials=400"])
    assert "the same command goes on from here" in str(caught.value)
    monkeypatch.undo()
    run([*words, "n_trials=6"])
    study = study_of([*words, "n_trials=6"])
    assert [(t.params, t.values) for t in study.trials[:4]] == before
    assert not [t for t in study.trials if t.state.name == "RUNNING"]
    figure("storage faults", "SQLite disk full: named; 0 lost, the same command goes on")


def test_a_database_that_is_locked_is_waited_for(words, tmp_path, long: bool, figure: Figure) -> None:
    run([*words, "n_trials=2"])
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
    run([*words, "n_trials=4"])
    thread.join()
    assert time.monotonic() - began >= seconds - 1
    assert len(study_of([*words, "n_trials=4"]).trials) == 4
    figure("storage faults", f"SQLite locked for {seconds} s: waited for, nothing lost")


def test_postgresql_that_is_not_there_is_named_without_its_password(words, monkeypatch) -> None:
    monkeypatch.setattr("rag_opt.databases.PATIENCE", 1.0)
    with pytest.raises(StorageError, match=r"storage\.url=postgresql.*can't be used") as caught:
        run([*words, "storage.url='postgresql://me:canary@127.0.0.1:1/none'", "n_trials=2"])
    assert "canary" not in str(caught.value)


def test_another_kind_of_database_is_refused(words) -> None:
    with pytest.raises(RagOptError, match="a SQLite file or a PostgreSQL server is expected"):
        run([*words, "storage.url='mysql://me@localhost/x'", "n_trials=2"])


def test_tables_of_an_older_optuna_are_upgraded_a_copy_kept(words, tmp_path, said) -> None:
    """The version that Optuna's own migrations stamp, one back: what an upgrade of the package finds."""
    run([*words, "n_trials=3"])
    path = tmp_path / "studies/animals/study.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    versions = storage.get_all_versions()
    storage.engine.dispose()
    assert len(versions) > 1
    from alembic import command

    command.downgrade(storage._version_manager._create_alembic_config(), "-1")
    with closing(sqlite3.connect(path)) as base:
        old = base.execute("select version_num from alembic_version").fetchone()[0]
    assert old == versions[1]
    run([*words, "n_trials=5"])
    assert len(study_of([*words, "n_trials=5"]).trials) == 5
    copy = path.with_name(f"study.db.backup-{old}")
    with closing(sqlite3.connect(copy)) as base:
        assert base.execute("select count(*) from trials").fetchone()[0] == 3
        assert base.execute("select version_num from alembic_version").fetchone()[0] == old
