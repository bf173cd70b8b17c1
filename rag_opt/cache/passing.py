"""A store for what questions pass through: it holds indexes and models in memory, and nothing of any question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rag_opt.cache.artifact_files import Columns, Table
from rag_opt.cache.store import Store

T = TypeVar("T")
OF_QUESTIONS = frozenset(("query vectors", "embedding cache"))
"""Objects that grow with what is asked."""


class PassingStore(Store):
    """A store in memory whose tables, which are of questions all, are made each time they are asked for."""

    passing = True

    def get_table(self, stage: str, key: str, make: Callable[[], Columns]) -> Table:
        """The table, made now."""
        del stage, key
        return self._make_table(make)

    def get_object(self, stage: str, key: str, make: Callable[[], T], keep: int = 0) -> T:
        """The object under this key; one that grows with what is asked is made now and forgotten."""
        found: Any = make() if stage in OF_QUESTIONS else super().get_object(stage, key, make, keep)
        return found  # type: ignore[no-any-return]
