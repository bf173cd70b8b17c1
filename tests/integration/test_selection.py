"""Studies whose trials repeat, race, break constraints, or can't be measured for every question."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from rag_opt.analysis import history
from rag_opt.cli.study import Outcome, run_study
from rag_opt.errors import ConfigError, MetricError
from rag_opt.samplers.observations import select_informative
from rag_opt.storages.attributes import TrialAttributes, get_attributes
from rag_opt.study import limits
from rag_opt.study.racing import Race
from tests.conftest import animals_study, own_space

pytestmark = pytest.mark.integration


def start(animals: list[str], folder: Path, *overrides: str) -> Outcome:
    base = [*animals, f"studies_dir={folder}/studies", f"store.path={folder}/store", "tracking=none", "n_trials=8"]
    return run_study([*base, *overrides])


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/studies/animals/study.db")


# ---- nothing is measured twice

HANDED = "objective.metrics=[context.nDCG@10]"
"""What depends on how many chunks are handed on."""


@pytest.mark.parametrize(
    "sampler", ["rag", "random", *(pytest.param(each, marks=pytest.mark.long) for each in ("tpe", "gp"))]
)
def test_what_was_measured_is_not_measured_again_and_a_small_space_ends(
    animals, tmp_path, sampler: str, capsys
) -> None:
    space = own_space(tmp_path, {"retriever": "choice(bm25, dense, hybrid)", "retriever.top_k": "range(9, 11)"})
    start(animals, tmp_path, *space, HANDED, f"sampler={sampler}", "n_trials=30")
    trials = study_of(tmp_path).trials
    measured = [trial for trial in trials if get_attributes(trial).repeats is None]
    repeated = [trial for trial in trials if get_attributes(trial).repeats is not None]
    seen = [str(sorted(trial.params.items())) for trial in measured]
    assert len(seen) == len(set(seen)) == 6
    # The last new one ends the search: nothing is drawn after it, however many trials are left.
    assert trials[-1] == measured[-1]
    assert "nothing new to try: all 6 configurations of the space were tried" in capsys.readouterr().err
    # The rag sampler proposes only what was not measured; the others draw blindly.
    assert bool(repeated) == (sampler != "rag")
    for trial in repeated:
        original = trials[get_attributes(trial).repeats]
        assert (trial.params, trial.values) == (original.params, original.values)
        assert not (tmp_path / f"studies/animals/trials/{trial.number:04d}").exists()


def test_draws_that_only_repeat_end_a_search_that_cannot_know_it_has_all(
    animals, tmp_path, monkeypatch, capsys
) -> None:
    space = own_space(tmp_path, {"retriever": "choice(bm25, dense, hybrid)"})
    monkeypatch.setattr(limits, "count_configurations", lambda *_: 30)
    monkeypatch.setattr(limits, "GIVE_UP_AFTER", 50)
    start(animals, tmp_path, *space, HANDED, "sampler=random", "n_trials=30")
    repeated = [get_attributes(trial).repeats is not None for trial in study_of(tmp_path).trials]
    assert repeated.count(False) == 3
    assert repeated[-51:] == [False, *[True] * 50]
    assert "nothing new to try: 50 draws in a row repeated what was measured" in capsys.readouterr().err


def test_repeats_take_no_place_in_the_budget_and_are_counted(animals, tmp_path) -> None:
    space = own_space(tmp_path, {"retriever": "choice(bm25, dense, hybrid)", "retriever.top_k": "range(8, 11)"})
    outcome = start(animals, tmp_path, *space, HANDED, "sampler=random", "n_trials=7")
    study = study_of(tmp_path)
    assert len(history.get_measured(study, TrialState.COMPLETE, TrialState.PRUNED)) == 7
    repeats = history.count_repeats(study)
    assert repeats > 0
    assert history.count_origins(study)["repeats"] == repeats
    report = (outcome.folder / "report.md").read_text()
    assert f"{repeats} repeated" in report


def test_a_repeat_that_was_killed_before_it_was_told_takes_no_place(animals, tmp_path, monkeypatch) -> None:
    space = own_space(tmp_path, {"retriever": "choice(bm25, dense, hybrid)", "retriever.top_k": "range(8, 11)"})
    words = [*space, HANDED, "sampler=random", "n_trials=8"]
    plain, told = history.find_measured, []

    def killed(study, values):
        found = plain(study, values)
        if found is not None and not told:
            told.append(found.number)
            open_study = study_of(tmp_path)
            trial = open_study.get_trials(states=(TrialState.RUNNING,))[0]
            open_study._storage.set_trial_user_attr(trial._trial_id, TrialAttributes.repeats.name, found.number)
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(history, "find_measured", killed)
    with pytest.raises(KeyboardInterrupt):
        start(animals, tmp_path, *words)
    monkeypatch.undo()
    start(animals, tmp_path, *words)
    study = study_of(tmp_path)
    assert len(history.get_measured(study, TrialState.COMPLETE, TrialState.PRUNED)) == 8
    assert history.count_outcomes(study)["failed"] == 0
    assert history.count_outcomes(study)["interrupted"] == 1


def test_the_report_says_how_trials_were_drawn(animals, tmp_path) -> None:
    start(animals, tmp_path, "sampler=tpe", "sampler.n_startup_trials=5", "n_trials=12", "pruner=none")
    ways = history.count_origins(study_of(tmp_path))
    assert ways["baseline"] == 1
    assert ways["seed"] == 3
    assert ways["random"] >= 1
    assert ways["model"] >= 4
    assert sum(ways.values()) == len(study_of(tmp_path).trials)


def test_a_gp_draws_what_some_trials_lack_at_random(animals, tmp_path) -> None:
    start(animals, tmp_path, "sampler=gp", "sampler.n_startup_trials=4", "n_trials=12", "pruner=none")
    assert history.count_origins(study_of(tmp_path)).get("model and random", 0) >= 1


# ---- constraints


def test_every_constraint_is_set_and_what_breaks_one_is_never_best(animals, tmp_path) -> None:
    limit = "objective.constraints=['tokens <= 60 tokens','latency_p95 <= 5 s']"
    outcome = start(animals, tmp_path, limit, "n_trials=12")
    study = study_of(tmp_path)
    done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    assert all(set(trial.constraints) == {"tokens <= 60 tokens", "latency_p95 <= 5 s"} for trial in done)
    kept = [trial for trial in done if trial.state == TrialState.COMPLETE and history.is_feasible(trial)]
    broken = [trial for trial in done if not history.is_feasible(trial)]
    assert kept
    assert broken
    for trial in kept:
        assert trial.user_attrs["metrics"]["tokens"] <= 60
    chosen = study.trials[outcome.findings.confirmation.recommended]
    assert history.is_feasible(chosen)


def test_where_no_trial_keeps_the_constraints_that_is_the_result(animals, tmp_path) -> None:
    outcome = start(animals, tmp_path, "objective.constraints=['nDCG@10 >= 1.5']", "n_trials=4")
    assert "keeps the constraints" in (outcome.folder / "report.md").read_text()
    assert "keeps the constraints" in outcome.error
    assert not (outcome.folder / "best.yaml").exists()


@pytest.mark.parametrize(
    "sampler", ["rag", "nsga2", *(pytest.param(each, marks=pytest.mark.long) for each in ("tpe", "gp"))]
)
def test_several_objectives_with_a_constraint_and_a_race(animals, tmp_path, sampler: str) -> None:
    words = ["objective=quality_cost", "objective.constraints=['latency <= 5 s']", "pruner=race", "pruner.least=3"]
    start(animals, tmp_path, *words, f"sampler={sampler}", "n_trials=14", "evaluation.batches=7")
    study = study_of(tmp_path)
    assert len(history.get_measured(study, TrialState.COMPLETE, TrialState.PRUNED)) == 14
    front = history.find_front(study)
    assert {trial.number for trial in front} <= {trial.number for trial in study.best_trials}
    assert front


@pytest.mark.parametrize("objective", ["", "objective=quality_cost"])
def test_what_a_race_ends_has_told_what_it_knew(animals, tmp_path, monkeypatch, objective: str) -> None:
    """Before it ended, so that the sampler learns from it."""
    monkeypatch.setattr(Race, "is_dominated", lambda _, ours, rivals, signs, groups: bool(rivals and ours and signs))
    words = ["pruner=race", "evaluation.batches=7", "n_trials=8", *filter(None, [objective])]
    folder = animals_study(animals, tmp_path, *words)
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    pruned = history.get_measured(study, TrialState.PRUNED)
    assert len(pruned) == 7
    assert all(trial.user_attrs["questions"] == 1 for trial in pruned)
    assert select_informative(study.trials) == study.trials
    if not objective:
        assert all(list(trial.intermediate_values) == [1] for trial in pruned)
    else:
        assert all(len(trial.user_attrs["so_far"]) == 2 for trial in pruned)


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["objective.constraints=['latency under 50']"], ConfigError, "is not <metric> <= <number>"),
        (["objective.constraints=['latency <= 50 parsecs']"], ConfigError, "with a unit of ms"),
        (["objective.constraints=['latencey <= 50 ms']"], MetricError, "'latencey' is no metric"),
        (["objective.constraints=['evidence_recall@5 >= 0.5']"], MetricError, "evidence_recall@5 needs evidence"),
        (["confirmation.cost=nDCG@10"], ConfigError, "a metric of which less is better"),
        (["confirmation.ties=-1"], ConfigError, "confirmation.ties=-1"),
        (["confirmation=null"], ConfigError, "confirmation is missing"),
        (["+objective.own=3"], ConfigError, "metrics by their names"),
        (["+objective.own={x: {function: os.system}}"], ConfigError, "not below a trusted module"),
        (
            ["+objective.own={x: {function: rag_opt.metrics.own.apply_function}}"],
            ConfigError,
            "none of what a study is made of",
        ),
        (["+objective.own={x: {call: me}}"], MetricError, "objective.own.x: expected are function"),
        (["evaluation.coverage=2"], ConfigError, "a share from 0 to 1"),
        (["pruner=race", "pruner.alpha=3"], ConfigError, "alpha must be above 0 and below 1"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_trial_0(animals, tmp_path, words, kind, message: str) -> None:
    with pytest.raises(kind, match=message):
        start(animals, tmp_path, *words)
    assert not (tmp_path / "studies").exists()


# ---- racing


def test_a_trial_that_loses_is_stopped_and_never_competes(animals, tmp_path) -> None:
    race = ["pruner=race", "pruner.least=3", "pruner.alpha=0.4", "evaluation.batches=7", "objective.metrics=[tokens]"]
    start(animals, tmp_path, *race, "n_trials=14")
    study = study_of(tmp_path)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned
    best = min(trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,)))
    for trial in pruned:
        table = json.loads((tmp_path / f"studies/animals/trials/{trial.number:04d}/per_query.json").read_text())
        assert len(table["data"]) == trial.user_attrs["questions"] < 7
        column = table["columns"].index("tokens")
        assert np.mean([row[column] for row in table["data"]]) > best * 0.9


# ---- a metric of one's own, and questions that can't be measured

OWN = '''
def shortness(case):
    """1 for an answer of one word."""
    return 1 / max(1, len(case.answer.split()))

def picky(case):
    if len(case.question) % 2:
        raise RuntimeError("no verdict")
    return None if "bees" in case.documents[:1] else float(case.relevant.get(case.documents[0], 0) > 0)
'''


@pytest.fixture
def own_metrics(tmp_path, monkeypatch):
    (tmp_path / "animal_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "trusted_modules=[animal_metrics]"
    sys.modules.pop("animal_metrics", None)


def test_a_metric_of_ones_own_is_one_function_and_one_file(animals, tmp_path, own_metrics) -> None:
    folder = tmp_path / "conf" / "objective"
    folder.mkdir(parents=True)
    (folder / "short.yaml").write_text(
        "metrics: [shortness]\ndirections: null\nreport: [nDCG@10]\nconstraints: []\n"
        "own:\n  shortness: {function: animal_metrics.shortness, needs: generator}\n"
    )
    path = f"hydra.searchpath=[file://{tmp_path}/conf]"
    start(animals, tmp_path, path, own_metrics, "objective=short", "generator=extractive", "n_trials=2")
    trial = study_of(tmp_path).trials[0]
    table = json.loads((tmp_path / "studies/animals/trials/0000/per_query.json").read_text())
    answers, scores = ([row[table["columns"].index(name)] for row in table["data"]] for name in ("answer", "shortness"))
    assert scores == [pytest.approx(1 / max(1, len(answer.split()))) for answer in answers]
    assert trial.value == pytest.approx(np.mean(scores))


def test_what_could_not_be_measured_is_neither_0_nor_dropped_in_silence(animals, tmp_path, own_metrics) -> None:
    own = "+objective.own={picky: {function: animal_metrics.picky}}"
    outcome = start(animals, tmp_path, own_metrics, own, "objective.metrics=[picky]", "n_trials=2")
    trials = study_of(tmp_path).trials
    assert {trial.state for trial in trials} == {TrialState.FAIL}
    assert "picky could be measured for" in trials[0].user_attrs["reason"]
    assert "picky could be measured for" in outcome.error
    table = json.loads((tmp_path / "studies/animals/trials/0000/per_query.json").read_text())
    assert None in [row[table["columns"].index("picky")] for row in table["data"]]


def test_a_metric_of_ones_own_can_be_a_constraint(animals, tmp_path, own_metrics) -> None:
    own = "+objective.own={shortness: {function: animal_metrics.shortness, needs: generator}}"
    bound = "objective.constraints=['shortness >= 0.01']"
    start(animals, tmp_path, own_metrics, own, bound, "generator=extractive", "n_trials=2")
    assert study_of(tmp_path).trials[0].constraints["shortness >= 0.01"] <= 0


def test_with_a_lower_limit_the_trial_counts_and_says_its_coverage(animals, tmp_path, own_metrics) -> None:
    own = "+objective.own={picky: {function: animal_metrics.picky}}"
    words = [own_metrics, own, "objective.metrics=[picky]", "evaluation.coverage=0.1", "n_trials=2"]
    outcome = start(animals, tmp_path, *words)
    trial = study_of(tmp_path).trials[0]
    assert trial.state == TrialState.COMPLETE
    assert 0.1 <= trial.user_attrs["coverage"]["picky"] < 0.95
    table = json.loads((tmp_path / "studies/animals/trials/0000/per_query.json").read_text())
    scores = [row[table["columns"].index("picky")] for row in table["data"]]
    assert None in scores
    assert trial.value == pytest.approx(np.mean([score for score in scores if score is not None]))
    assert outcome.findings.confirmation.selected_arm.coverage < 1


def test_a_changed_function_is_another_metric(animals, tmp_path, own_metrics) -> None:
    own = "+objective.own={shortness: {function: animal_metrics.shortness, needs: generator}}"
    words = [own_metrics, own, "objective.metrics=[shortness]", "generator=extractive", "n_trials=1"]
    start(animals, tmp_path, *words)
    (tmp_path / "animal_metrics.py").write_text(OWN.replace("1 / max", "2 / max"))
    sys.modules.pop("animal_metrics")
    with pytest.raises(Exception, match="objective"):
        start(animals, tmp_path, *words)
