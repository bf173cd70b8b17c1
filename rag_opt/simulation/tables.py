"""A recorded study as a table: what each configuration scored for each question. Samplers can be replayed on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.study import StudyDirection

from rag_opt.analysis import history
from rag_opt.analysis.finished import open_finished
from rag_opt.config.search_space import Value, suggest_value
from rag_opt.errors import StudyError
from rag_opt.samplers.gaussian_process import compute_distances
from rag_opt.samplers.internals import contains
from rag_opt.samplers.space import Space, infer_space, merge_distributions
from rag_opt.storages.attributes import get_attributes
from rag_opt.storages.trial_files import TrialFiles

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores

SUFFIX = ".parquet"

FEWEST = 10
"""Configurations, and questions, without which a table says nothing of a sampler."""


@dataclass(frozen=True)
class Table:
    """Configurations (parameters that exist, in the order in which they are asked for) and their scores.

    `scores` are configurations × questions, nan where a question could not be measured; `seconds` are each
    configuration's by stage, when nothing is stored.
    """

    name: str
    metric: str
    maximize: bool
    configurations: Sequence[Mapping[str, Value]]
    distributions: Mapping[str, BaseDistribution]
    scores: Scores
    seconds: Sequence[Mapping[str, float]]

    @cached_property
    def space(self) -> Space:
        """The space with its conditions, as the configurations show it."""
        return infer_space(self.configurations, self.distributions)

    @cached_property
    def units(self) -> NDArray[np.float64]:
        """Where the configurations lie in the space."""
        return self.space.to_units(self.configurations)

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        # Equal values give equal bits: units come from one scale, and those of discrete parameters are levels.
        return {row.tobytes(): index for index, row in enumerate(self.units)}

    def compute_values(self, questions: NDArray[np.int_] | None = None) -> Scores:
        """Each configuration's mean over these questions (all: None), to be maximised.

        One that was measured for none of them counts as the worst.
        """
        scores = self.scores if questions is None else self.scores[:, questions]
        known = np.isfinite(scores)
        sums = np.where(known, scores, 0.0).sum(axis=1) * (1 if self.maximize else -1)
        means = np.divide(sums, known.sum(axis=1), out=np.full(len(sums), np.nan), where=known.any(axis=1))
        found: Scores = np.where(np.isnan(means), np.nanmin(means), means)
        return found

    def sample_row(self, trial: Any) -> int:
        """The row of what a trial draws: the configuration itself or, where it was not measured, the nearest."""
        # -1 is ABSENT, as `to_units` has it: the parameter does not exist here.
        row = np.full((1, len(self.space.axes)), -1.0)
        drawn = {}
        for column, (axis, condition) in enumerate(zip(self.space.axes, self.space.conditions, strict=True)):
            # Parents stand before what depends on them, so the row holds all that the condition looks at.
            if condition is None or condition.holds(row)[0]:
                drawn[axis.name] = suggest_value(trial, axis.name, axis.distribution)
                row[0, column] = self.space.to_units([drawn])[0, column]
        known = self._rows.get(row[0].tobytes())
        return self.find_nearest(row) if known is None else known

    def find_nearest(self, row: NDArray[np.float64], but: int | None = None) -> int:
        """The row of the configuration that agrees most, `but` this one."""
        apart = compute_distances(self.space.axes, row, self.units).sum(axis=0)[0]
        if but is not None:
            apart[but] = np.inf
        return int(apart.argmin())

    def compute_surrogate_error(self) -> float:
        """How far a configuration's value is from its nearest neighbour's, in ranges of all values: the mean.

        What replaying a point that was not measured costs in truth; 0 where all values are the same.
        """
        values = self.compute_values()
        others = [self.find_nearest(self.units[row : row + 1], but=row) for row in range(len(values))]
        return float(np.abs(values - values[others]).mean() / (np.ptp(values) or 1.0))

    @property
    def whole(self) -> bool:
        """Whether every configuration of the space was measured."""
        return self.space.listed is not None and len(self.space.listed) <= len(self._rows)


def load_table(place: Path, storage: str | None = None) -> Table:
    """The table in a file, or of a study's folder; raises StudyError where there is none, or too little in it."""
    table = _drop_unmeasured(read_parquet(place) if place.suffix == SUFFIX else build_study_table(place, storage))
    if len(table.configurations) < FEWEST:
        raise StudyError(
            f"{place}: {len(table.configurations)} configurations were measured to the end, a replay needs {FEWEST}; "
            "run more trials, or a grid: search_space=grid sampler=brute_force pruner=none n_trials=400"
        )
    if table.scores.shape[1] < FEWEST:
        raise StudyError(
            f"{place}: {table.metric} was measured for {table.scores.shape[1]} questions, a replay needs {FEWEST}: "
            "half of them stay unseen"
        )
    return table


