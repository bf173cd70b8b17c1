"""A pull request's question: whether a change makes answers worse than a study recorded them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag_opt.analysis import paired
from rag_opt.analysis.findings import Findings
from rag_opt.analysis.interchange import read_scores, write_scores
from rag_opt.cli import gate
from rag_opt.cli.study import run_study
from rag_opt.cli.trial import measure_configuration
from rag_opt.config.compose import compose_config
from rag_opt.errors import StudyError
from rag_opt.evaluation.objective import build_objective
from rag_opt.production.gating import (
    PASSED,
    UNDECIDED,
    WORSE,
    Comparison,
    check_measured,
    compare,
    format_summary,
    needs_answers,
    read_recorded,
)
from rag_opt.records.scores import Evaluation
from tests.conftest import DOCUMENTS, QUESTIONS, write_jsonl

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study whose documents may be changed."""
    folder = tmp_path_factory.mktemp("gated")
    files = {"documents": DOCUMENTS, "questions": QUESTIONS}
    words = [f"dataset.{name}={write_jsonl(folder / f'{name}.jsonl', rows)}" for name, rows in files.items()]
    words += [
        "dataset=jsonl",
        "embedder=hashing",
        "splitter=none",
        "retriever=bm25",
        "search_space=retrieval",
        "n_trials=2",
    ]
    run_study([*words, f"studies_dir={folder}", f"store.path={folder}/store", "tracking=none", "name=animals"])
    return folder / "animals"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        gate.main(list(words))
    return int(ended.value.code)


def test_what_is_as_it_was_passes_and_no_answer_is_paid_for(study, tmp_path, capsys) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    paid = ["generator=llm", "llm.base_url=http://127.0.0.1:9/v1", "llm.key=null", "llm.model=x"]
    assert run(str(study), *paid, "--summary", str(summary)) == PASSED
    told = capsys.readouterr().out
    assert "**passed**" in told
    assert "| mean | 0.9950 | 0.9950 | +0.0000 | [+0.0000, +0.0000] | 10 |" in told
    lines = summary.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[1].startswith("### rag_opt: **passed**")


def test_documents_that_were_changed_are_compared_with_what_was_recorded(study, tmp_path, capsys) -> None:
    copy = tmp_path / "gated"
    shutil.copytree(study.parent, copy)
    for file in (copy / "animals").rglob("*"):
        if file.is_file() and file.suffix in (".yaml", ".json"):
            file.write_text(file.read_text().replace(str(study.parent), str(copy)))
    noise = [{"id": row["id"], "text": f"Nothing about that, number {n}."} for n, row in enumerate(DOCUMENTS)]
    write_jsonl(copy / "documents.jsonl", noise)
    assert run(str(copy / "animals")) == WORSE
    told = capsys.readouterr().out
    assert "**worse**" in told
    assert "How do fish breathe?" in told


def test_what_was_recorded_is_what_the_study_measured(study) -> None:
    findings = Findings.read(study)
    recorded = read_recorded(study, findings)
    mean = findings.means[str(findings.confirmation.recommended)]["nDCG@10"]
    assert sum(recorded.values()) / len(recorded) == pytest.approx(mean, abs=1e-9)


def test_answers_are_compared_where_the_objective_is_about_them(study, tmp_path, capsys, monkeypatch) -> None:
    words = ["generator=extractive", "objective=answer", "name=answers", f"studies_dir={tmp_path}", "tracking=none"]
    asked = Findings.read(study).commands["continue"].split()
    run_study([*(word for word in asked[3:] if not word.startswith(("name=", "studies_dir=", "tracking="))), *words])
    folder = tmp_path / "answers"
    findings = Findings.read(folder)
    mean = findings.means[str(findings.confirmation.recommended)]["F1"]
    assert np.mean([*read_recorded(folder, findings).values()]) == pytest.approx(mean, abs=1e-12)
    assert run(str(folder)) == PASSED
    assert f"| mean | {mean:.4f} | {mean:.4f} | +0.0000 |" in capsys.readouterr().out
    # Answers of a single word have less in common with the references.
    assert run(str(folder), "generator.max_tokens=1") != PASSED
    assert "**passed**" not in capsys.readouterr().out

    def answer_few(words: list[str]) -> Evaluation:
        found = measure_configuration(words)
        values = np.where(np.arange(len(found.query_ids)) == 0, found.per_query["F1"], np.nan)
        return replace(found, per_query={**found.per_query, "F1": values}, coverage={**found.coverage, "F1": 0.1})

    monkeypatch.setattr("rag_opt.cli.trial.measure_configuration", answer_few)
    assert run(str(folder)) != PASSED
    assert "can't be compared: F1 could be measured for 10%" in capsys.readouterr().err


