"""Fresh questions beside those that confirm."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_opt.datasets.duplicates import group_by_document
from rag_opt.datasets.fresh import add_fresh
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, Document, Query
from tests.conftest import write_jsonl

DOCUMENTS = (Document("cats", "Cats purr."), Document("dogs", "Dogs bark."))


def part(*texts: str) -> Dataset:
    queries = tuple(Query(f"{text[:4]}{n}", text) for n, text in enumerate(texts))
    return Dataset("animals", DOCUMENTS, queries, {query.id: {"cats": 1} for query in queries})


def fresh_file(folder: Path, *rows: object) -> str:
    return str(write_jsonl(folder / "more.jsonl", [*rows]))


def test_without_a_file_all_stays() -> None:
    test = part("Who purrs?")
    assert add_fresh(part("Who barks?"), test, None) == (test, ())


def test_fresh_questions_stand_behind_the_old_ones_with_their_judgements(tmp_path) -> None:
    given = fresh_file(
        tmp_path,
        {"question": "What sound does a dog make?", "relevant": ["dogs"]},
        {"id": "n2", "question": "Which pet is silent?", "relevant": {"cats": 2}},
    )
    test, notes = add_fresh(part("Who barks?"), part("Who purrs?"), given)
    assert [query.id for query in test.queries] == ["Who 0", "more:1", "n2"]
    assert test.qrels == {"Who 0": {"cats": 1}, "more:1": {"dogs": 1}, "n2": {"cats": 2}}
    assert notes == ("fresh questions of more.jsonl that confirm, too: 2",)


def test_what_the_study_has_asked_is_not_fresh(tmp_path) -> None:
    given = fresh_file(
        tmp_path,
        {"question": "who  barks?", "relevant": ["cats"]},
        {"question": "Who purrs?", "relevant": ["cats"]},
        {"question": "Which pet is silent?", "relevant": ["cats"]},
    )
    dev, test = part("Who barks?"), part("Is it true?", "Who purrs?")
    found, notes = add_fresh(dev, test, given)
    assert [query.text for query in found.queries] == ["Is it true?", "Who purrs?", "Which pet is silent?"]
    assert notes == (
        "fresh questions of more.jsonl that confirm, too: 1; left out, since they repeat, or belong with, the study's own: 2",
    )
    only = fresh_file(tmp_path, {"question": "Who barks?", "relevant": ["cats"]})
    with pytest.raises(
        DatasetError, match=r"dataset\.test=.*every question repeats, or belongs with, one of animals: none is fresh"
    ):
        add_fresh(dev, test, only)


def test_ids_that_are_taken_and_documents_that_are_not_there_are_refused(tmp_path) -> None:
    taken = fresh_file(tmp_path, {"id": "Who 0", "question": "Which pet is silent?", "relevant": ["cats"]})
    with pytest.raises(DatasetError, match=r"animals has questions of the same ids already: 'Who 0'"):
        add_fresh(part("Who barks?"), part("Is it true?"), taken)
    unknown = fresh_file(tmp_path, {"question": "Which pet is silent?", "relevant": ["fish"]})
    with pytest.raises(DatasetError, match="fish"):
        add_fresh(part("Who barks?"), part("Is it true?"), unknown)
    with pytest.raises(DatasetError, match=r"dataset\.test"):
        add_fresh(part("Who barks?"), part("Is it true?"), str(tmp_path / "none.jsonl"))


def test_questions_about_documents_of_the_study_are_not_fresh_where_documents_count(tmp_path) -> None:
    given = fresh_file(
        tmp_path,
        {"question": "Which pet is silent?", "relevant": ["cats"]},
        {"question": "What sound does a dog make?", "relevant": ["dogs"]},
    )
    dev, test = group_by_document(part("Who barks?")), group_by_document(part("Who purrs?"))
    found, _ = add_fresh(dev, test, given, by_document=True)
    assert [query.text for query in found.queries] == ["Who purrs?", "What sound does a dog make?"]
    assert [query.group for query in found.queries] == ["document cats", "document dogs"]
