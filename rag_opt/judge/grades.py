"""Grades that people have given a study's answers: a file to fill in, and what is read of it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.datasets.files import parse_text, read_json_lines, resolve_path
from rag_opt.errors import DatasetError
from rag_opt.metrics.aspects import BEST, FIELDS, WORST

if TYPE_CHECKING:
    from rag_opt.records.documents import Query, Scores

TO_GRADE = "to_grade.jsonl"
COUNT = 40
"""Questions whose answers people are asked to grade."""

Grades = Mapping[tuple[str, str, str], int]
"""By aspect, question's id and answer the grade that a person gave it."""


def read_grades(path: str | Path) -> Grades:
    """The grades in such a file; rows that nobody has graded are skipped.

    Raises DatasetError where it can't be read, a grade is none, or the same answer has two.
    """
    found: dict[tuple[str, str, str], int] = {}
    for where, row in read_json_lines(resolve_path(path, "judge.labels")):
        grade, aspect = row.get("grade"), parse_text(row, where, "aspect", "correctness")
        if aspect not in FIELDS:
            raise DatasetError(f"{where}: aspect '{aspect[:80]}' is none of {', '.join(FIELDS)}")
        if grade is None:
            continue
        # true would pass for a 1.
        if isinstance(grade, bool) or grade not in range(WORST, BEST + 1):
            raise DatasetError(f"{where}: grade {str(grade)[:80]} is no whole number from {WORST} to {BEST}")
        key = aspect, parse_text(row, where, "id"), parse_text(row, where, "answer")
        if found.setdefault(key, int(grade)) != int(grade):
            raise DatasetError(f"{where}: this answer to question {key[1][:80]} has the grade {found[key]} further up")
    return found


def find_truths(grades: Grades, aspect: str, ids: Sequence[str], answers: Sequence[str | None]) -> Scores:
    """What people gave each answer, float64; nan where nobody has graded it."""
    pairs = zip(ids, answers, strict=True)
    return np.array([grades.get((aspect, name, said or ""), np.nan) for name, said in pairs], np.float64)


def write_to_grade(
    path: Path, aspect: str, queries: Sequence[Query], answers: Sequence[Sequence[str | None]], seed: int
) -> int | None:
    """Write what people may grade: the answers of each configuration to questions drawn at random.

    Equal answers to a question are one row. Rows that the file has already, graded or not, stay as they are, and what
    is new comes after them. Returns how many are not graded yet; a file that can't be read is left alone: None.
    """
    try:
        rows = [row for _, row in read_json_lines(path)] if path.exists() else []
    except DatasetError:
        # Somebody is at work on it.
        return None
    known = {(row.get("aspect", "correctness"), str(row.get("id")), row.get("answer")) for row in rows}
    drawn = sorted(random.Random(seed).sample(range(len(queries)), min(COUNT, len(queries))))
    new: list[dict[str, Any]] = []
    for place in drawn:
        query = queries[place]
        for said in dict.fromkeys(each[place] for each in answers if each[place] is not None):
            if (aspect, query.id, said) not in known:
                told = {"question": query.text, "reference": list(query.answers), "answer": said}
                new.append({"id": query.id, "aspect": aspect, **told, "grade": None})
    # In no order of configurations, so that whoever grades does not see which answer is whose.
    random.Random(seed).shuffle(new)
    if new:
        # An editor may have left the last line without its end.
        before = path.read_text("utf-8") if rows else ""
        with path.open("a", encoding="utf-8") as file:
            file.write("" if before.endswith("\n") or not before else "\n")
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in new)
    return sum(row.get("grade") is None for row in [*rows, *new])
