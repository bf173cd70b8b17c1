"""A trial's scores question by question: in the study's database, and for people in trials/<number>/per_query.json.

The form is that of an MLflow table: {"columns": [...], "data": [[...], ...]}, nan as null. What is computed from scores
is computed from the database's. A study made before they were kept there has them from its folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from rag_opt.config.settings import get_trial_folder
from rag_opt.storages import archive

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores
    from rag_opt.records.scores import Evaluation

FILE = archive.SCORES
RETRIEVED = "retrieved"
"""The column that is most of the file, and from which nothing is computed."""

TEXTS = ("query_id", RETRIEVED, "answer")
"""Columns that are no scores."""

EXACT = 1e-9
"""Scores are the trial's if their mean is its value, so exactly."""

UNREADABLE = (OSError, ValueError, TypeError, LookupError, RecursionError)
"""What reading a book may raise: it may come from elsewhere."""


@dataclass(frozen=True)
class Book:
    """Questions in the order in which they are asked, and by metric their scores, float64."""

    ids: tuple[str, ...]
    scores: Mapping[str, Scores]

    def matches(self, trial: FrozenTrial, targets: Sequence[str]) -> bool:
        """Whether these are the scores that a complete trial's values are the means of; `targets` name the values."""
        return all(
            name in self.scores and math.isclose(_compute_mean(self.scores[name]), value, rel_tol=EXACT, abs_tol=EXACT)
            for name, value in zip(targets, trial.values, strict=False)
        )


def write_scores(folder: Path, number: int, evaluation: Evaluation, *, whole: bool = False) -> bytes:
    """Leave all of an evaluation's scores, what was retrieved and what was answered; gives what the database keeps.

    That is all but what was retrieved, or that too (`whole`).
    """
    found = evaluation
    return write_partial(folder, number, found.query_ids, found.per_query, found.retrieved, found.answers, whole=whole)


def write_partial(
    folder: Path,
    number: int,
    ids: Sequence[str],
    scores: Mapping[str, Scores],
    retrieved: Sequence[Sequence[str]],
    answers: Sequence[str | None],
    *,
    whole: bool = False,
) -> bytes:
    """As `write_scores`, of the questions that were asked before a trial was stopped; a row for each in everything."""
    columns: dict[str, Sequence[Any]] = {name: values.tolist() for name, values in scores.items()}
    columns[RETRIEVED] = [list(row) for row in retrieved]
    if answers:
        columns["answer"] = answers
    body = write_columns(folder, number, ids, columns)
    lean = {name: values for name, values in columns.items() if name != RETRIEVED}
    return body if whole else _serialize_table(ids, lean)


def write_columns(folder: Path, number: int, ids: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Leave columns of values, one row for each of these queries; gives what was written."""
    body = _serialize_table(ids, columns)
    # Not in one step: what a kill cuts short can't be read, and restore_files writes it anew from the database.
    (get_trial_folder(folder, number) / FILE).write_bytes(body)
    return body


def _serialize_table(ids: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> bytes:
    rows = [list(map(_replace_nan, row)) for row in zip(ids, *columns.values(), strict=True)]
    return json.dumps({"columns": ["query_id", *columns], "data": rows}, ensure_ascii=False).encode()


def read_scores(study: optuna.Study, folder: Path, trial: FrozenTrial, targets: Sequence[str]) -> Mapping[str, Scores]:
    """A complete trial's scores by metric, whose means are its values of these targets; {} where they are lost."""
    found = load_book(study, trial.number)
    if found is None or not found.matches(trial, targets):
        found = read_book_file(folder, trial.number)
    return found.scores if found is not None and found.matches(trial, targets) else {}


def load_book(study: optuna.Study, number: int) -> Book | None:
    """The book of a trial in the database; None without one that can be read."""
    # May be cached: a trial's rows stay once it is told; import_scores, which replaces them, clears the cache.
    known = _books.setdefault(study, {})
    if number not in known:
        try:
            known[number] = _parse_book(archive.load_files(study, [number])[number][FILE])
        except UNREADABLE:
            # One that is not there yet is looked for again.
            return None
        if len(known) > MOST_BOOKS:
            del known[next(iter(known))]
    return known[number]


_books: WeakKeyDictionary[optuna.Study, dict[int, Book]] = WeakKeyDictionary()
"""The last books that each study has given; a study that has ended is not kept for them, with its connections."""

MOST_BOOKS = 256


def read_book_file(folder: Path, number: int) -> Book | None:
    """The book that a trial left in the folder; None without one that can be read."""
    path = get_trial_folder(folder, number) / FILE
    try:
        about = path.stat()
        # Time and size are part of the cache's key, so that a file that was changed is read again.
        return _read_book_file(path.absolute(), about.st_mtime_ns, about.st_size)
    except UNREADABLE:
        return None


@lru_cache(256)
def _read_book_file(path: Path, *_: int) -> Book:
    return _parse_book(path.read_bytes())


def restore_files(study: optuna.Study, folder: Path, numbers: Iterable[int]) -> None:
    """Have these trials' files in the folder say what the database says, where they are missing or damaged."""
    wanted = list(numbers)
    archive.fetch_files(study, folder, wanted)
    for number in wanted:
        kept, there = load_book(study, number), read_book_file(folder, number)
        # Compared as numbers: the folder's file has what was retrieved, too.
        if kept is not None and (there is None or not _is_same(kept, there)):
            archive.write_file(folder, number, FILE, archive.load_files(study, [number])[number][FILE])


def import_scores(study: optuna.Study, folder: Path, number: int) -> None:
    """Have the database hold what a trial has left in the folder, less what was retrieved."""
    found = {name: get_trial_folder(folder, number) / name for name in archive.NAMES}
    files = {name: path.read_bytes() for name, path in found.items() if path.is_file()}
    table = json.loads(files[FILE])
    columns = dict(zip(table["columns"], zip(*table["data"], strict=True), strict=True))
    kept = {name: values for name, values in columns.items() if name not in ("query_id", RETRIEVED)}
    archive.store_files(study, number, {**files, FILE: _serialize_table(columns["query_id"], kept)})
    _books.clear()


def _is_same(one: Book, other: Book) -> bool:
    columns = one.scores.keys() == other.scores.keys() and one.ids == other.ids
    return columns and all(
        np.array_equal(values, other.scores[name], equal_nan=True) for name, values in one.scores.items()
    )


def _parse_book(body: bytes) -> Book:
    table = json.loads(body)
    columns = dict(zip(table["columns"], zip(*table["data"], strict=True), strict=True))
    # NumPy reads null (None) as nan, which is what it was written for.
    scores = {name: np.array(values, np.float64) for name, values in columns.items() if name not in TEXTS}
    return Book(tuple(map(str, columns["query_id"])), scores)


def _compute_mean(values: Scores) -> float:
    # A question that could not be measured is no 0: a trial's value is the mean of the others.
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _replace_nan(value: Any) -> Any:
    # JSON has no nan; Python would write one that other readers refuse.
    return None if isinstance(value, float) and math.isnan(value) else value
