"""A process that is stopped while it holds a lock: others say whom they wait for, and end at once when they are told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from rag_opt.cli.study import run_study
from rag_opt.console.exit_status import Terminated
from rag_opt.errors import StorageError
from rag_opt.storages.locks import DOES, TRIALS, build_member
from rag_opt.system.signals import Stopping
from rag_opt.system.waiting import acquire_lock, find_holder
from tests.faults.conftest import Figure
from tests.faults.test_copies import file_of
from tests.faults.test_stalls import until

HOLDS = {
    "file": "import filelock; lock = filelock.FileLock(path); lock.acquire()",
    "sqlite": "import sqlite3; b = sqlite3.connect(path, isolation_level=None); b.execute('BEGIN IMMEDIATE')",
    "postgresql": (
        "from rag_opt.storages.locks import build_member; member = build_member(path, 7); turn = member.take_turn(); turn.__enter__()"
    ),
}


@contextmanager
def stopped(how: str, path: Path | str) -> Iterator[int]:
    """A process that took the lock, and is stopped; its number."""
    code = f"import os, signal, sys; path = sys.argv[1]; {HOLDS[how]}; os.kill(os.getpid(), signal.SIGSTOP)"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    until(lambda: os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)[1])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def told_once_said(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], list[float]]]:
    """This process gets the signal when it has said for whom it waits; gives what was said, and the moment."""
    said: list[str] = []
    moments: list[float] = []
    event = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        event.set()

    def tell() -> None:
        if event.wait(60):
            moments.append(time.monotonic())
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=tell, daemon=True)
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr("rag_opt.system.waiting.report_line", say)
        # Whoever is started in a shell's background ignores Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        thread.start()
        try:
            yield said, moments
        finally:
            signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("lock", "number"),
    [
        ("the database", signal.SIGINT),
        ("the turn", signal.SIGTERM),
        pytest.param("the database", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("the turn", signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_a_wait_for_a_stopped_process_is_said_and_ends_at_once(
    words, monkeypatch, number, lock: str, figure: Figure
) -> None:
    run_study([*words, "n_trials=2"])
    path = file_of(words)
    place = path if lock == "the database" else path.parent / ".study.db.workers/1/trials.lock"
    with (
        stopped("sqlite" if lock == "the database" else "file", place) as holding,
        told_once_said(number, monkeypatch) as (lines, moments),
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        run_study([*words, "n_trials=6"])
    ended = time.monotonic() - moments[0]
    said = lines[0]
    assert f"waiting for process {holding} on " in said
    assert f"which is stopped (kill -CONT {holding} lets it go on)" in said
    assert (str(path) if lock == "the database" else DOES[TRIALS]) in said
    assert isinstance(caught.value, Terminated) == (number == signal.SIGTERM)
    assert ended < 3
    assert len(run_study([*words, "n_trials=6"]).findings.commands) > 0
    figure("a stopped process holds a lock", f"{lock}, {number.name}: said whom, ended within {ended:.1f} s")


def test_a_first_ctrl_c_ends_a_wait_though_a_batch_may_be_finished(tmp_path, monkeypatch) -> None:
    with (
        stopped("file", tmp_path / "x.lock"),
        told_once_said(signal.SIGINT, monkeypatch),
        Stopping(always=True) as stopping,
        pytest.raises(KeyboardInterrupt),
    ):
        _take_gently(stopping, tmp_path / "x.lock")
    assert stopping.asked


def _take_gently(stopping: Stopping, path: Path) -> None:
    stopping.gentle = True
    acquire_lock(FileLock(path), "holds it")


def test_after_its_limit_a_wait_says_who_held_the_lock(words, monkeypatch) -> None:
    run_study([*words, "n_trials=2"])
    monkeypatch.setattr("rag_opt.storages.sqlite.BUSY_SECONDS", 1.0)
    with stopped("sqlite", file_of(words)) as holding, pytest.raises(StorageError) as caught:
        run_study([*words, "n_trials=4"])
    assert f"process {holding} on" in str(caught.value)
    assert "kill -CONT" in str(caught.value)
    assert "the same command goes on from here" in str(caught.value)


def test_postgresql_tells_whose_session_holds_a_turn(postgres, monkeypatch) -> None:
    url = postgres.database("turns")
    member = build_member(url, 7)
    with (
        stopped("postgresql", url) as holding,
        told_once_said(signal.SIGTERM, monkeypatch) as (lines, _),
        Stopping(),
        pytest.raises(Terminated),
        member.take_turn(),
    ):
        raise AssertionError
    member.leave()
    assert f"waiting for process {holding} on" in lines[0]


def test_a_lock_that_nobody_else_holds_is_another_processes(tmp_path) -> None:
    with FileLock(tmp_path / "mine.lock"):
        assert find_holder([tmp_path / "mine.lock", tmp_path / "missing"]) == "another process"
