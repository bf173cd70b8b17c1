"""Whole studies in this process: the loop, its records, resuming, failures, tracking."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from rag_opt.cache.artifact_files import read_table
from rag_opt.cli.study import Outcome, run_study
from rag_opt.cli.trial import measure_configuration
from rag_opt.components.embedders.embedding_cache import EmbeddingCache, hash_text
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.resources import Resources
from rag_opt.components.retrievers.fusion import Fusion
from rag_opt.config import experiments
from rag_opt.config.compose import parse_overrides
from rag_opt.config.experiments import expand_best
from rag_opt.config.trial import compose_trial
from rag_opt.errors import ConfigError, DriftError, StorageError, StudyError
from rag_opt.evaluation.evaluate import evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.records.documents import Floats
from rag_opt.storages import scores as scorebook
from rag_opt.storages.attributes import StudyAttributes, get_attributes
from tests.conftest import QUESTIONS, own_space

pytestmark = pytest.mark.integration


def study_of(folder: Path, name: str = "animals") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/studies/{name}/study.db")


def start(animals: list[str], folder: Path, *overrides: str) -> Outcome:
    base = [*animals, f"studies_dir={folder}/studies", f"store.path={folder}/store", "tracking=none", "n_trials=8"]
    return run_study([*base, *overrides])


@pytest.fixture(scope="module")
def eight(animals, tmp_path_factory) -> tuple[Path, Outcome]:
    """Where a study of eight trials was run to its end, and what came of it; whoever changes it takes a copy."""
    place = tmp_path_factory.mktemp("eight")
    return place, start(animals, place)


@pytest.fixture(scope="module")
def two_trials(animals, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("two")
    start(animals, place, "n_trials=2")
    return place


@pytest.fixture
def two(two_trials: Path, tmp_path) -> Path:
    """The test's folder with a study of two trials, a copy."""
    return shutil.copytree(two_trials, tmp_path, dirs_exist_ok=True)


def test_a_study_leaves_all_it_promises(eight) -> None:
    place, outcome = eight
    folder = place / "studies" / "animals"
    study = study_of(place)
    assert [trial.state for trial in study.trials if trial.state == TrialState.RUNNING] == []
    assert len(study.trials) == 8
    assert [t.user_attrs["origin"] for t in study.trials] == [
        "baseline",
        "seed",
        "seed",
        "seed",
        "sequence",
        *["model"] * 3,
    ]
    assert outcome.findings.best == study.best_value
    best = yaml.safe_load((folder / "best.yaml").read_text())
    again = expand_best([f"best={folder}"])
    assert compose_trial(again).parameters == outcome.findings.config
    assert measure_configuration([*again, f"store.path={place}/store"]).means["nDCG@10"] == pytest.approx(
        outcome.findings.confirmation.selected_arm.dev, abs=1e-12
    )
    assert {"override /dataset": "jsonl"} in best["defaults"]
    report = (folder / "report.md").read_text()
    assert "python -m rag_opt.trial" in report
    assert "questions never searched" in report
    assert "```mermaid" in report


def test_per_query_scores_are_kept_for_every_trial_and_give_its_value(eight) -> None:
    place, _ = eight
    complete = study_of(place).get_trials(states=(TrialState.COMPLETE,))
    assert complete
    for trial in complete:
        table = json.loads((place / f"studies/animals/trials/{trial.number:04d}/per_query.json").read_text())
        column = table["columns"].index("nDCG@10")
        scores = [row[column] for row in table["data"]]
        assert len(scores) == 7
        assert sum(scores) / len(scores) == pytest.approx(trial.value, abs=1e-12)


def test_the_best_trials_command_replays_to_the_same_score(eight) -> None:
    place, _ = eight
    study = study_of(place)
    import shlex

    for trial in study.trials[:6]:
        if trial.state != TrialState.COMPLETE:
            continue
        words = shlex.split(trial.user_attrs["command"])[3:]
        assert measure_configuration(words).means["nDCG@10"] == trial.value
        assert {o.key_or_group for o in parse_overrides(words)} >= set(trial.params)


