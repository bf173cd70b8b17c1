"""MLflow reached: its database made by one process, what is in the way said in a line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient

from rag_opt.console.progress import say
from rag_opt.system.sharing import make_file, whose
from rag_opt.system.waiting import alone
from rag_opt.tracking.mirror import MLflowCallback, repaired, shortened
from rag_opt.tracking.mlflow_file import Watched, file_of, hush, settled


def connected(
    uri: str, artifacts: str, experiment: str, folder: Path, targets: tuple[str, ...]
) -> MLflowCallback | None:
    """The callback of a tracking server or file, its tables made; None, and a line, when it can't be used."""
    hush()
    try:
        with _made_by_one(uri):
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            place = None if "://" in uri and not uri.startswith("sqlite") else Path(artifacts).absolute().as_uri()
            known = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
            path = file_of(uri)
            if found and place and path and (line := settled(path, experiment, found.artifact_location, place)):
                say(line)
    except Exception as error:  # as in `guarded`
        why = shortened(error) + (whose(path) if (path := file_of(uri)) else "")
        say(f"MLflow can't be opened ({why}); the study runs without it, {repaired(error)}")
        return None
    return MLflowCallback(client, known, folder, targets, database=Watched(path))


@contextmanager
def _made_by_one(uri: str) -> Iterator[None]:
    """Of several processes of this machine one makes the tables of a file; a server makes its own."""
    path = file_of(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    make_file(path)
    with alone(FileLock(path.with_name(f".{path.name}.lock")), f"is opening {path}"):
        yield
