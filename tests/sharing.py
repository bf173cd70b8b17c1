"""What a test process makes once, though thousands of tests ask for it, and what it lets go of between them.

Commands that tests start in a process of their own share nothing.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
from contextlib import closing
from typing import Any

import psutil
import sqlalchemy
from mlflow.store.db import utils as mlflow_schema
from optuna.storages._rdb.storage import _VersionManager

GROWN = 128 << 20
"""Bytes that tests may leave, some of them garbage, before that is looked for: a model is few objects."""

_process = psutil.Process()
_kept = [_process.memory_info().rss]
"""The bytes that were left when it was looked for last."""


def share() -> None:
    """Have this process share what tests make alike."""
    # With all that is loaded here each round takes long, and few find anything. None at all takes longer still: memory
    # that is never used again has to be got anew.
    gc.set_threshold(50_000, 20, 50)
    _share_migrations()
    _share_schema()


def let_go() -> None:
    """Free what tests have left, where it is much: garbage, and databases that MLflow would keep open."""
    if _process.memory_info().rss < _kept[0] + GROWN:
        return
    if stores := sys.modules.get("mlflow.store.tracking.sqlalchemy_store"):
        from rag_opt.tracking.mlflow_file import reopen

        for uri in [*stores.SqlAlchemyStore._engine_map]:
            reopen(uri)
    gc.collect()
    _kept[0] = _process.memory_info().rss


def _share_migrations() -> None:
    """Optuna's migrations: it runs the modules of all of them for each storage that is opened, 0.1 s each time."""
    read, found = _VersionManager._create_alembic_script, list[Any]()

    def create(manager: Any) -> Any:
        if not found:
            found.append(read(manager))
        return found[0]

    _VersionManager._create_alembic_script = create


def _share_schema() -> None:
    """MLflow's schema: for each new file it runs all of its migrations, a second, and what they make is the same."""
    upgrade, made, known = mlflow_schema._upgrade_db, sqlite3.connect(":memory:", check_same_thread=False), list[str]()

    def copy(engine: sqlalchemy.Engine) -> None:
        path = engine.url.database
        if engine.dialect.name != "sqlite" or not path or sqlalchemy.inspect(engine).has_table("alembic_version"):
            upgrade(engine)
            return
        if not known:
            upgrade(engine)
        with closing(sqlite3.connect(path)) as file:
            if known:
                made.backup(file)
            else:
                file.backup(made)
                known.append(path)

    mlflow_schema._upgrade_db = copy
