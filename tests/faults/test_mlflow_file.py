"""MLflow's SQLite file that vanishes while a study runs, or is moved with the studies: said, and made right."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from rag_opt.cli.study import run_study
from rag_opt.study.loop import Session
from rag_opt.tracking.mlflow_file import reopen
from tests.faults.conftest import Figure


@pytest.fixture
def tracked(animals, tmp_path) -> list[str]:
    return [*animals, f"store.path={tmp_path}/store", "sampler=random"]


def runs_of(studies: Path) -> tuple[list, list]:
    """Parents and children, read from the file as it is."""
    uri = f"sqlite:///{studies}/mlflow.db"
    reopen(uri)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("rag_opt").experiment_id], max_results=1000)
    child = [each for each in runs if "mlflow.parentRunId" in each.data.tags]
    return [each for each in runs if each not in child], child


def place_of(found) -> Path:
    return Path(urlsplit(found.info.artifact_uri).path)


@pytest.mark.parametrize("left", ["nothing", "another"])
def test_a_vanished_file_is_said_once_and_made_anew_at_the_end(
    tracked, tmp_path, monkeypatch, capfd, left: str, figure: Figure
) -> None:
    studies, real, ends = tmp_path / "studies", Session._report_end, []

    def ended(session: Session, *arguments) -> None:
        real(session, *arguments)
        ends.append(1)
        if len(ends) == 2:
            (studies / "mlflow.db").unlink()
            if left == "another":
                (studies / "mlflow.db").touch()

    monkeypatch.setattr(Session, "_report_end", ended)
    run_study([*tracked, f"studies_dir={studies}", "n_trials=6"])
    told = capfd.readouterr().err
    assert told.count("MLflow can't be written") == 1
    assert "mlflow.db was removed or replaced); the study goes on, and makes it anew at its end" in told
    assert "Traceback" not in told
    assert "sqlalchemy" not in told
    parents, children = runs_of(studies)
    assert [each.info.status for each in parents] == ["FINISHED"]
    assert sorted(each.data.tags["rag_opt.trial"] for each in children) == list("012345")
    assert all((place_of(each) / "config.yaml").is_file() for each in children)
    figure("MLflow mirrors Optuna", "mlflow.db removed in the middle: one line, made anew at the end with all 6 trials")


def test_after_a_move_files_go_to_the_new_place_and_the_old_ones_are_found(tracked, tmp_path, capsys) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    run_study([*tracked, f"studies_dir={old}/studies", "n_trials=2"])
    old.rename(new)
    reopen(f"sqlite:///{old}/studies/mlflow.db")
    capsys.readouterr()
    run_study([*tracked, f"studies_dir={new}/studies", "n_trials=4"])
    told = capsys.readouterr().err
    assert f"MLflow: its files have moved from {old}/studies/mlartifacts to {new}/studies/mlartifacts" in told
    assert not old.exists()
    parents, children = runs_of(new / "studies")
    assert len(children) == 4
    for each in [*parents, *children]:
        assert place_of(each).is_relative_to(new)
        assert any(place_of(each).iterdir())
    run_study([*tracked, f"studies_dir={new}/studies", "n_trials=4"])
    assert "MLflow: " not in capsys.readouterr().err


def test_a_copy_writes_to_its_own_place(tracked, tmp_path) -> None:
    run_study([*tracked, f"studies_dir={tmp_path}/one", "n_trials=2"])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    before = sorted((tmp_path / "one").rglob("*"))
    run_study([*tracked, f"studies_dir={tmp_path}/two", "n_trials=3"])
    assert sorted((tmp_path / "one").rglob("*")) == before
    parents, children = runs_of(tmp_path / "two")
    assert all(place_of(each).is_relative_to(tmp_path / "two") for each in [*parents, *children])


def test_another_place_for_an_experiment_that_has_one_is_said(tracked, tmp_path, capsys) -> None:
    words = [*tracked, f"studies_dir={tmp_path}/studies", "n_trials=1"]
    run_study(words)
    run_study([*words, f"tracking.artifacts={tmp_path}/elsewhere"])
    assert f"not to tracking.artifacts={tmp_path}/elsewhere; another experiment may" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
