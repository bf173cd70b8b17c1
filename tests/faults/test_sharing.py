"""Folders of a group: files are made as the umask says, and who may not write one is told whose it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from rag_opt.cache.artifact_files import read_table, remove, touch, write_folder, write_table
from rag_opt.cli.study import run_study
from rag_opt.errors import StoreError
from rag_opt.llm.replies import Replies
from rag_opt.reporting import report
from rag_opt.storages.opening import lock_folder, open_study
from rag_opt.system.permissions import catch_disk_errors, format_owner
from tests.faults.conftest import Figure
from tests.faults.workers import FORK


@pytest.fixture(params=[0o002, 0o077], ids=["a group's", "private"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(call: Callable[[], object]) -> str:
    """What it raises when somebody else does it, who owns nothing: root's rights would hide it."""
    told = FORK.Queue()

    def child() -> None:
        os.setgid(65534)
        os.setuid(65534)
        try:
            call()
        except BaseException as error:
            told.put(f"{type(error).__name__}: {error}")
        else:
            told.put("silent")

    process = FORK.Process(target=child)
    process.start()
    found = told.get(timeout=60)
    process.join()
    return found


def test_every_file_of_a_study_is_made_as_the_umask_says(animals, tmp_path, umask: int, figure: Figure) -> None:
    run_study(
        [*animals, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "sampler=random", "n_trials=2"]
    )
    made = [path for root in ("studies", "store") for path in (tmp_path / root).rglob("*")]
    wrong = [path for path in made if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask]
    assert wrong == []
    assert {"study.db", "mlflow.db", "findings.json"} <= {path.name for path in made}
    figure("shared folders", f"umask {umask:04o}: {len(made)} files and folders, all made as it says")


def test_what_is_made_anew_keeps_to_the_umask(tmp_path, umask: int) -> None:
    write_table(tmp_path / "a.arrow", {"x": [1, 2]}, 0.0)
    write_folder(tmp_path / "b", lambda folder: (folder / "c").write_text("c"))
    Replies(tmp_path).get_spent("study")
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("a.arrow", "b", "replies.db")}
    assert modes == {"a.arrow": 0o666 & ~umask, "b": 0o777 & ~umask, "replies.db": 0o666 & ~umask}
    remove(tmp_path / "b")
    assert {path.name for path in tmp_path.iterdir() if "replies" not in path.name} == {"a.arrow"}
    assert read_table(tmp_path / "a.arrow").columns["x"].tolist() == [1, 2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_may_not_write_is_told_whose_it_is(words, place, figure: Figure) -> None:
    words = [*[word for word in words if not word.startswith("studies_dir")], f"studies_dir={place}/studies"]
    folder = run_study([*words, "n_trials=2"]).folder
    url = f"sqlite:///{folder}/study.db"
    told = {
        "open": as_nobody(lambda: open_study(url, "animals", [optuna.study.StudyDirection.MAXIMIZE])),
        "report": as_nobody(lambda: report.rewrite_report(folder)),
        "conclude": as_nobody(lambda: lock_folder(folder).__enter__()),
    }
    for name, message in told.items():
        assert "belongs to root (" in message, name
        assert "ask for the right to write it" in message, name
    assert "studies_dir=" not in told["report"], "an option that it has not"
    assert f"cp -r {folder}" in told["report"]
    figure("shared folders", "who may not write is told which file, whose it is and its mode")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_group_may_use_what_another_has_made(place) -> None:
    path = place / "a.arrow"
    write_table(path, {"x": [1]}, 0.0)
    path.chmod(0o666)
    os.utime(path, (1, 1))
    assert as_nobody(lambda: touch(path)) == "silent"
    assert path.stat().st_mtime > 1
    path.chmod(0o644)
    assert as_nobody(lambda: touch(path)) == "silent"

    def stored() -> None:
        with catch_disk_errors(path):
            path.open("ab").close()

    assert "belongs to root (-rw-r--r--)" in as_nobody(stored)
    assert StoreError.__name__ in as_nobody(stored)


def test_what_may_be_written_is_nobody_elses(tmp_path) -> None:
    assert format_owner(tmp_path, tmp_path / "missing", tmp_path / "no" / "folder") == ""
