"""What trials leave: in the folder for people, in the database for all else."""

import json
import shutil

import numpy as np
import pytest
from optuna.study import StudyDirection

from rag_opt.records.scores import Evaluation
from rag_opt.storages import archive
from rag_opt.storages.opening import close_study, open_study
from rag_opt.storages.trial_files import TrialFiles

FOUND = Evaluation(
    ("a", "b"), {"nDCG@10": np.array([1.0, 0.5])}, {"nDCG@10": 0.75}, {}, retrieved=(("cat",), ("dog", "cat"))
)


@pytest.fixture
def study(tmp_path):
    found = open_study(f"sqlite:///{tmp_path}/study.db", "animals", [StudyDirection.MAXIMIZE])
    archive.create_table(found)
    yield found
    close_study(found)


def measured(files: TrialFiles) -> None:
    trial = files.study.ask()
    files.write_config(trial.number, {"retriever": {"top_k": 3}})
    files.write_scores(trial.number, FOUND)
    assert files.load_book(trial.number) is None
    files.store_trial(trial.number)
    files.study.tell(trial, 0.75)


@pytest.mark.parametrize("shared", [True, False])
def test_what_was_retrieved_goes_to_the_database_only_where_others_lack_the_folder(study, tmp_path, shared) -> None:
    files = TrialFiles(study, tmp_path / "animals", shared)
    measured(files)
    in_folder = json.loads((tmp_path / "animals/trials/0000/per_query.json").read_text())
    in_database = json.loads(archive.load_files(study, [0])[0]["per_query.json"])
    assert in_folder["columns"] == ["query_id", "nDCG@10", "retrieved"]
    assert in_folder["data"] == [["a", 1.0, ["cat"]], ["b", 0.5, ["dog", "cat"]]]
    assert ("retrieved" in in_database["columns"]) == (not shared)
    assert in_database["columns"][:2] == ["query_id", "nDCG@10"]


def test_a_folder_that_is_gone_is_made_again_from_the_database(study, tmp_path) -> None:
    files = TrialFiles(study, tmp_path / "animals", shared=False)
    measured(files)
    place = tmp_path / "animals/trials/0000"
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    shutil.rmtree(tmp_path / "animals")
    files.restore()
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert before["config.yaml"] == b"retriever:\n  top_k: 3\n"
    assert files.get_stored_numbers() == {0}
    (trial,) = study.trials
    assert files.load_scores(trial, ["nDCG@10"])["nDCG@10"].tolist() == [1.0, 0.5]
    assert files.load_scores(trial, ["another"]) == {}


def test_of_a_trial_stopped_early_what_was_asked_is_left(study, tmp_path) -> None:
    files = TrialFiles(study, tmp_path / "animals")
    files.write_config(0, {})
    files.write_partial(0, ["a"], {"nDCG@10": np.array([1.0])}, [["cat"]], ["purrs"])
    files.store_trial(0)
    kept, left = files.load_book(0), files.read_book_file(0)
    assert kept is not None
    assert left is not None
    assert kept.ids == left.ids == ("a",)
    assert kept.scores["nDCG@10"].tolist() == [1.0]