def test_optuna_dashboard_finds_the_command_in_the_note(two) -> None:
    from optuna_dashboard._note import get_note_from_system_attrs

    study = study_of(two)
    attributes = study._storage.get_study_system_attrs(study._study_id)
    for trial in study.trials:
        assert trial.user_attrs["command"] in get_note_from_system_attrs(attributes, trial._trial_id)["body"]


@pytest.mark.parametrize(
    "sampler",
    ["rag", *(pytest.param(each, marks=pytest.mark.long) for each in ("tpe", "random", "qmc", "gp", "nsga2"))],
)
def test_a_study_in_parts_is_bit_equal_to_one_in_one_go(animals, tmp_path, sampler: str) -> None:
    start(animals, tmp_path, f"sampler={sampler}", "n_trials=14", "name=whole")
    for total in (3, 9, 14):
        start(animals, tmp_path, f"sampler={sampler}", f"n_trials={total}", "name=parts")
    whole, parts = (study_of(tmp_path, name) for name in ("whole", "parts"))
    assert [(t.params, t.values, t.state) for t in whole.trials] == [
        (t.params, t.values, t.state) for t in parts.trials
    ]


def test_a_finished_study_runs_nothing_more(eight, animals, tmp_path) -> None:
    place, _ = eight
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    before = len(study_of(tmp_path).trials)
    start(animals, tmp_path)
    start(animals, tmp_path, "n_trials=5")
    assert len(study_of(tmp_path).trials) == before


def test_zombies_are_closed_and_their_places_taken_again(animals, tmp_path) -> None:
    start(animals, tmp_path, "n_trials=3")
    zombie = study_of(tmp_path).ask()
    start(animals, tmp_path, "n_trials=6")
    study = study_of(tmp_path)
    assert study.trials[zombie.number].state == TrialState.FAIL
    assert get_attributes(study.trials[zombie.number]).interrupted
    assert len(study.trials) == 7
    assert [t.user_attrs.get("origin") for t in study.trials[:5]] == ["baseline", "seed", "seed", None, "seed"]


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("dataset.test_share=0.5", "dataset.test_share; "),
        ("seed=1", "seed; "),
        ("evaluation.batches=3", "evaluation.batches; "),
        ("objective=recall", "objective"),
        ("retriever=bm25", "search space and pipeline"),
        ("retriever.top_k=5", "pipeline"),
        ("generator=none", "pipeline"),
    ],
)
def test_a_changed_study_is_refused_with_both_fingerprints_and_two_ways_out(
    animals, two, override: str, part: str
) -> None:
    before = study_of(two).trials
    with pytest.raises(DriftError, match=f"another {part}") as caught:
        start(animals, two, override)
    message = str(caught.value)
    assert "then" in message
    assert "now" in message
    assert "name=<new name>" in message
    assert "remove" in message
    assert study_of(two).trials == before


def test_a_study_that_kept_no_parts_is_told_what_it_may_be(animals, two) -> None:
    StudyAttributes.parts.save(study_of(two), {})
    start(animals, two, "n_trials=3")
    with pytest.raises(DriftError, match="made with another objective, seed or evaluation.batches; "):
        start(animals, two, "seed=1")


