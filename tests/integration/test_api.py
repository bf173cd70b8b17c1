"""The front door from Python: what is given, what comes back, and that a command line knows the same study."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml

import rag_opt
from rag_opt.api.inputs import convert_metric, convert_space
from rag_opt.errors import ConfigError, DriftError, MetricError, StudyError
from tests.conftest import animals_study
from tests.integration.commands import finished

DOCUMENTS = [
    {"id": "cats", "text": "Cats purr when they are content. A cat sleeps most of the day."},
    {"id": "dogs", "text": "Dogs bark at strangers. A dog needs long walks every day."},
    {"id": "bees", "text": "Bees make honey from nectar. A queen bee lays all the eggs."},
]
QUESTIONS = [
    {"question": "Which animal purrs?", "relevant": ["cats"]},
    {"question": "What does a dog need every day?", "relevant": ["dogs"]},
    {"question": "Who lays the eggs in a hive?", "relevant": ["bees"]},
    {"question": "What is honey made from?", "relevant": ["bees"]},
]
SMALL = ("embedder=hashing", "tracking=none", "threads=1", "dataset.test_share=0.5")


def optimized(folder: Path, **given: object) -> rag_opt.Study:
    whole = {"documents": DOCUMENTS, "questions": QUESTIONS, "n_trials": 5, "studies_dir": folder, "overrides": SMALL}
    return rag_opt.optimize(**whole | given)


def read(space: dict[str, object], folder: Path) -> dict[str, object]:
    convert_space(space, folder).write()
    (path,) = (folder / "conf/search_space").iterdir()
    return yaml.safe_load(path.read_text("utf-8"))


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, rag_opt; print([m for m in ('torch', 'optuna', 'haystack', 'mlflow', 'numpy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert {*rag_opt.__all__} <= {*dir(rag_opt)}
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        rag_opt.optimise  # noqa: B018


@pytest.mark.integration
def test_a_study_of_rows_is_found_resumed_and_asked(tmp_path: Path) -> None:
    space = {
        "retriever": ["bm25", "dense", "hybrid"],
        "retriever.k1": (0.4, 3.0),
        "retriever.hybrid_weight": (0.0, 1.0),
    }
    study = optimized(tmp_path, space=space, overrides=[*SMALL, "generator=extractive"])
    table = study.trials_dataframe()
    assert len(table) == 5
    assert table["param.retriever.hybrid_weight"].notna().tolist() == [
        retriever == "hybrid" for retriever in table["param.retriever"]
    ]
    found = study.best_pipeline().run({"query": "Which animal purrs?"})["rag"]
    assert found["documents"][0].meta["document_id"] == "cats"
    assert "purr" in found["answer"]
    assert "nDCG@10" in str(study.result)
    assert "<b>" in study._repr_html_()
    again = rag_opt.load_study(tmp_path / "study")
    assert again.result.overrides == study.result.overrides
    longer = optimized(tmp_path, space=space, overrides=[*SMALL, "generator=extractive"], n_trials=7)
    pd.testing.assert_frame_equal(longer.trials_dataframe().loc[:4, table.columns], table)


@pytest.mark.integration
def test_the_command_line_opens_it_and_the_other_way_round(animals: list[str], tmp_path: Path) -> None:
    study = optimized(tmp_path / "studies", documents=pd.DataFrame(DOCUMENTS), questions=pd.DataFrame(QUESTIONS))
    done = finished(tmp_path, "studies/study", module="rag_opt.report")
    assert done.returncode == 0, done.stderr
    assert str(study.result).splitlines()[0] in done.stdout
    animals_study(animals, tmp_path, "n_trials=4")
    assert len(rag_opt.load_study(tmp_path / "studies/animals").trials_dataframe()) >= 4


@pytest.mark.integration
def test_a_function_and_a_sampler_may_be_python_objects(tmp_path: Path) -> None:
    def read_texts(case: rag_opt.Case) -> float:
        return float(len(case.contexts))

    drawn: list[int] = []

    class Counting(optuna.samplers.RandomSampler):
        def sample_relative(self, study, trial, search_space):
            drawn.append(trial.number)
            return super().sample_relative(study, trial, search_space)

    given = {"metric": read_texts, "sampler": Counting(seed=1)}
    space = {"retriever": ["bm25", "dense"], "retriever.top_k": (1, 3)}
    study = optimized(tmp_path, space=space, **given)
    assert drawn
    assert study.trials_dataframe()["objective.read_texts"].max() == 3.0
    with pytest.raises(ConfigError, match="other processes can't have the metric"):
        optimized(tmp_path, space=space, **given, overrides=[*SMALL, "n_workers=2"])
    with pytest.raises(MetricError, match="was given to rag_opt.optimize in Python"):
        optimized(tmp_path, overrides=[*SMALL, *convert_metric(read_texts, None)])


@pytest.mark.integration
def test_a_study_that_has_ended_is_not_kept_in_memory(animals: list[str], tmp_path: Path) -> None:
    def count_open() -> int:
        gc.collect()
        return sum(type(each).__name__ == "PatientStorage" for each in gc.get_objects())

    animals_study(animals, tmp_path, "name=first", "n_trials=2")
    before, frozen = count_open(), gc.get_freeze_count()
    for name in ("second", "third"):
        animals_study(animals, tmp_path, f"name={name}", "n_trials=2")
    assert count_open() <= before
    assert gc.get_freeze_count() <= frozen


def test_it_works_in_a_thread_and_twice_in_one_process(tmp_path: Path) -> None:
    found: list[rag_opt.Study] = []
    for number in range(2):
        thread = threading.Thread(
            target=lambda number=number: found.append(
                optimized(tmp_path, name=f"s{number}", space={"retriever": ["bm25", "dense"]}, n_trials=2)
            )
        )
        thread.start()
        thread.join()
    assert [study.name for study in found] == ["s0", "s1"]


def test_a_dict_is_a_space(tmp_path: Path) -> None:
    space = {
        "retriever": ["bm25", "dense", "hybrid"],
        "retriever.top_k": (3, 20),
        "retriever.k1": (0.4, 3),
        "retriever.hybrid_weight": {"values": (0.1, 0.9), "when": {"retriever": "hybrid"}},
        "splitter.chunk_size": "tag(log, interval(20, 200))",
        "prompt": ["a b", None, True],
    }
    assert read(space, tmp_path) == {
        "retriever": "choice(bm25, dense, hybrid)",
        "retriever.top_k": "range(3, 21)",
        "retriever.k1": {"values": "interval(0.4, 3.0)", "when": {"retriever": ["bm25", "hybrid"]}},
        "retriever.hybrid_weight": {"values": "interval(0.1, 0.9)", "when": {"retriever": "hybrid"}},
        "splitter.chunk_size": "tag(log, interval(20, 200))",
        "prompt": "choice('a b', null, true)",
    }
    assert read({"a": [np.int64(20), np.float64(0.5)], "b": (np.int64(1), np.int64(3))}, tmp_path / "numpy") == {
        "a": "choice(20, 0.5)",
        "b": "range(1, 4)",
    }
    with pytest.raises(ConfigError, match=r"space: retriever.k1: 3: a list of choices"):
        read({"retriever.k1": 3}, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"documents": 7}, "documents: a path, a list of dicts"),
        ({"documents": ["Cats purr."]}, "documents: row 1 is a str, where a dict is expected"),
        ({"documents": [{"id": "a", "text": object()}]}, "documents: row 1 can't be written as JSON"),
        ({"questions": None}, "questions: none were given"),
        ({"name": "../../evil"}, "name='../../evil': a study's name is its folder's name"),
        ({"name": "/tmp/evil"}, "name='/tmp/evil': a study's name is its folder's name"),
        ({"sampler": 7}, "sampler: a name such as 'tpe', or an Optuna sampler is expected, not 7"),
        (
            {"space": {"retriever": ["bm25"]}, "overrides": [*SMALL, "+experiment=quickstart"]},
            r"space: retriever: with \+experiment=quickstart the configuration's own is hybrid",
        ),
    ],
)
def test_what_can_not_be_read_is_refused_and_nothing_written(
    given: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        optimized(tmp_path / "a" / "studies", **given)
    assert list(tmp_path.rglob("*.*")) == []


class Columns:
    """Rows as a dataset of Hugging Face has them: iterated as dicts, `to_dict` gives columns."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows
        self.column_names = [*rows[0]]

    def __iter__(self):
        return iter(self.rows)

    def to_dict(self):
        return {name: [row[name] for row in self.rows] for name in self.column_names}


