"""Scores question by question that are lost: whatever happens to files, the result is the same, or it is refused."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from rag_opt.analysis import history
from rag_opt.analysis.findings import Findings
from rag_opt.cli.study import run_study
from rag_opt.errors import StudyError
from rag_opt.storages import archive, scores
from rag_opt.storages.opening import get_engine
from tests.faults.conftest import Figure
from tests.faults.workers import study_of


def shown(findings: Findings) -> tuple[object, ...]:
    """What a study found, without what was timed."""
    return findings.confirmation, findings.best, findings.config, findings.differences, findings.losses


def rows(path: Path, change: Callable[[list[list[object]]], object]) -> None:
    table = json.loads(path.read_text("utf-8"))
    change(table["data"])
    path.write_text(json.dumps(table), "utf-8")


HARM: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "a question less": lambda path: rows(path, lambda data: data.pop()),
    "other questions": lambda path: rows(path, lambda data: [row.__setitem__(0, f"x{row[0]}") for row in data]),
    "another order": lambda path: rows(path, lambda data: data.reverse()),
    "other scores": lambda path: rows(path, lambda data: [row.__setitem__(1, 0.0) for row in data]),
    "all trials removed": lambda path: shutil.rmtree(path.parents[1]),
}


def drop(study) -> None:
    """As a study was before its database kept scores."""
    archive.FILES.drop(get_engine(study))
    scores._books.clear()


def harms(long: bool) -> dict[str, Callable[[Path], object]]:
    return HARM if long else {name: HARM[name] for name in ("truncated", "other questions", "all trials removed")}


def test_what_is_lost_in_the_folder_is_taken_from_the_database(stored, tmp_path, long: bool, figure: Figure) -> None:
    six = [*stored, "n_trials=6"]
    before = run_study(six).findings
    place = tmp_path / "studies/animals/trials"
    path = place / f"{before.confirmation.best:04d}" / scores.FILE
    kept = {each: scores._parse_book(each.read_bytes()) for each in place.glob(f"*/{scores.FILE}")}
    for name, harm in harms(long).items():
        harm(path)
        assert shown(run_study(six).findings) == shown(before)
        assert all(scores._is_same(scores._parse_book(each.read_bytes()), book) for each, book in kept.items())
        assert (path.parent / "config.yaml").is_file()
        top = (tmp_path / "studies/animals/report.md").read_text("utf-8").partition("## Top trials")[2]
        assert sum("best" in line for line in top.splitlines() if line.startswith("| ")) == 1
        figure("lost scores", f"{name}: the same findings, from the database")


def test_an_older_study_has_them_from_its_folder_or_measured_again(words, tmp_path, long: bool, capsys) -> None:
    six = [*words, "n_trials=6"]
    before = run_study(six).findings
    path = tmp_path / f"studies/animals/trials/{before.confirmation.best:04d}/{scores.FILE}"
    drop(study_of(six))
    assert shown(run_study(six).findings) == shown(before)
    assert "measured again" not in capsys.readouterr().err
    for harm in harms(long).values():
        drop(study_of(six))
        harm(path)
        assert shown(run_study(six).findings) == shown(before)
        assert "they are measured again" in capsys.readouterr().err
        study = study_of(six)
        assert archive.get_trial_numbers(study) >= {trial.number for trial in history.rank_candidates(study)}


def test_what_is_damaged_in_the_database_is_taken_from_the_folder(words) -> None:
    six = [*words, "n_trials=6"]
    before = run_study(six).findings
    for content in (b"junk", zlib.compress(b'{"columns": 7, "data": 3}')):
        study = study_of(six)
        with get_engine(study).begin() as connection:
            connection.execute(sqlalchemy.update(archive.FILES).values(content=content))
        assert shown(run_study(six).findings) == shown(before)
        study = study_of(six)
        assert all(scores.load_book(study, trial.number) for trial in history.rank_candidates(study))


def test_scores_that_can_not_be_had_again_are_no_reason_to_choose_among_the_others(words, tmp_path) -> None:
    """The store and the scores are gone, and the trial's value is not what its configuration gives."""
    six = [*words, "n_trials=6"]
    number = run_study(six).findings.confirmation.best
    study = study_of(six)
    drop(study)
    with get_engine(study).begin() as connection:
        connection.execute(
            sqlalchemy.text("update trial_values set value = 0.99 where trial_id = :id"), {"id": number + 1}
        )
    shutil.rmtree(tmp_path / "studies/animals/trials")
    with pytest.raises(
        StudyError, match=rf"trial {number}: its scores .* are lost.*measured again it has .* not nDCG@10 0.99"
    ):
        run_study(six)


def test_a_longer_study_without_its_files_is_the_uninterrupted_one(words, tmp_path) -> None:
    """What stops a trial early is read from the rivals' scores."""
    race = [*words, "pruner=race", "evaluation.batches=7"]
    whole = run_study([*race, "n_trials=12"]).findings
    for path in ("studies", "store"):
        shutil.rmtree(tmp_path / path)
    run_study([*race, "n_trials=6"])
    shutil.rmtree(tmp_path / "studies/animals/trials")
    assert shown(run_study([*race, "n_trials=12"]).findings) == shown(whole)
