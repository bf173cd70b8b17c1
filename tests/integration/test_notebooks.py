"""The notebooks run from top to bottom, in an empty folder, and import public names only."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

pytestmark = pytest.mark.integration
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path, monkeypatch, packaged_store: Path) -> None:
    monkeypatch.setenv("RAG_OPT_STORE", str(packaged_store))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        # `nox -s notebooks` runs them all; so many are enough for every figure.
        cell.source = cell.source.replace("n_trials=20", "n_trials=8")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "studies").is_dir()
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    imported = re.findall(r"^from (rag_opt[\w.]*) import (.+)", code, re.MULTILINE)
    assert imported or re.search(r"^import rag_opt$", code, re.MULTILINE)
    assert not any(name.strip().startswith("_") for module, names in imported for name in [module, *names.split(",")])


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_first_study", "02_own_data"]
