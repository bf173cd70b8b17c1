"""Questions of other programs: each form becomes the rows that studies read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag_opt.cli.questions import main
from rag_opt.datasets.jsonl import load
from rag_opt.errors import DatasetError
from rag_opt.questions.foreign import Imported, import_questions
from rag_opt.records.documents import Document

CATS = Document("cats", "Cats purr when they are\ncontent. A cat sleeps most of the day.")
DOGS = Document("dogs", "Dogs bark at strangers.")
CONTEXT = "Cats purr when they are content."


def imported(path: Path, text: str) -> Imported:
    path.write_text(text, "utf-8")
    return import_questions(str(path), (CATS, DOGS))


RAGAS = {
    "user_input": "Which animal purrs?",
    "reference": "Cats",
    "reference_contexts": [CONTEXT],
    "synthesizer_name": "x",
}
EVIDENCE = [{"doc_id": "cats", "quote": CONTEXT}]
WHOLE = {"id": "q1", "question": "Which animal purrs?", "answers": ["Cats"], "evidence": EVIDENCE}


def test_ragas_as_json_lines_and_as_csv(tmp_path: Path) -> None:
    assert imported(tmp_path / "set.jsonl", json.dumps(RAGAS)).rows == (WHOLE,)
    shown = f"user_input,reference_contexts,reference\nWhich animal purrs?,\"['{CONTEXT}']\",Cats\n"
    assert imported(tmp_path / "set.csv", shown).rows == (WHOLE,)


@pytest.mark.parametrize(
    "given",
    [
        # Haystack's evaluation inputs, by columns.
        {
            "questions": ["Which animal purrs?"],
            "ground_truth_answers": ["Cats"],
            "ground_truth_documents": [[{"content": CONTEXT, "id": "0a"}]],
        },
        # LlamaIndex's LabelledRagDataset.
        {"examples": [{"query": "Which animal purrs?", "reference_answer": "Cats", "reference_contexts": [CONTEXT]}]},
        [{"question": "Which animal purrs?", "ground_truth": "Cats", "contexts": CONTEXT}],
    ],
)
def test_sets_of_answers_and_contexts(given: Any, tmp_path: Path) -> None:
    assert imported(tmp_path / "set.json", json.dumps(given)).rows == (WHOLE,)


def test_llamaindexs_pairs(tmp_path: Path) -> None:
    given = {"queries": {"a": "Which animal purrs?"}, "corpus": {"cats": "…"}, "relevant_docs": {"a": ["cats"]}}
    found = imported(tmp_path / "pairs.json", json.dumps(given))
    assert found.rows == ({"id": "a", "question": "Which animal purrs?", "relevant": ["cats"]},)


def test_a_csv_names_documents_with_marks_between_them(tmp_path: Path) -> None:
    found = imported(tmp_path / "a.csv", "id,question,answer,relevant\n7,Who barks?,Dogs,dogs; cats\n8,,,\n")
    assert found.rows == ({"id": "7", "question": "Who barks?", "relevant": ["dogs", "cats"], "answers": ["Dogs"]},)
    assert found.skipped == 1


def test_a_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "Who barks?"}\n')
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tdogs\t2\n")
    assert import_questions(str(tmp_path), ()).rows == ({"id": "1", "question": "Who barks?", "relevant": {"dogs": 2}},)


def test_contexts_that_are_nowhere_are_counted(tmp_path: Path) -> None:
    found = imported(tmp_path / "set.jsonl", json.dumps({**RAGAS, "reference_contexts": [CONTEXT, "Birds sing."]}))
    assert (found.contexts, found.lost) == (2, 1)
    assert found.rows == (WHOLE,)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", "[1]", "entry 1 is no object"),
        ("a.json", "{", "it is no JSON"),
        ("a.json", '{"a": 1}', "there is no question in it"),
        ("a.csv", "a,b\n1,2\n", "there is no question in it"),
        ("a.jsonl", "[]", "JSON object"),
    ],
)
def test_what_holds_no_question_is_refused(name: str, text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=why):
        imported(tmp_path / name, text)


def test_traces_with_what_people_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource, AssessmentSourceType

    url, before = f"sqlite:///{tmp_path}/mlflow.db", mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(url)
    try:
        mlflow.set_experiment("served")
        asked = ({"query": "Which animal purrs?"}, {"messages": [{"role": "user", "content": "Who barks?"}]})
        for request in asked:
            with mlflow.start_span("ask") as span:
                span.set_inputs(request)
                span.set_outputs({"answer": "…"})
            mlflow.flush_trace_async_logging()
            if "query" in request:
                human = AssessmentSource(AssessmentSourceType.HUMAN, "ann")
                mlflow.log_expectation(trace_id=span.trace_id, name="expected_response", value="Cats", source=human)
    finally:
        mlflow.set_tracking_uri(before)
    main(["import", f"traces:{url}#served", "--out", str(tmp_path)])
    assert "2 questions" in capsys.readouterr().out
    rows = {row["question"]: row for row in map(json.loads, (tmp_path / "questions.jsonl").read_text().splitlines())}
    assert rows["Which animal purrs?"]["answers"] == ["Cats"]
    assert "answers" not in rows["Who barks?"]
    with pytest.raises(DatasetError, match="there is no experiment 'other'"):
        import_questions(f"traces:{url}#other", ())


def test_the_command_finds_contexts_in_documents_and_leaves_what_a_study_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/cats.md").write_text(CATS.text)
    (tmp_path / "set.jsonl").write_text(json.dumps(RAGAS))
    named = ["dataset=folder", f"dataset.path={tmp_path}/docs", f"store.path={tmp_path}/store"]
    main(["import", str(tmp_path / "set.jsonl"), *named, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "1 question: " in said
    assert "1 of 1 contexts found in the documents" in said
    assert "python -m rag_opt.questions check" in said
    (tmp_path / "documents.jsonl").write_text(json.dumps({"id": "cats.md", "text": CATS.text}))
    dataset = load(str(tmp_path / "documents.jsonl"), str(tmp_path / "questions.jsonl"))
    assert dataset.qrels == {"q1": {"cats.md": 1}}
    with pytest.raises(SystemExit):
        main(["import", "dataset=folder"])
    assert "a file, a folder or traces:" in capsys.readouterr().err


def test_a_long_context_is_read(tmp_path: Path) -> None:
    rows = f'question,answer,contexts\nWhich animal purrs?,Cats,"{"x" * 200_000}"\n'
    assert imported(tmp_path / "long.csv", rows).lost == 1
