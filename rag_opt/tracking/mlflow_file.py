"""MLflow's database where it is a SQLite file of ours: noticed when it vanishes, told where its files lie."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rag_opt.storages.file_guard import get_file_id

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("trace_tags", "value"),
)
"""Tables and columns in which MLflow keeps absolute places of files."""


def get_database_file(uri: str) -> Path | None:
    """The file of a tracking address; None for a server or another database."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


class WatchedFile:
    """A database's file as it was when it was opened; `path` None: none of ours, which is never gone."""

    def __init__(self, path: Path | None) -> None:
        self.path = None if path is None else path.absolute()
        self._known = None if self.path is None else get_file_id(self.path)

    @property
    def gone(self) -> bool:
        """Whether it was removed, or another has its name."""
        return self.path is not None and get_file_id(self.path) != self._known


def silence_mlflow() -> None:
    """MLflow's tracebacks off: what it raises is said in a line."""
    # Once MLflow is imported: that gives its loggers levels of its own.
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)


def reopen(uri: str) -> None:
    """Have MLflow open the database anew: it keeps what it opened under an address for as long as the process lives."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._model_registry import utils as models
    from mlflow.tracking._tracking_service import utils as runs

    # Both the engine and the store are cached; either would go on writing to the file that was removed.
    for store in (SqlAlchemyStore, Registry):
        engine = store._engine_map.pop(uri, None)
        if engine is not None:
            engine.dispose()
    for known in filter(None, (runs._tracking_store_registry, models._model_registry_store_registry)):
        known._get_store_with_resolved_uri.cache_clear()


def relocate_experiment(path: Path, experiment: str, old: str, new: str) -> str:
    """Have an experiment whose folder was moved know where its files lie; a line about that.

    `old` is the place that it knows, `new` the one that the configuration names; "" where they are the same.
    """
    from mlflow.tracking._tracking_service import utils as runs

    was, now = _parse_folder(old), _parse_folder(new)
    if old == new or was is None or now is None or (now.exists() and was.exists() and was.samefile(now)):
        return ""
    # In SQL, since MLflow has no call that changes where the files of an experiment or a run lie.
    with closing(sqlite3.connect(path, timeout=5)) as base, base:
        # The old folder is there and nothing of it in the new one: the configuration changed, no file was moved.
        if was.is_dir() and not _is_copied(base, old, now):
            return (
                f"MLflow: the files of experiment '{experiment}' go to {was} as they always did, not to "
                f"tracking.artifacts={now}; another experiment may: tracking.experiment=<new name>"
            )
        for table, column in PLACES:
            base.execute(
                # substr, not like: a path may hold % and _, which are wildcards there.
                f"update {table} set {column} = ? || substr({column}, ?) "  # noqa: S608 (our own names)
                f"where {column} = ? or substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )
    # A process that wrote to the old place has it in mind.
    runs._artifact_repos_cache.clear()
    return f"MLflow: its files have moved from {was} to {now}; the runs say so now"


def _is_copied(base: sqlite3.Connection, old: str, now: Path) -> bool:
    """Whether the files of a run that the database puts into the old place lie in the new one: it was copied."""
    found = base.execute("select artifact_uri from runs where substr(artifact_uri, 1, ?) = ?", (len(old), old))
    return any((now / url2pathname(uri[len(old) + 1 :])).is_dir() for (uri,) in found)


def _parse_folder(uri: str) -> Path | None:
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None
