"""MLflow reached: its database made by one process, what is in the way said in a line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient

from rag_opt.console.screens import report_line
from rag_opt.system.permissions import format_owner, make_file
from rag_opt.system.waiting import hold_lock
from rag_opt.tracking.failures import format_repair, shorten_error
from rag_opt.tracking.mirror import MLflowCallback
from rag_opt.tracking.mlflow_file import WatchedFile, get_database_file, relocate_experiment, silence_mlflow


def connect_mlflow(
    uri: str, artifacts: str, experiment: str, folder: Path, targets: tuple[str, ...]
) -> MLflowCallback | None:
    """The callback of a tracking server or file, its tables made; None, and a line, when it can't be used."""
    silence_mlflow()
    try:
        # Left to MLflow, most of several processes that start at once die while they make the same tables.
        with _lock_creation(uri):
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            # A server decides itself where artifacts lie.
            place = None if "://" in uri and not uri.startswith("sqlite") else Path(artifacts).absolute().as_uri()
            known = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
            path = get_database_file(uri)
            if (
                found
                and place
                and path
                and (line := relocate_experiment(path, experiment, found.artifact_location, place))
            ):
                report_line(line)
    except Exception as error:  # as in `catch_failures`
        why = shorten_error(error) + (format_owner(path) if (path := get_database_file(uri)) else "")
        report_line(f"MLflow can't be opened ({why}); the study runs without it, {format_repair(error)}")
        return None
    return MLflowCallback(client, known, folder, targets, database=WatchedFile(path))


@contextmanager
def _lock_creation(uri: str) -> Iterator[None]:
    """Of several processes of this machine one makes the tables of a file; a server makes its own."""
    path = get_database_file(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made before SQLite would, which leaves a file that only its owner may write.
    make_file(path)
    with hold_lock(FileLock(path.with_name(f".{path.name}.lock")), f"is opening {path}"):
        yield
