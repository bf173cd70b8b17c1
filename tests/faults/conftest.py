"""What the tests of faults share: a study of milliseconds in every storage, and the figures that they report.

The default line runs a short version of every row; RAG_OPT_LONG=1 (`nox -s faults`) the one whose figures are promised.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rag_opt.storages import locks
from tests.conftest import LONG

FIGURES = os.environ.get("RAG_OPT_FIGURES")
"""A file that the figures of this run are added to, one JSON object a line."""

Figure = Callable[[str, str], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/faults" in item.path.as_posix():
            item.add_marker(pytest.mark.integration)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked workers wait less for a session of PostgreSQL that is gone; the long version waits as users do."""
    if not LONG:
        monkeypatch.setattr(locks, "GRACE", 1.0)


@pytest.fixture
def long() -> bool:
    """Whether the promised figures are to be reached, which takes minutes."""
    return LONG


@pytest.fixture
def figure() -> Figure:
    """Report a figure of a promise, for the table of studies/faults/README.md."""

    def report(promise: str, found: str) -> None:
        if FIGURES:
            with Path(FIGURES).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"promise": promise, "found": found}) + "\n")

    return report


@pytest.fixture
def words(animals: list[str], tmp_path: Path) -> list[str]:
    """A study whose trials take milliseconds."""
    return [
        *animals,
        f"studies_dir={tmp_path}/studies",
        f"store.path={tmp_path}/store",
        "tracking=none",
        "sampler=random",
        "retries=1000",
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, words: list[str]) -> list[str]:
    """The same in each kind of storage, always a new one."""
    if request.param == "sqlite":
        return words
    server = request.getfixturevalue("postgres")
    url = server.database(f"db_{abs(hash((request.node.nodeid, os.getpid(), os.urandom(4))))}")
    return [*words, f"storage.url='{url}'"]
