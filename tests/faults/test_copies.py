"""A copy of study.db is a study: the file alone holds what was told, also while the study runs and after a stop."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from rag_opt.cli import backup
from rag_opt.cli.study import run_study
from rag_opt.errors import StorageError, StudyError
from rag_opt.study.loop import Session
from tests.faults.conftest import Figure
from tests.faults.workers import ended_well, start, study_of


def file_of(words: list[str]) -> Path:
    folder = next(word.partition("=")[2] for word in words if word.startswith("studies_dir="))
    return Path(folder) / "animals/study.db"


def copied(path: Path, to: Path) -> Path:
    """The file alone, by another program: opening and closing it here would cost this process its locks."""
    subprocess.run(["cp", path, to], check=True)
    return to


def told(path: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{path}")
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))


def test_a_copy_taken_in_the_middle_holds_every_finished_trial(words, tmp_path, monkeypatch, long, figure) -> None:
    total, real, copies = 40 if long else 9, Session._report_end, []

    def ended(session: Session, trial: optuna.Trial, line: object) -> None:
        real(session, trial, line)
        copies.append(copied(file_of(words), tmp_path / f"{trial.number}.db"))

    monkeypatch.setattr(Session, "_report_end", ended)
    run_study([*words, f"n_trials={total}"])
    for number, copy in enumerate(copies):
        assert [trial.number for trial in told(copy)] == list(range(number + 1))
    assert len(told(copied(file_of(words), tmp_path / "end.db"))) == len(copies) >= total
    figure("a copy of study.db is a study", f"`cp` after each of {total} trials: each copy holds all that were told")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_file_is_whole_after_a_stop_beside_others(words, tmp_path, number: int) -> None:
    words, ledger = [*words, "n_trials=40"], tmp_path / "ledger"

    def stops(session: Session) -> None:
        real, ends = session._report_end, []

        def ended(*arguments) -> None:
            real(*arguments)
            ends.append(1)
            if len(ends) == 3:
                os.kill(os.getpid(), number)

        session._report_end = ended

    with Beside(words, tmp_path):
        assert start(words, ledger, stops).join() == 130
        copy = copied(file_of(words), tmp_path / "copy.db")
        assert len(told(copy)) == len(told(file_of(words))) >= 3
        assert not any(trial.state == TrialState.RUNNING for trial in study_of([*words]).trials)
        log = file_of(words).with_name("study.db-wal")
        assert log.exists(), "another process has it open"
        assert log.stat().st_size == 0


class Beside:
    """Another process that has the study's file open and looked into it, and does nothing."""

    def __init__(self, words: list[str], folder: Path) -> None:
        run_study([*words[:-1], "n_trials=1"])
        code = (
            "import sqlite3, sys\nbase = sqlite3.connect(sys.argv[1])\nbase.execute('select * from trials').fetchall()\n"
            "print('open', flush=True)\nsys.stdin.read()"
        )
        self.process = subprocess.Popen(
            ["python", "-c", code, file_of(words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> None:
        assert self.process.stdout.readline() == b"open\n"

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def test_a_backup_of_a_running_study_is_whole_and_goes_on(words, tmp_path, figure: Figure) -> None:
    words, ledger, seen = [*words, "n_trials=8"], tmp_path / "ledger", tmp_path / "backup.db"

    def kept(session: Session) -> None:
        real = session.measuring.check_batch

        def at_batch(trial, *arguments) -> None:
            if trial.number == 5 and not seen.exists():
                backup.back_up_study(file_of(words).parent, seen)
            real(trial, *arguments)

        session.measuring.check_batch = at_batch

    ended_well([start(words, ledger, kept)], ledger)
    assert [trial.number for trial in told(seen)] == [0, 1, 2, 3, 4]
    assert {path.name for path in tmp_path.glob("backup.db*")} == {"backup.db"}
    whole = [(trial.params, trial.values) for trial in told(file_of(words))]
    for ending in ("", "-wal", "-shm"):
        Path(f"{file_of(words)}{ending}").unlink(missing_ok=True)
    seen.rename(file_of(words))
    ended_well([start(words, ledger)], ledger)
    after = [trial for trial in told(file_of(words)) if "interrupted" not in trial.user_attrs]
    assert [(trial.params, trial.values) for trial in after] == whole
    figure("a copy of study.db is a study", "a backup made within a trial goes on, bit-equal")


def test_what_can_not_be_backed_up_is_refused(words, tmp_path, monkeypatch, capsys) -> None:
    folder = run_study([*words, "n_trials=1"]).folder
    with pytest.raises(StudyError, match="there is no study in it"):
        backup.back_up_study(tmp_path, tmp_path / "new.db")
    with pytest.raises(StorageError, match="pg_dump"):
        backup.back_up_study(folder, tmp_path / "new.db", "postgresql://me:canary@localhost/x")
    with pytest.raises(StorageError, match="can't be copied"):
        backup.back_up_study(folder, tmp_path / "no" / "folder.db")
    backup.main([str(folder), str(tmp_path / "new.db")])
    assert "its 1 finished trial;" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        backup.main([str(folder), str(tmp_path / "new.db")])
    assert "it is there already" in capsys.readouterr().err
