"""What is said of a set of questions: flags of each, what the set covers and can show, the page and the rows it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_opt.cache.store import Store
from rag_opt.cli.questions import main, name_questions
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.datasets.checks import Judgement, build_dataset
from rag_opt.datasets.jsonl import load
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.questions.check import check_questions
from rag_opt.questions.flags import find_copy, find_flags
from rag_opt.records.documents import Document, Query

PUMP = Document(
    "pump", "The pump of the north lift must be bled every six weeks, and before the winter. It holds nine litres."
)
LIFT = Document("lift", "Lift A takes 900 kg. It was built in 1998 by a company from Graz.")
BOILER = Document("boiler", "The boiler is serviced in May, by the company from Graz that has built it.")


def flags(query: Query, relevant: list[Document], ranked: list[Document]) -> dict[str, str]:
    return {flag.name: flag.detail for flag in find_flags(query, relevant, ranked)}


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        ("How often is the pump bled?", "every six weeks", {}),
        ("Which pump of the north lift must be bled every six weeks?", "", {"copied"}),
        ("What does the figure above show?", "", {"dangling"}),
        ("According to the passage, how much does it hold?", "nine litres", {"dangling"}),
        ("What is shown in the following table?", "", {"dangling"}),
        ("Where is the table tennis room?", "", set()),
        ("How much does the pump hold?", "ten litres", {"answer not found"}),
        ("How much does the pump hold?", "It holds about ten litres if it has been filled to the brim.", {}),
        ("HOW OFTEN?", "Every SIX weeks", {}),
    ],
)
def test_a_question_by_itself(question: str, answer: str, found: set[str]) -> None:
    query = Query("1", question, (answer,) if answer else ())
    assert set(flags(query, [PUMP], [])) == set(found)


def test_an_answer_that_stands_elsewhere_is_shown_with_its_place() -> None:
    query = Query("1", "Who has built the boiler?", ("a company from Graz", "company from Graz"))
    assert flags(query, [BOILER], [LIFT]) == {"answered elsewhere": "lift"}
    assert flags(query, [BOILER], []) == {}


def test_a_copy_is_the_longest_run() -> None:
    text = "one two three four five six seven eight nine ten"
    assert find_copy("please: two three four five six seven eight", [text]) == "two three four five six seven eight"
    assert find_copy("two three four five six", [text]) == ""
    assert find_copy("a b c d e f two three four five six seven", [text]) == ""
    assert find_copy("", [text]) == ""


def test_a_set_as_a_whole() -> None:
    queries = [
        Query("a", "How often is the pump bled?", ("every six weeks",)),
        Query("b", "How often is the PUMP bled", ("every six weeks",)),
        Query("c", "When is the boiler serviced?", ("May",)),
    ]
    judgements = [Judgement("a", "pump", 1), Judgement("b", "pump", 1), Judgement("c", "boiler", 2)]
    dataset = build_dataset("lifts", [PUMP, LIFT, BOILER], queries, judgements)
    check = check_questions(dataset, [], Resources.from_store(Store()))
    assert check.counts == {"repeated": 1}
    assert [each.accepted for each in check.questions] == [True, False, True]
    assert check.different == 2
    assert check.covered == pytest.approx(2 / 3)
    assert check.crowded == pytest.approx(2 / 3)
    assert [each.rank for each in check.questions] == [1, 1, 1]
    assert check.first == 1.0
    assert check.mean == 1.0
    assert check.detectable == 0.0, "all are found first, so nothing spreads"


def test_the_files_it_leaves_are_what_a_study_reads(animals: list[str], tmp_path: Path, capsys) -> None:
    named = [word for word in animals if word.startswith("dataset")]
    (given,) = (word.removeprefix("dataset.questions=") for word in named if word.startswith("dataset.questions="))
    first = json.loads(Path(given).read_text().splitlines()[0])
    questions = tmp_path / "mine.jsonl"
    markup = {**first, "id": "markup", "question": "Is </script><img src=x onerror=alert(1)> an animal?"}
    rows = [*map(json.loads, Path(given).read_text().splitlines()), {**first, "id": "again"}, markup]
    questions.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = [*(word for word in named if not word.startswith("dataset.questions=")), f"dataset.questions={questions}"]
    main(["check", *words, f"store.path={tmp_path}/store", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert f"{len(rows)} questions" in said
    assert "repeated" in said
    page = (tmp_path / "out/questions.html").read_text()
    assert "<img" not in page
    assert "\\u003c/script>" in page
    checked = tmp_path / "out/questions.checked.jsonl"
    dataset = load_dataset(compose_config([*words, f"dataset.questions={checked}"]))
    whole = load_dataset(compose_config(words))
    assert any("rejects (accept: false)" in note for note in dataset.notes)
    assert {query.id for query in whole.queries} - {query.id for query in dataset.queries} == {"again"}
    by_id = {query.id: query for query in whole.queries}
    for query in dataset.queries:
        assert query == by_id[query.id]
        assert dataset.qrels[query.id] == whole.qrels[query.id]


def test_a_row_is_left_out_only_where_it_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl").write_text('{"id": "d", "text": "Cats purr."}\n')
    rows = [json.dumps({"question": "a", "relevant": ["d"], "accept": value}) for value in (True, False, None, "")]
    (tmp_path / "questions.jsonl").write_text("\n".join(rows) + "\n")
    dataset = load(str(tmp_path / "documents.jsonl"), str(tmp_path / "questions.jsonl"))
    assert [query.id for query in dataset.queries] == ["1", "3", "4"]


def test_another_action_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["mend", "docs"])
    assert "one of make, check, import is expected" in capsys.readouterr().err


def test_a_data_set_without_a_file_of_questions_is_named_by_two_and_divided_as_before(tmp_path: Path) -> None:
    place = tmp_path / "questions.jsonl"
    words = ["dataset=python_docs", "dataset.test_share=0.5", "dataset.num_queries=5", "retriever=bm25"]
    named = name_questions(words, place, [Document("d", "Cats purr.")])
    files = [f"dataset.documents={tmp_path / 'documents.jsonl'}", f"dataset.questions={place}"]
    assert named == ["dataset.test_share=0.5", "retriever=bm25", "dataset=jsonl", *files]
    compose_config(named)
    own = ["dataset=jsonl", "dataset.documents=x.jsonl"]
    assert name_questions(own, place, [Document("d", "Cats purr.")]) == [*own, f"dataset.questions={place}"]
