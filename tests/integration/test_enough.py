"""A search that ends when another trial can gain less than its questions tell apart."""

from __future__ import annotations

import json

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from rag_opt.errors import ConfigError
from rag_opt.samplers import StageSeconds
from rag_opt.storages.attributes import StudyAttributes, get_study_attributes
from rag_opt.study import terminator
from rag_opt.study.terminator import ExpectedGain, estimate_noise, format_stop_reason
from tests.conftest import animals_study

pytestmark = pytest.mark.integration


def test_questions_that_belong_together_are_one_to_the_noise(animals, tmp_path, monkeypatch) -> None:
    given = list[np.ndarray]()

    def estimate(best: np.ndarray, rivals: list[np.ndarray], groups: np.ndarray) -> float:
        given.append(groups)
        return estimate_noise(best, rivals, groups)

    monkeypatch.setattr(terminator, "estimate_noise", estimate)
    animals_study(animals, tmp_path, "n_trials=9", "stopping=regret", "stopping.after=8", "dataset.groups=document")
    assert len(given) > 1
    assert all(len(np.unique(groups)) < len(groups) for groups in given)


def test_a_search_ends_early_says_why_and_goes_on_when_told_to(animals, tmp_path, capfd) -> None:
    words = ["n_trials=40", "stopping=regret", "stopping.after=8", "stopping.share=1"]
    folder = animals_study(animals, tmp_path, *words)
    told = capfd.readouterr().err
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    found = json.loads(get_study_attributes(study).settled)
    measured = [t for t in study.trials if "repeats" not in t.user_attrs]
    assert 8 <= len(measured) == found["trials"] < 40
    assert found["gain"] < found["noise"]
    assert f"stopped after {len(measured)} trials" in told
    assert "stopping=none goes on from here" in told
    report = (folder / "report.md").read_text()
    assert f"Stopped after {len(measured)} trials" in report
    further = next(line for line in report.splitlines() if line.startswith("python -m rag_opt.study"))
    assert further.endswith("n_trials=40 stopping=none")
    assert "stopping=regret" not in further
    assert animals_study(animals, tmp_path, *words) == folder  # ends at once again
    assert len(optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db").trials) == len(
        study.trials
    )
    animals_study(animals, tmp_path, f"n_trials={len(measured) + 3}")
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    assert len([t for t in study.trials if "repeats" not in t.user_attrs]) == len(measured) + 3
    assert "Stopped after" not in (folder / "report.md").read_text()


def test_another_rule_goes_on_and_takes_the_reason_back(animals, tmp_path) -> None:
    words = ["n_trials=12", "stopping=regret", "stopping.after=8"]
    folder = animals_study(animals, tmp_path, *words, "stopping.share=1")
    assert "Stopped after" in (folder / "report.md").read_text()
    animals_study(animals, tmp_path, *words, "stopping.share=1e-12")
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    assert len([t for t in study.trials if "repeats" not in t.user_attrs]) == 12
    assert "Stopped after" not in (folder / "report.md").read_text()


def test_a_sampler_that_can_draw_nothing_is_refused_before_the_first_trial(animals, tmp_path) -> None:
    for words, said in (
        (["sampler=tpe", "sampler.n_startup_trials=abc"], "TPESampler draws no trial"),
        (["sampler=greedy", "objective=quality_cost"], "GreedySampler draws no trial"),
        (["sampler=rag_seconds", "sampler.cost.once=3"], "lists of groups by stage"),
        (["stopping.share=0.05"], "choose stopping=regret"),
        (["stopping=regret", "stopping.share=.inf"], "stopping.share"),
    ):
        with pytest.raises(ConfigError, match=said):
            animals_study(animals, tmp_path, "n_trials=4", *words)
    assert not (tmp_path / "studies").exists()


def test_several_objectives_have_no_regret(animals, tmp_path) -> None:
    with pytest.raises(ConfigError, match="the regret of several objectives"):
        animals_study(animals, tmp_path, "objective.metrics=[nDCG@10,R@5]", "stopping=regret")


def test_the_noise_is_the_standard_error_of_the_difference() -> None:
    best, rival = np.array([0.9, 0.5, 0.7, 0.8]), np.array([0.8, 0.6, 0.4, 0.8])
    apart = best - rival
    assert estimate_noise(best, [rival]) == pytest.approx(apart.std(ddof=1) / 2)
    assert estimate_noise(best, [rival, best]) == estimate_noise(best, [rival])
    assert np.isnan(estimate_noise(best, []))
    # Two of a group are one observation.
    together = apart.reshape(2, -1).sum(axis=1) / 2
    assert estimate_noise(best, [rival], np.array([0, 0, 1, 1])) == pytest.approx(together.std(ddof=1) / np.sqrt(2))
    assert not ExpectedGain(9, 0.01, float("nan")).is_gain_below(1)
    assert not ExpectedGain(9, float("nan"), 0.1).is_gain_below(1)
    assert ExpectedGain(9, 0.01, 0.1).is_gain_below(0.2)


