"""Signals to a study."""

import os
import signal
import sys

import pytest

from rag_opt.cli.shell import run_hydra
from rag_opt.console.exit_status import HungUp, ReaderGone, Terminated, handle_broken_pipe
from rag_opt.system.signals import Stopping


class Loud:
    """Its destructor is where the signal arrives: what is raised there, Python ignores."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_arrives_where_exceptions_are_ignored_is_not_lost() -> None:
    with Stopping() as stopping:
        loud = Loud()
        del loud
        with pytest.raises(Terminated):
            stopping.check()


def test_a_hangup_stops_as_sigterm_does_and_is_ignored_under_nohup() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Stopping(), pytest.raises(HungUp):
            os.kill(os.getpid(), signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Stopping() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            stopping.check()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("stop", "status"),
    [(KeyboardInterrupt(), 130), (Terminated(), 143), (HungUp(), 129), (ReaderGone(), 141), (BrokenPipeError(), 141)],
)
def test_the_exit_status_is_the_signals(monkeypatch, capsys, stop: BaseException, status: int) -> None:
    def task() -> None:
        raise stop

    monkeypatch.setattr(sys, "argv", ["study"])
    with pytest.raises(SystemExit) as caught:
        run_hydra(task)
    assert caught.value.code == status
    assert ("nothing is lost" in capsys.readouterr().err) == (status != 141)


def test_what_no_one_reads_ends_a_command(monkeypatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as caught, handle_broken_pipe():
            print("lost")
        assert caught.value.code == 141
        print("nowhere, without an error", flush=True)
