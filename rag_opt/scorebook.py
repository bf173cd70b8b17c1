"""A trial's scores question by question, as it leaves them in the study's folder: trials/<number>/per_query.json.

The form is that of an MLflow table: {"columns": [...], "data": [[...], ...]}, nan as null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rag_opt.records import Evaluation, Scores
from rag_opt.settings import trial_folder

FILE = "per_query.json"
TEXTS = ("query_id", "retrieved", "answer")
"""Columns that are no scores."""


def write(folder: Path, number: int, evaluation: Evaluation) -> None:
    """Keep all of an evaluation's scores, what was retrieved and what was answered."""
    columns: dict[str, Sequence[Any]] = {name: values.tolist() for name, values in evaluation.per_query.items()}
    columns["retrieved"] = [list(ids) for ids in evaluation.retrieved]
    if evaluation.answers:
        columns["answer"] = evaluation.answers
    write_columns(folder, number, evaluation.query_ids, columns)


def write_columns(folder: Path, number: int, ids: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> None:
    """Keep columns of values, one row for each of these queries."""
    rows = [list(map(_or_null, row)) for row in zip(ids, *columns.values(), strict=True)]
    path = trial_folder(folder, number) / FILE
    path.write_text(json.dumps({"columns": ["query_id", *columns], "data": rows}, ensure_ascii=False), "utf-8")


def read(folder: Path, number: int) -> Mapping[str, Scores]:
    """The scores by metric, float64, in the order in which questions are asked; {} where the trial left none."""
    path = trial_folder(folder, number) / FILE
    try:
        about = path.stat()
        return _read(path.absolute(), about.st_mtime_ns, about.st_size)
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        # As if it were not there: it may come from elsewhere.
        return {}


@lru_cache(256)
def _read(path: Path, *_: int) -> Mapping[str, Scores]:
    table = json.loads(path.read_text("utf-8"))
    columns = zip(table["columns"], zip(*table["data"], strict=True), strict=True)
    return {name: np.array(values, np.float64) for name, values in columns if name not in TEXTS}


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
