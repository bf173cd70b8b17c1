"""What a test process makes once, though thousands of tests ask for it, and what it lets go of between them.

Commands that tests start in a process of their own share nothing.
"""

from __future__ import annotations

import ctypes
import gc
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import sqlalchemy
from mlflow.store.db import utils as mlflow_schema
from mlflow.store.tracking.dbmodels.initial_models import Base
from optuna.storages._rdb.storage import _VersionManager

from rag_opt.components.embedders.encoders import Static
from rag_opt.components.splitters import sentences
from rag_opt.config.compose import forget_files
from rag_opt.records.documents import Documents
from rag_opt.system.environment import freeze_modules
from rag_opt.tracking.mlflow_file import reopen

GROWN = 64 << 20
"""Bytes that tests may leave, some of them garbage, before that is looked for: a model is few objects."""

_process = psutil.Process()
_kept = [_process.memory_info().rss]
"""The bytes that were left when it was looked for last."""


def share() -> None:
    """Have this process share what tests make alike."""
    # With all that is loaded here each round takes long, and few find anything. None at all takes longer still: memory
    # that is never used again has to be got anew.
    gc.set_threshold(50_000, 20, 50)
    # The first study of a process does it, once; by then a test may have loaded a model, which would never be freed.
    freeze_modules()
    _share_migrations()
    _share_schema()
    _share_punkt()
    Static._distil = _distil_apart


def let_go() -> None:
    """Free what tests have left, where it is much: garbage, and databases that MLflow would keep open."""
    if _process.memory_info().rss < _kept[0] + GROWN:
        return
    stores = [sys.modules.get(f"mlflow.store.{kind}.sqlalchemy_store") for kind in ("tracking", "model_registry")]
    for uri in {uri for each in stores if each for uri in each.SqlAlchemyStore._engine_map}:
        reopen(uri)
    forget_files()
    gc.collect()
    # glibc keeps what lies between blocks in use: a tenth of such a process.
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
    _kept[0] = _process.memory_info().rss


DISTIL = """
import sys
from pathlib import Path
from rag_opt.components.embedders.encoders import Static
Static(int(sys.argv[1]))._distil(Path(sys.argv[2]))
"""


def _distil_apart(encoder: Static, folder: Path) -> None:
    """In a process of its own: it takes half a gigabyte, which a test process would keep much of."""
    subprocess.run([sys.executable, "-c", DISTIL, str(encoder.dimensions), str(folder)], check=True)


def _share_punkt() -> None:
    """What Punkt learns of documents: it takes a second for the packaged ones, and each test has a store of its own."""
    train, found = sentences._train_punkt, dict[tuple[str, ...], Any]()

    def learn(documents: Documents) -> Any:
        # Tests name their documents as they like.
        texts = tuple(each.text for each in documents.items)
        if texts not in found:
            found[texts] = train(documents)
        return found[texts]

    sentences._train_punkt = learn


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
    upgrade, made = mlflow_schema._upgrade_db, list[sqlite3.Connection]()

    def copy(engine: sqlalchemy.Engine) -> None:
        path = engine.url.database
        if engine.dialect.name != "sqlite" or path in (None, "", ":memory:") or not _is_new(engine):
            upgrade(engine)
            return
        if not made:
            made.append(_make_schema(upgrade))
        with closing(sqlite3.connect(str(path))) as file:
            made[0].backup(file)

    mlflow_schema._upgrade_db = copy


def _is_new(engine: sqlalchemy.Engine) -> bool:
    """Whether MLflow's first tables are there, and nothing else."""
    with engine.connect() as database:
        names = sqlalchemy.inspect(database).get_table_names()
        count = sqlalchemy.func.count()
        rows = [database.scalar(sqlalchemy.select(count).select_from(sqlalchemy.table(name))) for name in names]
    return "alembic_version" not in names and not any(rows)


def _make_schema(upgrade: Callable[[sqlalchemy.Engine], None]) -> sqlite3.Connection:
    """A database in memory as MLflow makes one anew."""
    made = sqlite3.connect(":memory:", check_same_thread=False)
    with TemporaryDirectory() as folder:
        engine = sqlalchemy.create_engine(f"sqlite:///{folder}/mlflow.db")
        Base.metadata.create_all(engine)
        upgrade(engine)
        engine.dispose()
        with closing(sqlite3.connect(f"{folder}/mlflow.db")) as file:
            file.backup(made)
    return made
