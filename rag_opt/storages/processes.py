"""Which process runs a trial, and which writes its MLflow run."""

from __future__ import annotations

from typing import NamedTuple

from optuna.trial import FrozenTrial

from rag_opt.storages.attributes import get_attributes


class WorkerOrigin(NamedTuple):
    """Who started a worker (its name among those at work), and the parent of the MLflow runs that it writes."""

    name: str = ""
    mlflow: str = ""


NOBODY = WorkerOrigin()


def get_worker(trial: FrozenTrial) -> str:
    """The name of the process that runs the trial; one that nobody has where none has named the trial as its own.

    That is done in its turn, right after the trial was made.
    """
    # Nobody knows such a worker, so the trial of a process that died before it was named counts as a dead one's.
    return str(get_attributes(trial).process.get("worker", "")) or f"nobody-{trial.number}"


def is_named(trial: FrozenTrial) -> bool:
    """Whether a process has named the trial as its own."""
    return bool(get_attributes(trial).process.get("worker"))


def get_worker_origin(trial: FrozenTrial) -> WorkerOrigin:
    """Who writes the trial's MLflow run."""
    about = get_attributes(trial).process
    return WorkerOrigin(str(about.get("crew", "")), str(about.get("mlflow", "")))
