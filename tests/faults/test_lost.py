"""A study's file that is removed, moved or replaced while the study runs: it stops, and what it held is in a new file."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rag_opt.cli.study import run_study
from rag_opt.errors import LostError
from rag_opt.storages.drift import check_fingerprints
from rag_opt.study.loop import Session
from tests.faults.conftest import Figure
from tests.faults.test_copies import file_of, told


def _replaced(path: Path) -> None:
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as base, base:
        base.execute("create table mine (x)")
    other.replace(path)


HARM = {
    "the folder removed": lambda path: shutil.rmtree(path.parent),
    "all studies removed": lambda path: shutil.rmtree(path.parents[1]),
    "the file removed": lambda path: path.unlink(),
    "the folder moved": lambda path: path.parent.rename(path.parents[2] / "aside"),
    "the file replaced": _replaced,
}


def lost(words: list[str], harm, monkeypatch, after: int = 3) -> str:
    """Run the study, its file harmed after so many trials; what is said."""
    real, ends = Session._report_end, []

    def ended(session: Session, *arguments) -> None:
        real(session, *arguments)
        ends.append(1)
        if len(ends) == after:
            harm(file_of(words))

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_report_end", ended)
        with pytest.raises(LostError) as caught:
            run_study(words)
    assert len(ends) == after, "noticed before another trial has ended"
    return str(caught.value)


@pytest.mark.parametrize("harm", HARM)
def test_what_a_lost_file_held_is_written_and_goes_on(words, tmp_path, monkeypatch, harm: str, figure: Figure) -> None:
    words = [word for word in words if word != "tracking=none"] + ["n_trials=6"]
    said = lost(words, HARM[harm], monkeypatch)
    new = Path(re.search(r"all that it held is in (\S+)", said)[1])
    path = file_of(words)
    assert len(told(new)) == 3
    assert new.name.startswith("study.db.rescued-") if path.parent.is_dir() else "animals" in new.name
    assert str(tmp_path) in str(new)
    assert ("it is whole, and lies at" in said) == (harm == "the folder moved"), said
    assert f"mv {new} {path}" in said
    if "replaced" in harm:
        with closing(sqlite3.connect(path)) as base:
            assert base.execute("select name from sqlite_master").fetchall() == [("mine",)]
    else:
        assert not path.exists()
    before = [(trial.params, trial.values) for trial in told(new)]
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(new, path)
    run_study(words)
    assert [(trial.params, trial.values) for trial in told(path)][:3] == before
    assert len(told(path)) == 6
    figure("a lost study file", f"{harm} under a running study: noticed before the next trial, 0 of 3 trials lost")


def test_a_new_study_of_the_same_name_keeps_its_log(words, tmp_path, monkeypatch) -> None:
    """Closing the lost file must not take the log of the one that has its name now."""
    path = file_of(words)
    bases: list[sqlite3.Connection] = []

    def anew(path: Path) -> None:
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        bases.append(sqlite3.connect(path, isolation_level=None))
        bases[0].execute("pragma journal_mode=wal")
        bases[0].execute("create table mine (x)")

    lost([*words, "n_trials=6"], anew, monkeypatch)
    assert path.with_name("study.db-wal").exists()
    bases[0].execute("insert into mine values (1)")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("select * from mine").fetchall() == [(1,)]
    bases[0].close()


def test_where_nothing_can_be_written_that_is_said(words, monkeypatch) -> None:
    monkeypatch.setattr("rag_opt.storages.file_guard.FileGuard._write_copy", lambda _: "/x: disk full")
    said = lost([*words, "n_trials=6"], HARM["the file removed"], monkeypatch)
    assert "can't be written anywhere: /x: disk full" in said


def test_who_starts_anew_is_told_to_end_what_runs_first(words) -> None:
    from tests.faults.workers import study_of

    run_study([*words, "n_trials=1"])
    with pytest.raises(Exception, match="end every command that still runs it, then remove"):
        check_fingerprints(study_of([*words, "n_trials=1"]), {"dataset": "another"}, Path("studies/animals"))