def test_a_failing_trial_is_failed_with_its_reason_and_the_study_goes_on(animals, tmp_path, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no ranks today")

    monkeypatch.setattr(Fusion, "_compute_shares", broken)
    outcome = start(animals, tmp_path)
    failed = study_of(tmp_path).get_trials(states=(TrialState.FAIL,))
    assert failed
    assert all("no ranks today" in trial.user_attrs["reason"] for trial in failed)
    assert outcome.findings.trials == 8
    assert outcome.findings.best is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_fails_the_trial(animals, tmp_path, monkeypatch, value: float) -> None:
    from dataclasses import replace

    def broken(*args, **kwargs):
        found = evaluate_pipeline(*args, **kwargs)
        return replace(found, means={**found.means, "nDCG@10": value})

    monkeypatch.setattr("rag_opt.evaluation.evaluator.evaluate_pipeline", broken)
    outcome = start(animals, tmp_path, "n_trials=2")
    assert outcome.findings.best is None
    assert "nDCG@10 is" in outcome.error
    assert {t.state for t in study_of(tmp_path).trials} == {TrialState.FAIL}


PRUNED_EARLY = [
    "pruner=median",
    "pruner.n_startup_trials=1",
    "pruner.n_warmup_steps=0",
    "evaluation.batches=7",
    "objective.metrics=[tokens]",
]
"""With tokens to be few, every top_k above the median is worse from the first batch on."""


def test_pruned_trials_never_compete(animals, tmp_path) -> None:
    start(animals, tmp_path, *PRUNED_EARLY, "n_trials=12")
    study = study_of(tmp_path)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned
    assert study.best_trial.state == TrialState.COMPLETE
    for trial in pruned:
        assert trial.user_attrs["questions"] < 7
        assert "metrics" not in trial.user_attrs
        table = json.loads((tmp_path / f"studies/animals/trials/{trial.number:04d}/per_query.json").read_text())
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        assert len(rows) == trial.user_attrs["questions"]
        assert all(row["retrieved"] for row in rows)
    report = (tmp_path / "studies/animals/report.md").read_text()
    assert not any(f"| {trial.number} |" in report for trial in pruned)
    page = (tmp_path / "studies/animals/report.html").read_text()
    seeds = [trial for trial in pruned if trial.user_attrs["origin"] == "seed"]
    assert seeds
    assert page.count("seed, stopped after") == len(seeds)


def test_wilcoxon_is_told_each_questions_score(animals, tmp_path) -> None:
    start(animals, tmp_path, "pruner=wilcoxon", "n_trials=2")
    trial = study_of(tmp_path).trials[0]
    table = json.loads((tmp_path / "studies/animals/trials/0000/per_query.json").read_text())
    column = table["columns"].index("nDCG@10")
    assert [trial.intermediate_values[i] for i in range(7)] == [row[column] for row in table["data"]]


def test_several_objectives_give_a_front(animals, tmp_path) -> None:
    start(animals, tmp_path, "objective=quality_cost", "n_trials=10")
    study = study_of(tmp_path)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    report = (tmp_path / "studies/animals/report.md").read_text()
    assert "Pareto front" in report
    front = sorted(study.best_trials, key=lambda trial: -trial.values[0])
    assert f"trial {front[0].number}: context.nDCG@10" in (tmp_path / "studies/animals/best.yaml").read_text()


def test_brute_force_tries_every_combination_once_and_stops(animals, tmp_path) -> None:
    space = own_space(tmp_path, {"retriever": "choice(bm25, dense, hybrid)", "retriever.top_k": "range(9, 12)"})
    words = ["sampler=brute_force", *space, "objective.metrics=[context.nDCG@10]", "n_trials=50"]
    start(animals, tmp_path, *words)
    tried = [(t.params["retriever"], t.params["retriever.top_k"]) for t in study_of(tmp_path).trials]
    assert len(tried) == len(set(tried)) == 9
    start(animals, tmp_path, *words)
    assert len(study_of(tmp_path).trials) == 9


@pytest.mark.parametrize("sampler", ["random", "rag"])
def test_a_space_of_few_configurations_is_done_when_all_are_measured(animals, tmp_path, capsys, sampler: str) -> None:
    space = own_space(tmp_path, {"retriever": "choice(bm25, hybrid)", "retriever.b": "choice(0.5, 0.75)"})
    start(animals, tmp_path, f"sampler={sampler}", *space, "seeds=[]", "n_trials=9")
    trials = study_of(tmp_path).trials
    measured = [trial for trial in trials if "repeats" not in trial.user_attrs]
    assert len({tuple(sorted(trial.params.items())) for trial in measured}) == len(measured) == 4
    # After five repeats in a row one that is left is taken.
    assert len(trials) <= 4 + 3 * 5
    assert "nothing new to try: all 4 configurations of the space were tried" in capsys.readouterr().err


def test_a_time_limit_ends_the_study_early(animals, tmp_path) -> None:
    outcome = start(animals, tmp_path, "timeout=0.000001", "n_trials=50")
    assert outcome.findings.trials <= 1


# ---- MLflow


def runs_of(folder: Path) -> tuple[list, list]:
    client = MlflowClient(f"sqlite:///{folder}/studies/mlflow.db")
    experiment = client.get_experiment_by_name("rag_opt")
    runs = client.search_runs([experiment.experiment_id])
    return [r for r in runs if "rag_opt.study" in r.data.tags], [r for r in runs if "rag_opt.trial" in r.data.tags]


def test_mlflow_mirrors_the_study_through_a_resume(animals, tmp_path) -> None:
    options = ["tracking=mlflow", *PRUNED_EARLY]
    start(animals, tmp_path, *options, "n_trials=4")
    study_of(tmp_path).ask()
    start(animals, tmp_path, *options, "n_trials=16")
    (parent,), children = runs_of(tmp_path)
    study = study_of(tmp_path)
    assert parent.info.status == "FINISHED"
    assert parent.inputs.dataset_inputs[0].dataset.name == "questions"
    assert study.metric_names == ["tokens"]
    told = parent.data.tags
    assert told["verdict"].startswith("tokens: ")
    assert told["command"].startswith("python -m rag_opt.trial ")
    assert (told["sampler"], told["pruner"]) == ("rag_opt.samplers.RagSampler", "optuna.pruners.MedianPruner")
    assert told["verdict"] in told["mlflow.note.content"]
    assert all(run.data.params["embedder"] == "hashing" for run in children if run.data.tags.get("repeats") is None)
    assert {"report.md", "report.html", "best.yaml", "figures", "search_space.yaml"} <= artifacts(tmp_path, parent)
    copies = [path for path in tmp_path.rglob("*") if path.name in ("report.html", "per_query.json")]
    assert len({path.stat().st_ino for path in copies}) == len(copies) / 2, "MLflow has links, not copies"
    assert len(children) == len(study.trials) == 17
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children)
    statuses = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
    by_number = {int(run.data.tags["rag_opt.trial"]): run for run in children}
    for trial in study.trials:
        run_ = by_number[trial.number]
        assert run_.info.status == statuses[trial.state]
        assert {key: str(value) for key, value in trial.params.items()}.items() <= run_.data.params.items()
        assert trial.state == TrialState.FAIL or run_.data.params["retriever.depth"] == "6"
        assert run_.data.metrics.get("tokens") == (trial.value if trial.state == TrialState.COMPLETE else None)
        if trial.state != TrialState.FAIL:
            assert artifacts(tmp_path, run_) == {"config.yaml", "per_query.json"}
    assert {run.info.status for run in children} == {"FINISHED", "KILLED", "FAILED"}