def test_a_line_of_a_database_that_someone_else_wrote_is_no_error() -> None:
    study = optuna.create_study()
    for kept in ("{}", "[1]", '{"trials": "x"}', '{"trials": "x", "gain": [], "noise": null}'):
        assert format_stop_reason(study) == ""
        StudyAttributes.settled.save(study, kept)
    assert format_stop_reason(study) == ""


@pytest.mark.long
def test_workers_stop_together(animals, tmp_path) -> None:
    words = ["n_trials=60", "n_workers=2", "stopping=regret", "stopping.after=8", "stopping.share=1"]
    folder = animals_study(animals, tmp_path, *words)
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    found = json.loads(get_study_attributes(study).settled)
    measured = [t for t in study.trials if "repeats" not in t.user_attrs and t.state.name != "FAIL"]
    assert 8 <= found["trials"] <= len(measured) <= found["trials"] + 2
    assert "Stopped after" in (folder / "report.md").read_text()


def test_where_seconds_count_a_study_knows_what_others_have_stored(animals, tmp_path) -> None:
    """What was there as it began, and nothing that came later: it goes on as it would have."""
    first = animals_study(animals, tmp_path, "n_trials=9", "name=first", "sampler=random")
    done = optuna.load_study(study_name="first", storage=f"sqlite:///{first}/study.db")
    later = animals_study(animals, tmp_path, "n_trials=7", "name=later", "sampler=rag_seconds")
    study = optuna.load_study(study_name="later", storage=f"sqlite:///{later}/study.db")
    known = [params for params, _ in get_study_attributes(study).stored]
    measured = [t for t in done.trials if t.state == TrialState.COMPLETE and "repeats" not in t.user_attrs]
    assert sorted(map(str, known)) == sorted(str(t.params) for t in measured)
    once = {"indexing": ["splitter", "embedder", "index"]}
    for params, seconds in get_study_attributes(study).stored:
        assert seconds["indexing"] >= 0
        assert StageSeconds(once)(study)([params]) == [0]
    animals_study(animals, tmp_path, "n_trials=9", "name=later", "sampler=rag_seconds")
    again = optuna.load_study(study_name="later", storage=f"sqlite:///{later}/study.db")
    assert get_study_attributes(again).stored == get_study_attributes(study).stored
    other = animals_study(animals, tmp_path, "n_trials=5", "name=other", "sampler=rag_seconds", "dataset.split_seed=9")
    assert (
        get_study_attributes(optuna.load_study(study_name="other", storage=f"sqlite:///{other}/study.db")).stored == []
    )


def test_a_study_learns_from_an_earlier_one_and_one_that_can_not_be_read_is_refused(animals, tmp_path) -> None:
    folder = animals_study(animals, tmp_path, "n_trials=10")
    word = "sampler.earlier=[{{storage: 'sqlite:///{}', study_name: {}}}]"
    later = animals_study(animals, tmp_path, "n_trials=8", "name=later", word.format(f"{folder}/study.db", "animals"))
    study = optuna.load_study(study_name="later", storage=f"sqlite:///{later}/study.db")
    assert [trial.user_attrs["origin"] for trial in study.trials[4:]] == ["model"] * (len(study.trials) - 4)
    for given, said in (
        (word.format(f"{tmp_path}/gone.db", "animals"), "there is no database"),
        (word.format(f"{folder}/study.db", "nobody"), "a study can't be read"),
        ("sampler.earlier=[{storage: 'sqlite:///a.db'}]", "a storage and a study_name are expected"),
        ("sampler.earlier=3", "a list of studies is expected"),
        ("sampler.earlier=[a]", "a storage and a study_name are expected"),
        ("sampler.n_startup_trials=abc", "n_startup_trials=abc: a whole number"),
        ("sampler.seed=-1", "seed=-1: a whole number"),
        ("+sampler.cost=abc", "what gives the seconds"),
    ):
        with pytest.raises(ConfigError, match=said):
            animals_study(animals, tmp_path, "n_trials=8", "name=refused", given)
    assert not (tmp_path / "gone.db").exists()