@pytest.mark.integration
@pytest.mark.parametrize(("name", "place"), [("3.10", "studies"), ("null", "my dir (1)"), ("42", "Jürgen's, v2")])
def test_names_and_folders_are_taken_as_they_are(name: str, place: str, tmp_path: Path) -> None:
    questions = [{**row, "answer": None} for row in QUESTIONS]
    study = optimized(
        tmp_path / place, name=name, documents=Columns(DOCUMENTS), questions=Columns(questions), n_trials=1
    )
    assert (study.name, study.folder) == (name, tmp_path / place / name)


@pytest.mark.integration
def test_other_rows_and_another_space_are_refused_and_take_nothing_from_the_study(tmp_path: Path) -> None:
    space = {"retriever": ["bm25", "dense"], "retriever.k1": (0.4, 3.0)}
    optimized(tmp_path, space=space, n_trials=3)
    given = [*tmp_path.rglob("data/*/*.jsonl"), *tmp_path.rglob("search_space/given-*.yaml")]
    before = {path: path.read_text("utf-8") for path in given}
    assert len(before) == 3
    for changed in (
        {"documents": [*DOCUMENTS, {"id": "x", "text": "Another text."}]},
        {"space": {"retriever": ["bm25"]}},
    ):
        with pytest.raises((DriftError, ConfigError)):
            optimized(tmp_path, **{"space": space, "n_trials": 4} | changed)
    assert {path: path.read_text("utf-8") for path in before} == before
    (continued,) = [line for line in commands_of(tmp_path / "study") if line.startswith("continue")]
    again = optimized(tmp_path, space=space, n_trials=4)
    assert len(again.trials_dataframe()) >= 4
    assert "search_space=given-" in continued


