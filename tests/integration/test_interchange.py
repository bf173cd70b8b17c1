"""Results for other tools: they read them, and find the values that the report gives."""

from __future__ import annotations

import ir_measures
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState, create_trial

from rag_opt.analysis import interchange
from rag_opt.cli.study import run_study
from rag_opt.records.scores import Evaluation


@pytest.mark.integration
def test_ir_measures_reads_the_finalists_and_gives_the_reported_values(animals, tmp_path) -> None:
    words = [*animals, f"studies_dir={tmp_path}", f"store.path={tmp_path}/store", "tracking=none", "n_trials=5"]
    found = run_study([*words, "dataset.test_share=0.5"]).findings
    place = tmp_path / "animals" / interchange.FOLDER
    qrels = list(ir_measures.read_trec_qrels(str(place / "qrels.txt")))
    for arm in found.confirmation.arms:
        name = "baseline" if arm.role == "baseline" else f"trial-{arm.trial}"
        ranked = list(ir_measures.read_trec_run(str(place / f"{name}.run")))
        means = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, ranked)
        assert means[ir_measures.nDCG @ 10] == pytest.approx(arm.test, abs=1e-9)
    trials = pd.read_parquet(tmp_path / "animals/trials.parquet")
    assert trials["number"].tolist() == list(range(found.trials))
    assert trials.loc[found.confirmation.best, "objective.nDCG@10"] == found.best
    assert trials.loc[trials["state"] == "complete", "questions"].eq(found.dev).all()
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{tmp_path}/animals/study.db")
    # What optuna-dashboard calls the objective.
    assert study.metric_names == ["nDCG@10"]
    assert (
        pd.read_csv(tmp_path / "animals/trials.csv")["param.retriever"].tolist() == trials["param.retriever"].tolist()
    )


def test_the_mean_of_a_pruned_trial_says_of_how_many_questions_it_is() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(value=0.5))
    study.add_trial(
        create_trial(state=TrialState.PRUNED, value=0.9, intermediate_values={0: 0.9}, user_attrs={"questions": 12})
    )
    study.add_trial(create_trial(state=TrialState.FAIL))
    table = interchange.build_trials_table(study, ["nDCG@10"], 40)
    assert table["questions"].to_pylist() == [40, 12, None]
    assert table["objective.nDCG@10"].to_pylist() == [0.5, 0.9, None]


def test_ids_with_spaces_stay_one_column(tmp_path) -> None:
    found = Evaluation(
        ("a question", "100%"), {"nDCG@10": np.array([1.0, 1.0])}, {}, {}, retrieved=(("the cat", "dog"), ("dog",))
    )
    qrels = {"a question": {"the cat": 2}, "100%": {"dog": 1}, "other": {"dog": 1}}
    interchange.write_trec(tmp_path, qrels, {"trial 3": found})
    lines = (tmp_path / "trial-3.run").read_text("utf-8").splitlines()
    assert lines[0] == "a%20question Q0 the%20cat 1 1.000000000 trial-3"
    assert lines[2] == "100%25 Q0 dog 1 1.000000000 trial-3"
    assert (tmp_path / "qrels.txt").read_text("utf-8").splitlines() == ["a%20question 0 the%20cat 2", "100%25 0 dog 1"]
    ranked = ir_measures.read_trec_run(str(tmp_path / "trial-3.run"))
    means = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10], ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt")), ranked
    )
    assert means[ir_measures.nDCG @ 10] == pytest.approx(1.0)


def test_a_column_of_several_types_is_text() -> None:
    assert interchange._build_column([1, "a", None]).to_pylist() == ["1", "a", None]
    assert interchange._build_column([1, 2.5, None]).to_pylist() == [1.0, 2.5, None]
    assert interchange._build_column([True, None]).to_pylist() == [True, None]


def test_runs_of_earlier_finalists_are_removed(tmp_path) -> None:
    found = Evaluation(("q",), {"nDCG@10": np.array([1.0])}, {}, {}, retrieved=(("d",),))
    for name in ("trial 3", "trial 4"):
        interchange.write_trec(tmp_path, {"q": {"d": 1}}, {name: found})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qrels.txt", "trial-4.run"]


def test_text_that_no_file_can_hold_is_written_as_python_escapes_it() -> None:
    assert interchange._build_column(["half \ud800", None, "é"]).to_pylist() == ["half \\ud800", None, "é"]
