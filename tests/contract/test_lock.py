"""requirements.lock is the tested set: every version that of constraints.txt, every file with its hash, no index named."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import ROOT

TOOLS = {"argcomplete", "dependency-groups", "distlib", "humanize", "nox", "python-discovery", "ruff", "virtualenv"}
"""What checks the project and is no part of what is installed: nox and ruff, and what they need."""

BUILT_WITH = {"setuptools"}
"""What constraints.txt leaves to the interpreter's environment, and torch asks for."""

ENTRY = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


@dataclass(frozen=True)
class Entry:
    """A package of the lock; `marker` says where it is installed, "" everywhere; `hashes` are counted."""

    name: str
    version: str
    marker: str
    hashes: int


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(text: str) -> Iterator[Entry]:
    """The packages of a lock, each on lines that end in a backslash; raises AssertionError at anything else."""
    joined = text.replace("\\\n", "\\\0")
    for whole in joined.splitlines():
        if not whole.startswith("#"):
            first, *hashes = whole.split("\0")
            found = ENTRY.fullmatch(first)
            assert found, f"no package with a version and hashes: {first}"
            assert all(HASH.fullmatch(line) for line in hashes), f"{first}: what follows is no hash"
            yield Entry(normal(found["name"]), found["version"], found["marker"] or "", len(hashes))


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines) if version}


@pytest.fixture(scope="module")
def lock() -> dict[str, Entry]:
    found = list(entries((ROOT / "requirements.lock").read_text("utf-8")))
    assert len({each.name for each in found}) == len(found) > 200
    return {each.name: each for each in found}


def test_every_package_has_a_hash_and_no_index_is_named(lock: dict[str, Entry]) -> None:
    assert all(each.hashes for each in lock.values())
    text = (ROOT / "requirements.lock").read_text("utf-8")
    assert not re.search(r"https?:|//|file:|--index|--extra-index|--find-links|--trusted", text)


def test_the_lock_and_the_constraints_name_the_same_versions(lock: dict[str, Entry]) -> None:
    given = constraints()
    assert {name: each.version for name, each in lock.items() if name in given} == {
        name: version for name, version in given.items() if name not in TOOLS
    }
    beyond = {name for name, each in lock.items() if name not in given and not each.marker}
    assert beyond == BUILT_WITH, "what another platform needs has a marker"


def test_what_the_project_asks_for_is_locked_on_every_platform(lock: dict[str, Entry]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = [normal(re.match(r"[\w.-]+", each)[0]) for each in wanted]
    assert [name for name in names if name not in lock or lock[name].marker] == []
    assert lock["torch"].version.startswith("2.13.")


@pytest.mark.parametrize(
    "spoilt", ["a==1\n", "a>=1 \\\n    --hash=sha256:" + "0" * 64, "a==1 \\\n    --hash=md5:0\n", "-e .\n"]
)
def test_an_entry_without_a_version_or_a_hash_is_seen(spoilt: str) -> None:
    with pytest.raises(AssertionError):
        list(entries(spoilt))
