"""A worker that lives is not declared dead, whatever keeps it; one that stops gives its trial back."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import pytest
from optuna.trial import TrialState

from rag_opt.storages import locks
from rag_opt.storages.attributes import get_attributes
from rag_opt.study.loop import Session
from tests.faults.conftest import Figure
from tests.faults.workers import Worker, ended_well, start, study_of, told


def running(words: list[str]) -> list[int]:
    return [trial.number for trial in study_of(words).get_trials(states=(TrialState.RUNNING,))]


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def stalls(seconds: float, how: str):
    """In its second batch the worker holds the interpreter's lock, or suspends itself."""

    def prepare(session: Session) -> None:
        real, calls = session.measuring.check_batch, []

        def at_batch(*arguments) -> None:
            calls.append(1)
            if len(calls) == 2:
                if how == "GIL held":
                    # A call through PyDLL keeps the lock, as an extension's long computation does.
                    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
                else:
                    os.kill(os.getpid(), signal.SIGSTOP)
            real(*arguments)

        session.measuring.check_batch = at_batch

    return prepare


@pytest.mark.parametrize("how", ["GIL held", "SIGSTOP"])
def test_a_stalled_worker_is_left_alone(stored, tmp_path, how: str, figure: Figure) -> None:
    words, ledger = [*stored, "n_trials=12"], tmp_path / "ledger"
    postgres = any("storage.url" in word for word in words)
    seconds = 4 * locks.GRACE if postgres else 4.0
    stalled = start(words, ledger, stalls(seconds, how))
    stalled.ready.wait(30)
    until(lambda: running(words) == [0])
    if how == "SIGSTOP":
        until(lambda: os.waitpid(stalled.process.pid, os.WNOHANG | os.WUNTRACED)[1])
    other = start(words, ledger)
    time.sleep(0.7 * seconds)
    assert 0 in running(words), "declared dead"
    if how == "SIGSTOP":
        os.kill(stalled.process.pid, signal.SIGCONT)
    ended_well([stalled, other], ledger)
    study = study_of(words)
    assert [trial.number for trial in study.trials if get_attributes(trial).interrupted] == []
    assert study.trials[0].state == TrialState.COMPLETE
    assert sum("repeats" not in trial.user_attrs for trial in study.trials) == 12
    name = "PostgreSQL" if postgres else "SQLite"
    figure("a live worker is not declared dead", f"{name}, {how} for {seconds:.0f} s: 0 false FAIL, 0 worker deaths")


def test_a_restart_of_postgresql_is_bridged(words, postgres, tmp_path, long: bool, figure: Figure) -> None:
    """Sessions and their locks end; the living come back before anyone takes them for dead."""
    words = [*words, f"storage.url='{postgres.database('restarted')}'", "n_trials=60"]
    ledger = tmp_path / "ledger"
    workers = [start(words, ledger) for _ in range(3)]
    for _ in range(3 if long else 2):
        count = len(told(ledger))
        until(lambda count=count: len(told(ledger)) > count + 5)
        postgres.stop("immediate")
        time.sleep(1)
        postgres.start()
    ended_well(workers, ledger)
    study, rows = study_of(words), told(ledger)
    assert sum(t.state.is_finished() and not get_attributes(t).interrupted for t in study.trials) >= 60
    assert running(words) == []
    by_number = {trial.number: trial for trial in study.trials}
    assert [row for row in rows if by_number[row["number"]].params != row["params"]] == []
    figure(
        "storage faults",
        f"PostgreSQL stopped at once and started again {3 if long else 2} times under 3 workers: recovered, 0 dead",
    )


def stopped(words: list[str], ledger, number: int, slow) -> Worker:
    worker = start(words, ledger, slow)
    worker.ready.wait(30)
    until(lambda: len(running(words)) == 1)
    time.sleep(0.2)
    os.kill(worker.process.pid, number)
    return worker


def slow(session: Session) -> None:
    real = session.measuring.check_batch

    def at_batch(*arguments) -> None:
        time.sleep(3)
        real(*arguments)

    session.measuring.check_batch = at_batch


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.long), "SIGINT twice"])
def test_a_signal_gives_the_trial_back(stored, tmp_path, name: str) -> None:
    words, ledger = [*stored, "n_trials=3"], tmp_path / "ledger"
    worker = stopped(words, ledger, getattr(signal, name.split(maxsplit=1)[0]), slow)
    began = time.monotonic()
    if "twice" in name:
        time.sleep(0.05)
        os.kill(worker.process.pid, signal.SIGINT)
    assert worker.join(20) == 130
    assert (time.monotonic() - began > 1.5) == (name == "SIGINT"), "once: the batch is finished; else at once"
    study = study_of(words)
    assert running(words) == []
    last = study.trials[-1]
    assert get_attributes(last).interrupted
    assert get_attributes(last).deaths == 0, "a stop is no death"
    ended_well([start(words, ledger)], ledger)
    assert sum(t.state == TrialState.COMPLETE for t in study_of(words).trials) == 3
