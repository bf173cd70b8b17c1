"""Studies of several objectives: what is selected no trial dominates, and every objective is confirmed."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from rag_opt.analysis import history
from rag_opt.analysis.findings import Findings
from rag_opt.analysis.finished import FILES
from rag_opt.cli.study import run_study
from rag_opt.storages import archive, scores

pytestmark = pytest.mark.integration


def loaded(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/studies/animals/study.db")


@pytest.fixture
def words(animals, tmp_path) -> list[str]:
    base = [*animals, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none"]
    return [*base, "objective.metrics=[nDCG@10, latency]", "objective.report=[tokens]", "pruner=none", "n_trials=6"]


def plant(study: optuna.Study, folder: Path, values: list[float], tokens: float) -> int:
    """A trial with these values and its scores, as another process would leave it; its number."""
    like = study.get_trials(states=(TrialState.COMPLETE,))[0]
    book = scores.load_book(study, like.number)
    metrics = {"nDCG@10": values[0], "latency": values[1], "tokens": tokens}
    study.add_trial(
        create_trial(
            values=values,
            params=like.params,
            distributions=like.distributions,
            user_attrs={"metrics": metrics, "origin": "random"},
        )
    )
    number = len(study.trials) - 1
    columns = {name: [value] * len(book.ids) for name, value in metrics.items()}
    archive.store_files(study, number, {scores.FILE: scores._serialize_table(book.ids, columns)})
    return number


def test_what_is_selected_is_dominated_by_no_other_trial(words, tmp_path) -> None:
    """Two are tied in the first objective: the cheaper one in tokens is worse in both, and is not selected."""
    run_study(words)
    study, folder = loaded(tmp_path), tmp_path / "studies/animals"
    # Worse than what is there in latency, so that the front is these three and what was measured.
    better = plant(study, folder, [1.71, 1e-9], 900.0)
    worse = plant(study, folder, [1.62, 2e-9], 10.0)
    twin = plant(study, folder, [1.71, 1e-9], 800.0)
    findings = run_study(words).findings
    found = findings.confirmation
    front = {trial.number for trial in history.find_front(study)}
    assert front == {better, twin}
    assert found.selected == twin
    assert found.best == better
    assert worse not in {arm.trial for arm in found.arms}
    told = FILES[0]
    text = (folder / told).read_text("utf-8")
    top = [line for line in text.partition("## Top trials")[2].splitlines() if line.startswith(f"| {better} ")]
    assert "best nDCG@10, best latency, front" in top[0]
    for each in findings.confirmations:
        assert {arm.trial for arm in each.arms} == {better, twin, 0}


def test_ends_and_knee_of_the_front_are_confirmed_on_every_objective(words, tmp_path) -> None:
    run_study(words)
    study, folder = loaded(tmp_path), tmp_path / "studies/animals"
    good = plant(study, folder, [3.0, 3e-9], 900.0)
    knee = plant(study, folder, [2.9, 1e-9], 900.0)
    fast = plant(study, folder, [0.1, 5e-10], 900.0)
    findings = run_study(words).findings
    assert [each.metric for each in findings.confirmations] == ["nDCG@10", "latency"]
    for each in findings.confirmations:
        assert each.get_arm(good).marks == ("best nDCG@10",)
        assert each.get_arm(knee).marks == ("knee",)
        assert each.get_arm(fast).marks == ("best latency",)
    text = (folder / "report.md").read_text("utf-8")
    assert "## nDCG@10 on the 3 questions never searched" in text
    assert "## latency on the 3 questions never searched" in text
    assert f"its knee is trial {knee}" in text
    # The verdict names every objective, and whom it is about where the baseline stays.
    assert re.search(r"nDCG@10( of trial \d+)?: .*latency( of trial \d+)?: ", text.splitlines()[2])
    assert Findings.read(folder).confirmations[1].get_arm(knee).marks == ("knee",)
    page = (folder / "report.html").read_text("utf-8")
    assert "Finalists: latency" in page


def test_a_front_of_one_trial_is_said_as_such(words, tmp_path) -> None:
    run_study(words)
    best = plant(loaded(tmp_path), tmp_path, [3.0, 1e-9], 900.0)
    run_study(words)
    text = (tmp_path / "studies/animals/report.md").read_text("utf-8")
    assert f"Trial {best} is the best in all objectives: the Pareto front is that trial alone. nDCG@10" in text