def commands_of(folder: Path) -> list[str]:
    found = rag_opt.load_study(folder).findings.commands
    return [f"{label}: {command}" for label, command in found.items()]


@pytest.mark.integration
def test_the_best_pipeline_works_with_the_studys_own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = optimized(
        Path("elsewhere"), space={"retriever": ["dense"], "retriever.top_k": (1, 2)}, metric="context.R@5"
    )
    study.best_pipeline()
    assert not (tmp_path / "studies").exists(), "the default's place"


@pytest.mark.integration
def test_a_direction_alone_turns_the_default_objective_round(tmp_path: Path) -> None:
    study = optimized(tmp_path, direction="minimize", n_trials=2)
    assert study.optuna_study.direction == optuna.study.StudyDirection.MINIMIZE


@pytest.mark.integration
def test_a_study_none_of_whose_trials_is_complete_is_an_error(tmp_path: Path) -> None:
    def broken(case: rag_opt.Case) -> float:
        raise ValueError(case.question)

    with pytest.raises(StudyError, match="No trial was completed"):
        optimized(tmp_path, metric=broken, space={"retriever": ["bm25", "dense"]}, n_trials=2)


@pytest.mark.integration
def test_a_password_of_the_storage_is_no_obstacle(tmp_path: Path, postgres) -> None:
    url = postgres.database("door").replace("://rag_opt@", "://rag_opt:secret@")
    study = optimized(tmp_path, n_trials=2, overrides=[*SMALL, f"storage.url={url}"])
    assert len(study.trials_dataframe()) >= 2
    assert "secret" not in repr(study)


def test_a_parameter_exists_with_every_choice_that_any_of_our_spaces_has_it_for(tmp_path: Path) -> None:
    rows = {"retriever": ["dense", "hybrid_web"], "retriever.k1": (0.4, 3.0), "retriever.hybrid_weight": (0.0, 1.0)}
    space: Any = read(rows, tmp_path)
    assert space["retriever.k1"]["when"] == {"retriever": ["hybrid_web"]}
    assert space["retriever.hybrid_weight"]["when"] == {"retriever": ["hybrid_web"]}


def test_a_space_that_was_edited_since_is_read_anew(tmp_path: Path) -> None:
    choice = tmp_path / "my_conf/search_space/own.yaml"
    choice.parent.mkdir(parents=True)
    words = (*SMALL, f"hydra.searchpath=[file://{tmp_path}/my_conf]")
    for number, searched in enumerate(({"retriever.k1": "choice(0.9, 1.2)"}, {"retriever.b": "choice(0.7, 0.75)"})):
        choice.write_text(yaml.safe_dump(searched), "utf-8")
        study = optimized(
            tmp_path, space="own", name=f"edited{number}", n_trials=2, overrides=(*words, "retriever=bm25")
        )
        assert [f"param.{key}" in study.trials_dataframe() for key in searched] == [True]
