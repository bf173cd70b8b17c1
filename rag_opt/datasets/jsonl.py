"""A user's own documents.jsonl and questions.jsonl, every key optional but the texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rag_opt.datasets.beir import parse_evidence
from rag_opt.datasets.checks import Judgement, build_dataset, check_flag, exclude_identical
from rag_opt.datasets.files import (
    Row,
    format_unread_keys,
    get_stem,
    parse_body,
    parse_id,
    parse_text,
    parse_texts,
    read_json_lines,
    resolve_path,
)
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Dataset, Document, Query

LARGEST_GRADE = 10**9
"""What the measures count with has 32 bits."""

OF_DOCUMENTS = ("id", "_id", "text", "title")
OF_QUESTIONS = ("id", "_id", "question", "text", "relevant", "answer", "answers", "evidence", "split", "group")
OF_CHECKS = ("accept", "flags", "kind", "difficulty")
"""What making and checking questions adds (rag_opt/questions)."""

MADE = "they rank retrieval settings well, generators less so (arXiv 2508.11758)"
"""What is said of questions that a model has made."""


SINGLE = "of single sentences: confirm what they choose on questions of people"
"""The same of those that `questions make --simple` has made (studies/documents/ranking.md)."""


def load(
    documents: str | None, questions: str | None, *, strict: bool = True, ignore_identical_ids: bool = False
) -> Dataset:
    """The dataset of two files; a name in .gz is unzipped.

    documents: {"text", "id"? (default: line number from 1), "title"?}
    questions: {"question", "relevant"? [document id, …] or {id: grade}, "answer"? or "answers"?, "id"?,
    "evidence"? [{"doc_id", "start", "end"} or {"doc_id", "quote", "page"?}, …],
    "split"? such as dev or test, "group"? of questions that are one observation,
    "accept"? false leaves the question out}
    Keys that are not among these are named. Without `strict` gold that is in no document is left out and counted.
    With `ignore_identical_ids` a document of a question's own id is no hit of it, unless it is relevant.
    """
    check_flag("strict", strict)
    check_flag("ignore_identical_ids", ignore_identical_ids)
    corpus, asked = resolve_path(documents, "dataset.documents"), resolve_path(questions, "dataset.questions")
    queries, judgements, unread = read_questions(asked)
    keys: Counter[str] = Counter()
    found = list(read_documents(corpus, keys))
    notes = [*format_unread_keys(corpus, keys, OF_DOCUMENTS), *unread]
    dataset = build_dataset(get_stem(asked), found, queries, judgements, notes, strict=strict)
    return exclude_identical(dataset) if ignore_identical_ids else dataset


def load_questions(path: Path, documents: Sequence[Document]) -> Dataset:
    """The dataset of a file of questions about these documents; as strict as `load` is.

    Questions without an id get the file's name and their line, which no other file's have.
    """
    return build_dataset(get_stem(path), documents, *read_questions(path, f"{get_stem(path)}:"))


def read_questions(path: Path, prefix: str = "") -> tuple[list[Query], list[Judgement], list[str]]:
    """The queries of a file, their judgements, and a note on keys that are not read."""
    given = list(read_json_lines(path))
    # Questions that people write have no `accept`: only an outright false leaves one out.
    found = [(where, row) for where, row in given if row.get("accept") is not False]
    # `found` stays as it was given: an id that is added here is no key of the file's.
    rows = [(where, _add_id(row, where, prefix)) for where, row in found]
    queries = [_parse_query(row, where) for where, row in rows]
    judgements = [judgement for where, row in rows for judgement in _parse_judgements(row, where)]
    notes = format_unread_keys(path, Counter(key for _, row in found for key in row), (*OF_QUESTIONS, *OF_CHECKS))
    if left := len(given) - len(found):
        notes = [f"{left:,} of {len(given):,} questions left out, which {path.name} rejects (accept: false)", *notes]
    if made := sum(bool(row.get("kind")) for _, row in found):
        single = any(row.get("kind") == "sentence" for _, row in found)
        notes = [*notes, f"{made:,} questions were made by a model: {SINGLE if single else MADE}"]
    return queries, judgements, notes


def read_documents(path: Path, keys: Counter[str]) -> Iterator[Document]:
    for where, given in read_json_lines(path):
        keys.update(given.keys())
        row = _add_id(given, where)
        yield Document(parse_id(row, where, "id", "_id"), parse_body(row, where), parse_text(row, where, "title", ""))


def _add_id(row: Row, where: str, prefix: str = "") -> Row:
    # `where` ends in the number of the line.
    return row if "id" in row or "_id" in row else {**row, "id": f"{prefix}{where.rpartition(':')[2]}"}


def _parse_query(row: Row, where: str) -> Query:
    question = parse_text(row, where, "question" if "question" in row else "text")
    # A null `answers` leaves the `answer`.
    answers = parse_texts(row, where, "answers" if row.get("answers") is not None else "answer")
    split, group = (parse_text(row, where, key, "") for key in ("split", "group"))
    evidence, quotes = parse_evidence(row, where)
    return Query(parse_id(row, where, "id", "_id"), question, answers, evidence, "", split, group, quotes)


def _parse_judgements(row: Row, where: str) -> Iterator[Judgement]:
    query_id = parse_id(row, where, "id", "_id")
    relevant = row.get("relevant")
    if relevant is None:
        # Evidence lies in what is relevant, so where nothing else is named its documents are the gold.
        spans, quotes = parse_evidence(row, where)
        ids = [*(span.document_id for span in spans), *(quote.document_id for quote in quotes)]
        named: dict[str, Any] = dict.fromkeys(ids, 1)
    elif isinstance(relevant, dict):
        named = dict(relevant)
    else:
        listed = relevant if isinstance(relevant, list) else [relevant]
        named = {parse_id({"relevant": each}, where, "relevant"): 1 for each in listed}
    for document_id, grade in named.items():
        whole = isinstance(grade, float) and grade.is_integer()
        if (type(grade) is not int and not whole) or abs(grade) >= LARGEST_GRADE:
            raise DatasetError(
                f"{where}: the grade of document '{document_id}' must be a whole number of nine digits at most, not "
                f"{grade!r}"[:300]
            )
        yield Judgement(query_id, str(document_id), int(grade))
