"""Results for other tools: finalists as TREC runs with their qrels, and their scores; trials as a table."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from rag_opt.config.overrides import to_config_values
from rag_opt.console.terminal import escape_controls
from rag_opt.storages.attributes import TrialAttributes, get_attributes

if TYPE_CHECKING:
    from rag_opt.records.documents import Qrels
    from rag_opt.records.scores import Evaluation
    from rag_opt.storages.snapshot import Trials

FOLDER, SCORES = "trec", "scores"
"""Folders of a study: the finalists' rankings, and their scores question by question."""

QUESTION = "question"
"""The column of a question's id."""

SHOWN = (TrialAttributes.origin, TrialAttributes.reason, TrialAttributes.repeats, TrialAttributes.command)
"""What is noted of trials and stands in their table as text."""

BREAKING = re.compile(r"[\s%]")


def write_trec(folder: Path, qrels: Qrels, evaluations: Mapping[str, Evaluation]) -> None:
    """Leave qrels.txt, and of each evaluation <name>.run, in the folder.

    The score is 1/rank: those of several stages do not compare, and readers sort by it. Where an id holds white space,
    that and % are written as in URLs, in all files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.run"):
        # Of trials that were finalists once.
        earlier.unlink()
    known = {query for found in evaluations.values() for query in found.query_ids}
    asked = {query: grades for query, grades in qrels.items() if query in known}
    named = _build_escaper(
        [*asked, *known, *(d for each in asked.values() for d in each), *_iterate_retrieved(evaluations.values())]
    )
    lines = [f"{named(q)} 0 {named(d)} {grade}\n" for q, grades in asked.items() for d, grade in grades.items()]
    (folder / "qrels.txt").write_text("".join(lines), "utf-8")
    for name, found in evaluations.items():
        # White space parts a run's columns.
        tag = name.replace(" ", "-")
        rows = zip(found.query_ids, found.retrieved, strict=True)
        # Nine decimals keep ranks apart down to 30,000.
        run = [
            f"{named(query)} Q0 {named(document)} {rank} {1 / rank:.9f} {tag}\n"
            for query, documents in rows
            for rank, document in enumerate(documents, 1)
        ]
        (folder / f"{tag}.run").write_text("".join(run), "utf-8")


def write_scores(folder: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Leave of each evaluation <name>.csv in the folder: a row a question, a column a metric, "" where unmeasured."""
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.csv"):
        earlier.unlink()
    for name, found in evaluations.items():
        with _get_scores_path(folder, name).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow([QUESTION, *found.per_query])
            columns = [each.tolist() for each in found.per_query.values()]
            for query, *values in zip(found.query_ids, *columns, strict=True):
                rows.writerow([query, *("" if math.isnan(value) else value for value in values)])


def read_scores(folder: Path, name: str, metric: str) -> dict[str, float]:
    """By question a metric as `write_scores` left it, where measured; raises OSError or ValueError."""
    with _get_scores_path(folder, name).open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    # By its place: a metric of one's own may be called as the first column is.
    column = names.index(metric, 1)
    return {row[0]: float(row[column]) for row in rows if row[column]}


def _get_scores_path(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '-')}.csv"


def _iterate_retrieved(found: Iterable[Evaluation]) -> Iterable[str]:
    return (document for each in found for documents in each.retrieved for document in documents)


def _build_escaper(ids: Iterable[str]) -> Callable[[str], str]:
    """How ids are written: as they are, unless one of them would end a column."""
    if not any(re.search(r"\s", each) for each in set(ids)):
        return str
    # The percent sign as well, so that no two ids become one.
    return lambda text: BREAKING.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


def build_trials_table(study: Trials, targets: Sequence[str], dev: int) -> pa.Table:
    """A row a trial: number, state, the objectives, parameters, means of all metrics, origin, seconds, command.

    `questions` are those that it was asked: a pruned trial's objective is the mean of these, one of `dev` that of all.
    """
    rows = []
    for trial in study.get_trials(deepcopy=False):
        noted, values = get_attributes(trial), trial.values or []
        rows.append(
            {"number": trial.number, "state": trial.state.name.lower(), "questions": _count_questions(trial, dev)}
            # A failed trial has no values, hence not strict.
            | {f"objective.{name}": value for name, value in zip(targets, values, strict=False)}
            | {f"param.{name}": value for name, value in to_config_values(trial.params).items()}
            | {f"metric.{name}": value for name, value in noted.metrics.items()}
            | {f"seconds.{name}": value for name, value in noted.seconds.items()}
            | {each.name: str(noted.given[each.name]) for each in SHOWN if each.name in noted.given}
        )
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _build_column([row.get(name) for row in rows]) for name in names})


def _count_questions(trial: FrozenTrial, dev: int) -> int | None:
    """The questions that a trial's values are the mean of; None where it has none."""
    found = get_attributes(trial).questions
    return dev if found is None and trial.state == TrialState.COMPLETE else found


def _build_column(values: list[Any]) -> pa.Array:
    """The values as one column; of several types as text."""
    # Exact types: a bool is an int to isinstance, and would be written as a number.
    kinds = {type(value) for value in values if value is not None}
    numbers = kinds <= {int, float}
    if str in kinds or (len(kinds) > 1 and not numbers):
        # Neither file can hold half of a character, which an exception's text may.
        values = [None if value is None else escape_controls(str(value)) for value in values]
    return pa.array([float(v) if v is not None else None for v in values] if kinds == {int, float} else values)


def write_trials(folder: Path, study: Trials, targets: Sequence[str], dev: int) -> None:
    """Leave trials.csv and trials.parquet in the folder; nothing without a trial."""
    table = build_trials_table(study, targets, dev)
    if table.num_rows:
        pa.csv.write_csv(table, folder / "trials.csv")
        pq.write_table(table, folder / "trials.parquet")