def artifacts(folder: Path, run_) -> set[str]:
    client = MlflowClient(f"sqlite:///{folder}/studies/mlflow.db")
    return {item.path for item in client.list_artifacts(run_.info.run_id)}


def test_running_values_carry_their_steps(animals, tmp_path) -> None:
    start(animals, tmp_path, "tracking=mlflow", "n_trials=1", "evaluation.batches=7")
    _, (child,) = runs_of(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/studies/mlflow.db")
    history = client.get_metric_history(child.info.run_id, "running.nDCG_at_10")
    assert [point.step for point in history] == list(range(1, 8))


def test_a_run_that_a_kill_left_open_is_finished_and_a_lost_one_made_again(animals, tmp_path) -> None:
    start(animals, tmp_path, "tracking=mlflow", "n_trials=3")
    client = MlflowClient(f"sqlite:///{tmp_path}/studies/mlflow.db")
    _, children = runs_of(tmp_path)
    client.update_run(children[0].info.run_id, status="RUNNING")
    client.delete_run(children[1].info.run_id)
    start(animals, tmp_path, "tracking=mlflow", "n_trials=4")
    (_,), children = runs_of(tmp_path)
    assert sorted(int(run_.data.tags["rag_opt.trial"]) for run_ in children) == [0, 1, 2, 3]
    assert {run_.info.status for run_ in children} == {"FINISHED"}


def test_a_tracking_failure_never_ends_the_study(animals, tmp_path, monkeypatch, capsys) -> None:
    def broken(*args, **kwargs):
        raise ConnectionError("server away")

    monkeypatch.setattr(MlflowClient, "log_batch", broken)
    assert start(animals, tmp_path, "tracking=mlflow", "n_trials=3").findings.trials == 3
    assert capsys.readouterr().err.count("server away") == 1
    monkeypatch.undo()
    start(animals, tmp_path, "tracking=mlflow", "n_trials=3")
    (parent,), children = runs_of(tmp_path)
    assert len(children) == 3
    assert {run_.info.status for run_ in [parent, *children]} == {"FINISHED"}
    assert all("nDCG_at_10" in run_.data.metrics for run_ in children)


def test_calls_that_are_refused_leave_no_run_open(animals, tmp_path, monkeypatch) -> None:
    start(animals, tmp_path, "tracking=mlflow", "n_trials=3")
    client = MlflowClient(f"sqlite:///{tmp_path}/studies/mlflow.db")
    lost = runs_of(tmp_path)[1][0].info.run_id
    client.update_run(lost, status="RUNNING")
    ended, refused = MlflowClient.set_terminated, list[str]()

    def terminate(self, run_id: str, *args, **kwargs) -> None:
        # Once as the study opens, and once more as it ends.
        if run_id == lost and len(refused) < 2:
            refused.append(run_id)
            raise ConnectionError("just back")
        ended(self, run_id, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "set_terminated", terminate)
    start(animals, tmp_path, "tracking=mlflow", "n_trials=3")
    assert refused == [lost, lost]
    assert {run_.info.status for run_ in runs_of(tmp_path)[1]} == {"FINISHED"}


def test_an_unusable_tracking_uri_never_ends_the_study(animals, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert (
        start(
            animals, tmp_path, "tracking=mlflow", f"tracking.uri=sqlite:///{tmp_path}/file/mlflow.db", "n_trials=2"
        ).findings.trials
        == 2
    )


# ---- storage


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the study file is empty"),
        (b"not a database, but long enough to be looked at" * 30, "can't be used as a study file"),
    ],
)
def test_a_study_file_that_is_none_is_refused_and_left_alone(animals, tmp_path, content: bytes, message: str) -> None:
    path = tmp_path / "studies" / "animals" / "study.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StorageError, match=message):
        start(animals, tmp_path)
    assert path.read_bytes() == content


