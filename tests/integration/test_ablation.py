"""Which change did it: settings put back, measured on the questions that confirm."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import TrialState

from rag_opt.analysis.findings import Findings
from rag_opt.cli.study import run_study
from rag_opt.errors import ConfigError
from rag_opt.storages.snapshot import StudySnapshot
from rag_opt.study.ablation import measure_ablations
from rag_opt.study.plan import build_plan
from tests.conftest import own_space

pytestmark = pytest.mark.integration


@pytest.fixture
def words(animals, tmp_path) -> list[str]:
    base = [*animals, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none"]
    return [*base, "pruner=none", "n_trials=8", "stopping=none"]


def test_what_a_setting_brings_is_the_difference_without_it(words, tmp_path) -> None:
    space = own_space(tmp_path, {"retriever": "choice(bm25, dense, hybrid)", "retriever.top_k": "range(1, 11)"})
    seeds = "seeds=[['retriever=bm25','retriever.top_k=4']]"
    words = [*words, *space, "objective.metrics=[context.nDCG@10]", "n_trials=2", seeds]
    folder = run_study(words).folder
    plan = build_plan(words)
    now = StudySnapshot(optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db"))
    # The baseline is hybrid retrieval of ten chunks.
    other = next(
        trial
        for trial in now.get_trials(states=(TrialState.COMPLETE,))
        if trial.params["retriever"] != "hybrid" and trial.params["retriever.top_k"] < 10
    )
    retriever, top_k = (f"{key}={other.params[key]}" for key in ("retriever", "retriever.top_k"))
    scores = plan.test.measure_config(plan.test.compose_overrides([retriever, top_k]))
    found = {each.setting: each for each in measure_ablations(plan, now, other.number, {other.number: scores})}
    assert set(found) == {"retriever", "retriever.top_k"}
    for setting, others in {
        "retriever": ["retriever=hybrid", top_k],
        "retriever.top_k": [retriever, "retriever.top_k=10"],
    }.items():
        by_hand = plan.test.measure_config(plan.test.compose_overrides(others))
        expected = scores.means["context.nDCG@10"] - by_hand.means["context.nDCG@10"]
        assert found[setting].difference == pytest.approx(expected)
        assert found[setting].low <= found[setting].difference <= found[setting].high
    assert measure_ablations(plan, now, 0, {0: scores}) == ()


def test_the_report_says_what_each_setting_brings(words, tmp_path) -> None:
    # The baseline hands on ten chunks, where fewer are fewer tokens: something else is selected.
    fewest = ["objective.metrics=[tokens]", "objective.report=[nDCG@10]", "retriever=bm25"]
    folder = run_study([*words, *own_space(tmp_path, {"retriever.top_k": "range(1, 11)"}), *fewest]).folder
    found = Findings.read(folder)
    assert [each.setting for each in found.ablations] == ["retriever.top_k"]
    assert found.ablations[0].difference == pytest.approx(found.confirmation.selected_arm.difference)
    assert found.ablations[0].difference < 0
    assert math.isfinite(found.ablations[0].low)
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text("utf-8")
        assert "effect on tokens" in text
        assert "with this setting, and what depends on it, put back" in text


def test_what_pays_a_model_is_not_put_back_unless_told(words, services, tmp_path) -> None:
    folder = run_study([*words, "confirmation.ablation=false"]).folder
    assert Findings.read(folder).ablations == ()
    now = StudySnapshot(optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db"))
    other = next(t for t in now.get_trials(states=(TrialState.COMPLETE,)) if t.params["retriever"] != "hybrid")
    judged = [*words, *services, "objective.report=[judge.correctness]"]
    for pays in ([*words, *services, "generator=openai"], judged):
        plan = build_plan(pays)
        scores = plan.test.measure_config(plan.test.compose_overrides([]))
        assert measure_ablations(plan, now, other.number, {other.number: scores}) == ()
        told = build_plan([*pays, "confirmation.ablation=true"])
        found = measure_ablations(told, now, other.number, {other.number: scores})
        assert found
        assert not any(math.isnan(each.difference) for each in found)
    with pytest.raises(ConfigError, match=r"confirmation\.ablation=maybe: auto, true or false"):
        run_study([*words, "confirmation.ablation=maybe"])