def _drop_unmeasured(table: Table) -> Table:
    """Without questions, and then configurations, of which less than half was measured."""
    known = np.isfinite(table.scores)
    # Questions first: one that could hardly ever be measured is not to count against the configurations.
    columns = known.mean(axis=0) >= 0.5 if len(known) else np.ones(0, bool)
    enough = known[:, columns].mean(axis=1) >= 0.5 if columns.any() else np.ones(len(known), bool)
    rows = np.flatnonzero(enough).tolist()
    return replace(
        table,
        configurations=[table.configurations[row] for row in rows],
        scores=table.scores[rows][:, columns],
        seconds=[table.seconds[row] for row in rows],
    )


def build_study_table(folder: Path, storage: str | None = None) -> Table:
    """The complete trials of a finished study that keep its constraints, each configuration once.

    Of several objectives the first.
    """
    findings, study = open_finished(folder, storage)
    metric = findings.targets[0]
    rows: dict[tuple[Any, ...], tuple[Mapping[str, Value], Scores, Mapping[str, float]]] = {}
    distributions: dict[str, BaseDistribution] = {}
    trials, files = history.rank_candidates(study), TrialFiles(study, folder)
    for trial in sorted(trials, key=lambda trial: trial.number):
        params = trial.params
        scores = files.load_scores(trial, [metric]).get(metric)
        if scores is None or tuple(params.items()) in rows:
            continue
        distributions = merge_distributions([distributions, trial.distributions])
        rows[tuple(params.items())] = params, scores, get_attributes(trial).seconds
    if trials and not rows:
        raise StudyError(
            f"{folder}: the scores of {metric} question by question are lost: neither its database nor trials/ has them"
        )
    most = max((len(scores) for _, scores, _ in rows.values()), default=0)
    kept = [row for row in rows.values() if len(row[1]) == most]
    return Table(
        name=folder.resolve().name,
        metric=metric,
        maximize=study.directions[0] == StudyDirection.MAXIMIZE,
        configurations=[row[0] for row in kept],
        distributions=distributions,
        scores=np.array([row[1] for row in kept]).reshape(len(kept), most),
        seconds=[row[2] for row in kept],
    )


def write_parquet(table: Table, path: Path) -> None:
    """The table as one Parquet file of numbers and parameters; no text of a question or document is in it."""
    columns = {
        "configuration": [json.dumps(each) for each in table.configurations],
        "scores": list(table.scores.astype(np.float32)),
        "seconds": [json.dumps({stage: round(value, 4) for stage, value in each.items()}) for each in table.seconds],
    }
    about = {
        "name": table.name,
        "metric": table.metric,
        "maximize": table.maximize,
        "distributions": {name: distribution_to_json(each) for name, each in table.distributions.items()},
    }
    made = pa.table(columns).replace_schema_metadata({"rag_opt": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, compression="zstd", compression_level=19)


def read_parquet(path: Path) -> Table:
    """The table of a file that `write_parquet` made; raises StudyError for another one."""
    try:
        found = pq.read_table(path)
        # Arrow's metadata are bytes, or None for none.
        about = json.loads((found.schema.metadata or {})[b"rag_opt"])
        columns = found.to_pydict()
        return _build_table(
            name=about["name"],
            metric=about["metric"],
            maximize=about["maximize"],
            configurations=[json.loads(each) for each in columns["configuration"]],
            distributions={name: json_to_distribution(each) for name, each in about["distributions"].items()},
            scores=_parse_scores(columns["scores"]),
            seconds=[json.loads(each) for each in columns["seconds"]],
        )
    except OSError as error:
        raise StudyError(f"{path}: can't be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StudyError(f"{path}: is not a recorded table ({type(error).__name__}: {str(error)[:200]})") from error


def _build_table(**columns: Any) -> Table:
    """The table of these columns; raises ValueError, TypeError or KeyError where they are none."""
    table = Table(**columns)
    # Both are printed, and the file may come from anybody.
    names = [table.name, table.metric]
    if not isinstance(table.maximize, bool) or not all(isinstance(each, str) and each.isprintable() for each in names):
        raise ValueError("a name and a metric in one line, and whether more is better, are expected")
    if not len(table.configurations) == len(table.scores) == len(table.seconds):
        raise ValueError("a row of scores and of seconds for each configuration is expected")
    for row, given in enumerate(table.configurations):
        if not isinstance(given, dict):
            raise TypeError(f"configuration {row} is none")
        for name, value in given.items():
            # An unknown name raises KeyError, which `read_parquet` turns into a refusal of the file.
            distribution = table.distributions[name]
            if not contains(distribution, value):
                raise ValueError(f"configuration {row}: {name}={value!r} is not among its values")
    for row, taken in enumerate(table.seconds):
        numbers = isinstance(taken, dict) and all(isinstance(each, int | float) for each in taken.values())
        if not numbers or not all(0 <= each < np.inf for each in taken.values()):
            raise ValueError(f"the seconds of configuration {row} are no numbers")
    return table


def _parse_scores(rows: Sequence[Sequence[float]]) -> Scores:
    found: Scores = np.array(rows, np.float64)
    if found.ndim != 2 or np.isinf(found).any():
        raise ValueError("rows of as many finite scores are expected")
    return found