def test_a_zeroed_page_is_noticed(animals, two) -> None:
    path = two / "studies/animals/study.db"
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged|can't be used"):
        start(animals, two)


@pytest.mark.parametrize("url", ["nonsense", "postgresql://user:secret@127.0.0.1:1/none", "mystery://x/y"])
def test_a_storage_that_can_not_be_opened_is_said_without_its_password(
    animals, tmp_path, url: str, monkeypatch
) -> None:
    monkeypatch.setattr("rag_opt.storages.databases.FIRST_PATIENCE", 1.0)
    with pytest.raises(StorageError, match="storage.url") as caught:
        start(animals, tmp_path, f"storage.url='{url}'")
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_a_file_is_said(animals, tmp_path) -> None:
    (tmp_path / "studies").write_text("")
    with pytest.raises(StudyError, match="can't be written"):
        start(animals, tmp_path)


def test_a_database_of_something_else_is_left_alone(animals, tmp_path) -> None:
    import sqlite3

    path = tmp_path / "studies/animals/study.db"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    with pytest.raises(StorageError, match="no Optuna study"):
        start(animals, tmp_path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("users",)]


def test_a_study_of_another_program_is_refused(animals, tmp_path) -> None:
    folder = tmp_path / "studies/animals"
    folder.mkdir(parents=True)
    other = optuna.create_study(study_name="animals", storage=f"sqlite:///{folder}/study.db", direction="maximize")
    other.tell(other.ask(), 1.0)
    with pytest.raises(DriftError, match="another program"):
        start(animals, tmp_path)


@pytest.mark.long
def test_qmc_draws_what_trial_0_lacks_anew_for_every_trial(animals, tmp_path) -> None:
    start(animals, tmp_path, "sampler=qmc", "n_trials=30", "retriever=hybrid", "retriever.fusion=rrf", "reranker=none")
    start(
        animals,
        tmp_path,
        "sampler=qmc",
        "n_trials=25",
        "name=cond",
        *own_space(
            tmp_path,
            {
                "retriever": "choice(hybrid, bm25, dense)",
                "retriever.fusion": {"values": "choice(rrf, weighted)", "when": {"retriever": "hybrid"}},
                "retriever.hybrid_weight": {
                    "values": "interval(0, 1)",
                    "when": {"retriever": "hybrid", "retriever.fusion": "weighted"},
                },
            },
        ),
        "seeds=[]",
    )
    study = study_of(tmp_path, "cond")
    weights = [t.params["retriever.hybrid_weight"] for t in study.trials if "retriever.hybrid_weight" in t.params]
    assert len(weights) > 3
    assert len(set(weights)) == len(weights)


