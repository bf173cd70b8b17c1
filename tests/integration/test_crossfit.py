"""A study that keeps no question from its search: each is judged by a choice that was made without it."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import optuna
import pytest

from rag_opt.analysis.crossfit import crossfit
from rag_opt.analysis.selection import Selection
from rag_opt.cli.study import run_study
from rag_opt.errors import ConfigError, DatasetError, DriftError, OutageError
from rag_opt.evaluation.evaluator import FEW, Evaluator
from rag_opt.storages.attributes import get_study_attributes
from rag_opt.study import finalists
from rag_opt.study.plan import build_plan
from tests.conftest import QUESTIONS, write_jsonl

pytestmark = pytest.mark.integration


@pytest.fixture
def words(animals, tmp_path) -> list[str]:
    base = [*animals, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none"]
    return [*base, "pruner=none", "n_trials=8", "confirmation.method=crossfit"]


def test_all_questions_are_searched_and_all_confirm(words, tmp_path) -> None:
    found = run_study(words).findings
    confirmation = found.confirmation
    assert found.dev == found.test == confirmation.asked
    assert {arm.trial for arm in confirmation.arms} == {confirmation.selected, confirmation.baseline.trial}
    # The baseline needs no choice: what it scores on all questions is what it scored in the search.
    assert confirmation.baseline.test == pytest.approx(confirmation.baseline.dev)
    report = (tmp_path / "studies/animals/report.md").read_text("utf-8")
    told = f"{found.test} questions, each judged by a choice made without it"
    assert told in report
    page = (tmp_path / "studies/animals/report.html").read_text("utf-8")
    assert "all of them confirm" in page
    for text in (report, page):
        assert "never searched" not in text
        assert "% bootstrap intervals" not in text
        assert "resampled questions" in text
    if confirmation.selected_arm is not confirmation.baseline:
        assert len(found.differences) == found.test
        assert confirmation.selected_arm.difference == pytest.approx(sum(found.differences) / found.test)
    again = run_study(words).findings
    assert again.confirmation == confirmation


def test_what_is_said_before_the_search_is_said_once_and_what_does_nothing_is_named(words, capsys) -> None:
    run_study([*words, "dataset.test_share=0.4"])
    told = capsys.readouterr().err
    assert told.count("judged by the baseline (") == 1
    assert told.count("questions to confirm show a difference of") <= 2
    assert "dataset.test_share=0.4 does nothing here: all questions are searched" in told


def test_how_a_study_confirms_can_not_change_on_the_way(words, tmp_path) -> None:
    run_study(words)
    with pytest.raises(DriftError, match="confirmation.method: then crossfit, now split") as refused:
        run_study([*words[:-1], "confirmation.method=split"])
    assert "confirmation.method=crossfit goes on as it was begun" in str(refused.value)
    # Nobody chose it: fresh questions would make it a split today.
    more = write_jsonl(tmp_path / "more.jsonl", [{"question": "Which pet is silent?", "relevant": ["cats"]}])
    with pytest.raises(DriftError, match="confirmation.method=crossfit goes on as it was begun"):
        run_study([*words[:-1], "confirmation.method=auto", f"dataset.test={more}"])


@pytest.mark.parametrize(
    ("more", "crossfits"),
    [
        ([], True),
        (["objective=quality_cost"], False),
        (["objective.constraints=['tokens <= 2000']"], False),
        (["confirmation.method=split"], False),
        (["dataset.test={fresh}"], False),
    ],
)
def test_few_questions_all_confirm_where_that_can_show_something(words, tmp_path, more, crossfits) -> None:
    write_jsonl(tmp_path / "more.jsonl", [{"question": "Which pet is silent?", "relevant": ["cats"]}])
    given = [word.replace("{fresh}", f"{tmp_path}/more.jsonl") for word in more]
    plan = build_plan([*words[:-1], "confirmation.method=auto", *given])
    assert plan.settings.crossfits == crossfits
    assert (plan.dev.questions.count == len(QUESTIONS)) == crossfits


def test_of_many_questions_some_are_kept(tmp_path) -> None:
    plan = build_plan(["embedder=hashing", f"store.path={tmp_path}"])
    assert len(plan.dataset.queries) >= FEW
    assert not plan.settings.crossfits


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["objective.metrics=[nDCG@10, latency]"], "crossfit: the front of several objectives"),
        (["confirmation.method=crosfit"], "split or crossfit is expected; did you mean 'crossfit'"),
    ],
)
def test_what_it_can_not_do_is_refused_before_the_first_trial(words, more, message) -> None:
    with pytest.raises(ConfigError, match=message):
        run_study([*words, *more])


def test_a_data_set_that_keeps_its_own_questions_is_not_searched_whole(words, tmp_path) -> None:
    rows = [{**row, "split": "test" if number % 2 else "dev"} for number, row in enumerate(QUESTIONS)]
    write_jsonl(tmp_path / "questions.jsonl", rows)
    with pytest.raises(DatasetError, match="crossfit searches all questions, and questions keeps some to confirm"):
        run_study([*words, f"dataset.questions={tmp_path / 'questions.jsonl'}"])


def test_a_baseline_that_was_selected_is_compared_with_nothing(words, monkeypatch) -> None:
    folder = run_study(words).folder
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    before = get_study_attributes(study).tests
    # All folds would choose another, the whole does not.
    other = lambda *given: replace(crossfit(*given), trials=np.full(len(QUESTIONS), 1))  # noqa: E731
    monkeypatch.setattr(finalists, "crossfit", other)
    monkeypatch.setattr(finalists, "select_finalists", lambda *_: Selection(0, (), 0, 0))
    found = run_study(words).findings.confirmation
    assert found.selected_arm is found.baseline
    assert found.baseline.test == pytest.approx(found.baseline.dev)
    assert found.recommended == found.baseline.trial
    # Nor is a look spent.
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    assert get_study_attributes(study).tests == before


def test_a_choice_of_some_folds_that_can_not_be_reached_is_confirmed_by_the_same_command(words, monkeypatch) -> None:
    """Without it there is no comparison; a study that just had none would not be asked again."""
    fit, real, judge = finalists._fit_folds, Evaluator.measure_config, []

    def fit_with_another(plan, candidates, roles):
        fitted = fit(plan, candidates, roles)
        judge[:] = [next(each.number for each in candidates if each.number not in roles)]
        trials = fitted.trials.copy()
        trials[0] = judge[0]
        return replace(fitted, trials=trials)

    def away(self, given, report=None):
        if judge and given == self.compose_overrides(finalists.get_trial_overrides(snapshot[0], judge[0])):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        return real(self, given, report)

    snapshot, confirm = [], finalists._evaluate_finalists
    monkeypatch.setattr(finalists, "_fit_folds", fit_with_another)
    monkeypatch.setattr(
        finalists, "_evaluate_finalists", lambda plan, now, *rest: snapshot.append(now) or confirm(plan, now, *rest)
    )
    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "measure_config", away)
        with pytest.raises(OutageError, match="could not be confirmed: the network or a service can't be reached"):
            run_study(words)
    judge.clear()
    assert run_study(words).findings.confirmation is not None
