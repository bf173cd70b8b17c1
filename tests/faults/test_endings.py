"""A closed pipe and a terminal that is gone end a study as SIGTERM does: its trial is given back, no traceback."""

from __future__ import annotations

import fcntl
import os
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from rag_opt.cli.study import run_study
from rag_opt.console.exit_status import HungUp
from rag_opt.storages.attributes import Attribute, TrialAttributes, get_attributes
from tests.faults.conftest import Figure
from tests.faults.test_copies import file_of
from tests.integration.commands import command


@contextmanager
def by_pipe(words: list[str]) -> Iterator[tuple[subprocess.Popen, int]]:
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    yield process, os.dup(process.stdout.fileno())
    process.stdout.close()


@contextmanager
def on_a_terminal(words: list[str], signalled: bool = True) -> Iterator[tuple[subprocess.Popen, int]]:
    """With SIGHUP when it goes, or, as another session's terminal, without."""
    ours, theirs = os.openpty()

    def terminal() -> None:
        if signalled:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    # Not "dumb": a live line is drawn.
    process = subprocess.Popen(
        command(*words),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        start_new_session=True,
        preexec_fn=terminal,
    )
    os.close(theirs)
    yield process, ours


ENDS = {
    "pipe": (by_pipe, 141),
    "terminal": (on_a_terminal, 129),
    "other's terminal": (partial(on_a_terminal, signalled=False), 129),
}


@pytest.mark.parametrize(("opened", "status"), [*ENDS.values()], ids=[*ENDS])
def test_a_reader_that_goes_away_ends_a_study(words, opened, status: int, figure: Figure) -> None:
    with opened([*words, "n_trials=3000"]) as (process, end):
        told = b""
        # On a terminal a bar stands in front of the trial that it is at.
        while b"trial 3" not in told:
            told += os.read(end, 4096)
        os.close(end)
        if status == 141:
            process.stdout.close()
        assert process.wait(60) == status
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{file_of(words)}")
    assert study.get_trials(states=(TrialState.RUNNING,)) == []
    last = study.trials[-1]
    assert last.state == TrialState.COMPLETE or get_attributes(last).interrupted
    assert not [t for t in study.get_trials(states=(TrialState.FAIL,)) if not get_attributes(t).interrupted]
    assert len(study.trials) < 3000
    figure("a command that is ended gives its trial back", f"exit status {status}, 0 RUNNING, 0 failed trials")


def test_a_trial_that_was_made_and_not_yet_named_is_given_back(words, monkeypatch) -> None:
    save = Attribute.save

    def hang_up(attribute: Attribute[Any], place: Any, value: Any) -> None:
        if attribute is TrialAttributes.process and place.number == 2:
            monkeypatch.setattr(Attribute, "save", save)
            raise HungUp
        save(attribute, place, value)

    monkeypatch.setattr(Attribute, "save", hang_up)
    with pytest.raises(HungUp):
        run_study([*words, "n_trials=4"])
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{file_of(words)}")
    assert [trial.state for trial in study.trials[2:]] == [TrialState.FAIL]
    assert get_attributes(study.trials[2]).interrupted
    run_study([*words, "n_trials=4"])
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 4