def test_a_failure_outside_a_trial_closes_the_parent_run(animals, tmp_path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scorebook, "write_scores", full)
    with pytest.raises(StudyError, match="No space left on device"):
        start(animals, tmp_path, "tracking=mlflow", "n_trials=3")
    monkeypatch.undo()
    (parent,), _ = runs_of(tmp_path)
    assert parent.info.status == "FAILED"
    start(animals, tmp_path, "tracking=mlflow", "n_trials=3")
    (parent,), children = runs_of(tmp_path)
    assert {run_.info.status for run_ in [parent, *children]} == {"FINISHED", "FAILED"}
    assert parent.info.status == "FINISHED"


def test_trials_logged_while_there_was_no_parent_are_logged_once(animals, tmp_path, monkeypatch) -> None:
    def broken(*args, **kwargs):
        raise ConnectionError("server away")

    monkeypatch.setattr(MlflowClient, "create_run", broken)
    start(animals, tmp_path, "tracking=mlflow", "n_trials=3")
    monkeypatch.undo()
    start(animals, tmp_path, "tracking=mlflow", "n_trials=4")
    (parent,), children = runs_of(tmp_path)
    assert len(children) == 4
    assert {run_.data.tags["mlflow.parentRunId"] for run_ in children} == {parent.info.run_id}


def test_secrets_in_a_storage_url_stay_out_of_commands() -> None:
    command = experiments.format_replay_command(
        ["retriever=bm25", "storage.url=postgresql://u:secret@h/d", "tracking.uri=http://u:secret@h", "split=test"]
    )
    assert command == "python -m rag_opt.trial retriever=bm25"


# ---- wiring


def test_bm25_alone_never_embeds_and_hybrid_uses_both(animals, store) -> None:
    def parts(*words: str) -> set[str]:
        pipeline = build_pipeline(compose_trial([*animals, *words]), Resources.from_store(store))
        return {part.name for part in pipeline.parts}

    assert "chunk_embedder" not in parts("retriever=bm25")
    assert "bm25_indexer" not in parts("retriever=dense")
    assert {"bm25_retriever", "dense_retriever", "fusion", "chunk_embedder"} <= parts("retriever=hybrid")
    hybrid = {part.name: part for part in build_pipeline(compose_trial([*animals]), Resources.from_store(store)).parts}[
        "fusion"
    ]
    assert set(hybrid.inputs) == {"bm25_ranking", "dense_ranking"}
    assert "mmr" in parts("reranker=mmr")


def test_a_pipeline_survives_haystacks_save_and_load(animals, store) -> None:
    from haystack import Pipeline

    for words in (["retriever=hybrid", "reranker=mmr"], ["splitter=semantic"], ["index=chroma", "retriever=dense"]):
        pipeline = build_pipeline(compose_trial([*animals, *words]), Resources.from_store(store))
        for part in (pipeline.indexing, pipeline.querying):
            again = Pipeline.loads(part.dumps(), allowed_modules=["rag_opt.*"])
            before, after = yaml.safe_load(part.dumps()), yaml.safe_load(again.dumps())
            for saved in (before, after):
                saved["connections"].sort(key=str)
            assert before == after


# ---- the store


def measured_values(studies: Path) -> list[tuple]:
    return [(t.params, t.values, t.user_attrs["metrics"]) for t in study_of(studies).trials]


def test_a_warm_store_gives_what_an_empty_one_gives_to_the_bit(animals, tmp_path) -> None:
    """With a model, and with a store that another chunking and another study have filled."""
    words = ["embedder=minilm", "splitter=word", "splitter.chunk_size=9", "pruner=none", "reranker=mmr", "n_trials=5"]
    metrics = "objective.report=[RR@10,tokens,F1]"
    shared = f"store.path={tmp_path}/store"
    start(animals, tmp_path / "empty", *words, metrics)
    start(animals, tmp_path / "other", *words, "splitter.chunk_size=5", metrics, shared)
    start(animals, tmp_path / "first", *words, metrics, shared)
    start(animals, tmp_path / "again", *words, metrics, shared)
    expected = measured_values(tmp_path / "empty")
    assert measured_values(tmp_path / "first") == expected
    assert measured_values(tmp_path / "again") == expected


