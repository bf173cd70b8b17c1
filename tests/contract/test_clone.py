"""A study that is run in a clone, as the README has it, changes no file that the repository keeps, and adds none to it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from tests.conftest import ROOT, animals_study

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no clone of the repository"
)


def git(*words: str, given: str = "") -> list[str]:
    found = subprocess.run(["git", *words], cwd=ROOT, input=given, capture_output=True, text=True)
    assert found.returncode in (0, 1), found.stderr
    return found.stdout.splitlines()


def names() -> list[str]:
    """The studies that the configuration names."""
    files = [ROOT / "conf/config.yaml", *sorted((ROOT / "conf/experiment").glob("*.yaml"))]
    found = [yaml.safe_load(path.read_text("utf-8")).get("name") for path in files]
    return [name for name in found if name]


def test_what_a_study_leaves_is_ignored_and_nothing_of_it_is_kept(animals, tmp_path) -> None:
    animals_study(animals, tmp_path, "n_trials=1", "tracking=mlflow", "studies_dir=" + str(tmp_path / "studies"))
    left = [path.relative_to(tmp_path / "studies").as_posix() for path in (tmp_path / "studies").rglob("*")]
    files = {path for path in left if (tmp_path / "studies" / path).is_file()}
    files |= {"animals/study.db-wal", "animals/study.db.rescued-20260101-000000-1", ".store/replies.db", "mlflow.db"}
    assert {"animals/report.md", "animals/best.yaml", "animals/study.db", ".mlflow.db.lock"} <= files
    assert any(".study.db.workers/" in path for path in files)
    paths = [f"studies/{path.replace('animals', name)}" for name in [*names(), "mine"] for path in sorted(files)]
    assert set(git("check-ignore", "--stdin", given="\n".join(paths))) == set(paths)
    assert git("ls-files", *(f"studies/{name}" for name in names())) == []
    assert git("ls-files", "studies/reference/python_docs/report.md") != []