def test_what_needs_answers_is_known_by_the_objective() -> None:
    def needs(*words: str) -> bool:
        return needs_answers(build_objective(compose_config(words)))

    assert not needs("objective=ndcg", "generator=extractive")
    assert not needs("objective=evidence")
    assert needs("objective=answer")
    assert needs("objective=ndcg", "objective.constraints=['F1 >= 0.2']", "objective.report=[F1]")
    with pytest.raises(StudyError, match="latency is one figure"):
        needs("objective.metrics=[latency]")


def test_a_comparison_of_the_few_that_were_answered_is_none() -> None:
    objective = build_objective(compose_config(["objective=answer", "objective.report=[]"]))
    values = {"F1": np.array([0.5, *[np.nan] * 4])}
    few = Evaluation(("a", "b", "c", "d", "e"), values, {"F1": 0.5}, {}, coverage={"F1": 0.2})
    with pytest.raises(StudyError, match="can't be compared: F1 could be measured for 20%"):
        check_measured(objective, few)


def test_a_metric_may_be_called_as_the_column_of_ids_is(tmp_path) -> None:
    found = Evaluation(("a", "b"), {"question": np.array([0.1, np.nan]), "x": np.array([1.0, 0.1 + 0.2])}, {}, {})
    write_scores(tmp_path, {"trial 3": found})
    assert read_scores(tmp_path, "trial 3", "question") == {"a": 0.1}
    assert read_scores(tmp_path, "trial 3", "x") == {"a": 1.0, "b": 0.1 + 0.2}
    with pytest.raises(ValueError, match="nDCG"):
        read_scores(tmp_path, "trial 3", "nDCG@10")


def test_what_can_not_be_compared_is_said(study, tmp_path) -> None:
    copy = shutil.copytree(study, tmp_path / "animals")
    shutil.rmtree(copy / "scores")
    with pytest.raises(StudyError, match="can't be read.*run the study's command again"):
        read_recorded(copy, Findings.read(copy))
    other = Evaluation(("x",), {"nDCG@10": np.ones(1)}, {}, {})
    with pytest.raises(StudyError, match="same data set"):
        compare({"q1": 1.0}, other, "nDCG@10", 1.0, 0.02)


def decide(differences: list[float], margin: float = 0.02) -> Comparison:
    names = tuple(f"q{n}" for n in range(len(differences)))
    now = Evaluation(names, {"m": np.array(differences)}, {}, {})
    return compare(dict.fromkeys(names, 0.0), now, "m", 1.0, margin)


@pytest.mark.parametrize(
    ("differences", "status"),
    [
        ([0.0] * 50, PASSED),
        ([0.1] * 30 + [0.0] * 20, PASSED),
        ([-0.3] * 30 + [0.0] * 20, WORSE),
        ([-0.5, 0.5] * 10, UNDECIDED),
        ([-0.01] * 50, PASSED),
    ],
)
def test_the_interval_decides(differences, status) -> None:
    assert decide(differences).status == status


def test_so_many_questions_as_are_said_would_decide() -> None:
    found = decide([-0.3, 0.3, 0.1, -0.1] * 10, 0.05)
    assert found.status == UNDECIDED
    chance, decided = np.random.default_rng(0), 0
    for _ in range(100):
        rows = chance.choice([-0.3, 0.3, 0.1, -0.1], found.needed)
        decided += paired.bootstrap_interval(rows, 0, 500)[0] >= -0.05
    assert 65 <= decided <= 95


def test_less_is_better_where_the_metric_says_so() -> None:
    now = Evaluation(("a", "b"), {"m": np.array([2.0, 3.0])}, {}, {})
    found = compare({"a": 1.0, "b": 1.0}, now, "m", -1.0, 0.02)
    assert found.mean == -1.5
    assert [row[0] for row in found.losses] == ["b", "a"]


def test_a_question_breaks_no_table() -> None:
    found = decide([-1.0, 0.0, -0.5])
    lines = list(format_summary(found, {"q0": "a | b\nc"}, ["x=1"]))
    assert "| a \\| b c | 0.000 | -1.000 |" in lines
    assert "Changed: `x=1`" in lines