def test_a_second_study_over_the_same_texts_embeds_nothing(animals, tmp_path, monkeypatch) -> None:
    encoded: list[str] = []
    kept: list[str] = []
    encode, keep = Hashing.encode, EmbeddingCache._encode_block

    def encoding(self: Hashing, texts: list[str]) -> Floats:
        encoded.extend(texts)
        return encode(self, texts)

    def keeping(self: EmbeddingCache, names: Sequence[str], wanted: dict[str, str]) -> None:
        if self.folder is not None:
            kept.extend(wanted[name] for name in names)
        keep(self, names, wanted)

    monkeypatch.setattr(Hashing, "encode", encoding)
    monkeypatch.setattr(EmbeddingCache, "_encode_block", keeping)
    questions = {question["question"] for question in QUESTIONS}

    def rows() -> list[str]:
        """Of each vector in the store the name of its text."""
        paths = (tmp_path / "store" / "vectors").rglob("*.arrow")
        return [name for path in paths for name in read_table(path).columns["name"]]

    shared = f"store.path={tmp_path}/store"
    start(animals, tmp_path / "first", shared, "n_trials=4")
    assert len(kept) == len(set(kept)) == 6 + 10
    assert questions <= set(kept)
    assert sorted(rows()) == sorted(map(hash_text, kept))
    texts = set(kept) - questions
    assert [encoded.count(text) for text in texts] == [1] * 6
    kept.clear()
    encoded.clear()
    start(animals, tmp_path / "second", shared, "n_trials=4", "seed=3")
    start(animals, tmp_path / "third", shared, "n_trials=4", "splitter=word", "splitter.chunk_size=500")
    assert kept == []
    # What is encoded to be timed, one question at a time with nothing cached, is not kept.
    assert {text.removesuffix(" ") for text in encoded} <= questions
    # Another seed keeps other questions to confirm: a set of questions is a block of its own, copied, not encoded.
    counted = Counter(rows())
    assert set(counted) == {hash_text(text) for text in texts | questions}
    assert [counted[hash_text(text)] for text in texts] == [1] * 6
    assert [counted[hash_text(text)] for text in questions] == [2] * 10


def test_finalists_are_timed_with_nothing_cached(eight, animals, tmp_path) -> None:
    from rag_opt.study.plan import build_plan

    plan = build_plan([*animals, f"studies_dir={tmp_path}", f"store.path={tmp_path}/store"])
    hybrid = plan.dev.compose_overrides(["retriever=hybrid"])
    plan.dev.measure_config(hybrid)
    pipeline = plan.dev.make_pipeline(hybrid)
    seen = []
    for part in pipeline.parts:
        if part.name == "query_embedder":
            part.component.encoder.encode = lambda texts: [seen.extend(texts), Hashing(512).encode(texts)][1]
    from rag_opt.evaluation.latency import time_pipeline

    latency = time_pipeline(pipeline, plan.dev.questions)
    asked = [query.text for query in plan.dev.questions.queries.items]
    assert latency.questions == len(asked)
    assert seen[-len(asked) :] == asked
    assert 0 < latency.p50 <= latency.p95 < 1
    place, outcome = eight
    assert outcome.findings.best is not None
    text = (place / "studies" / "animals" / "report.md").read_text()
    assert "nothing cached" in text


def test_a_wrong_limit_of_the_store_is_refused(animals, tmp_path) -> None:
    with pytest.raises(ConfigError, match="store.limit_gb=-1"):
        start([*animals, "store.limit_gb=-1"], tmp_path)
    assert not (tmp_path / "studies").exists()


def test_threads_are_those_of_a_replay_and_of_a_question_too(animals, tmp_path, monkeypatch) -> None:
    from rag_opt.cli import ask, trial
    from rag_opt.system import environment

    used: list[int | None] = []
    monkeypatch.setattr(environment, "use_threads", used.append)
    words = [*animals, f"studies_dir={tmp_path}", f"store.path={tmp_path}/store", "retriever=bm25", "threads=1"]
    trial.measure_configuration(words)
    ask.answer_question([*words, "question='Who purrs?'"])
    assert used == [1, 1]
