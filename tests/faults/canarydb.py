"""canarydb://user:password@host/<path> is SQLite's file at that path: a database with a password, on this machine."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import QueuePool


class Dialect(SQLiteDialect_pysqlite):
    supports_statement_cache = True

    def create_connect_args(self, url: Any) -> Any:
        return [f"/{url.database.lstrip('/')}"], {"check_same_thread": False}

    @classmethod
    def get_pool_class(cls, url: Any) -> Any:
        return QueuePool


registry.register("canarydb", "tests.faults.canarydb", "Dialect")
