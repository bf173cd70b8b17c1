"""A user's own documents.jsonl and questions.jsonl, every key optional but the texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rag_opt.datasets.beir import evidence_of
from rag_opt.datasets.checks import Judgement, checked
from rag_opt.datasets.files import Row, existing, identifier, json_lines, text, texts
from rag_opt.errors import DatasetError
from rag_opt.records import Dataset, Document, Query

LARGEST_GRADE = 10**9
"""What the measures count with has 32 bits."""


def load(documents: str | None, questions: str | None) -> Dataset:
    """The dataset of two files.

    documents: {"text", "id"? (default: line number from 1), "title"?}
    questions: {"question", "relevant"? [document id, …] or {id: grade}, "answer"? or "answers"?, "evidence"?, "id"?}
    """
    corpus, asked = existing(documents, "dataset.documents"), existing(questions, "dataset.questions")
    rows = [(where, _with_id(row, where)) for where, row in json_lines(asked)]
    queries = [_query(row, where) for where, row in rows]
    judgements = [judgement for where, row in rows for judgement in _judgements(row, where)]
    return checked(asked.stem, _documents(corpus), queries, judgements)


def _documents(path: Path) -> Iterator[Document]:
    for where, given in json_lines(path):
        row = _with_id(given, where)
        yield Document(identifier(row, where, "id", "_id"), text(row, where, "text"), text(row, where, "title", ""))


def _with_id(row: Row, where: str) -> Row:
    return row if "id" in row or "_id" in row else {**row, "id": int(where.rpartition(":")[2])}


def _query(row: Row, where: str) -> Query:
    question = text(row, where, "question" if "question" in row else "text")
    answers = texts(row, where, "answers" if "answers" in row else "answer")
    return Query(identifier(row, where, "id", "_id"), question, answers, tuple(evidence_of(row, where)))


def _judgements(row: Row, where: str) -> Iterator[Judgement]:
    query_id = identifier(row, where, "id", "_id")
    relevant = row.get("relevant")
    if relevant is None:
        named = dict.fromkeys((span.document_id for span in evidence_of(row, where)), 1)
    elif isinstance(relevant, dict):
        named = relevant
    else:
        listed = relevant if isinstance(relevant, list) else [relevant]
        named = {identifier({"relevant": each}, where, "relevant"): 1 for each in listed}
    for document_id, grade in named.items():
        if type(grade) is not int or abs(grade) >= LARGEST_GRADE:
            raise DatasetError(
                f"{where}: the grade of document '{document_id}' must be a whole number of nine digits at most, not "
                f"{grade!r}"[:300]
            )
        yield Judgement(query_id, str(document_id), grade)
