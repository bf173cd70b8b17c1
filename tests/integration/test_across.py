"""Studies of several collections compared: what holds across them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from rag_opt.analysis.finished import open_finished
from rag_opt.cli.study import run_study
from rag_opt.reporting.comparison import compare_studies
from tests.conftest import QUESTIONS, write_jsonl

pytestmark = pytest.mark.integration


def test_studies_of_two_collections_are_pooled_and_one_alone_is_not(animals, tmp_path) -> None:
    names = {"all": QUESTIONS, "most": QUESTIONS[:-1]}
    for name, rows in names.items():
        questions = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        base = [word for word in animals if not word.startswith(("dataset.questions", "name="))]
        places = [f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none", "n_trials=6"]
        run_study([*base, *places, "pruner=none", f"dataset.questions={questions}", f"name={name}"])
    folders = [tmp_path / "studies" / name for name in names]
    page = compare_studies([open_finished(folder) for folder in folders], folders)
    told = (page.parent / "comparison.md").read_text("utf-8")
    table = told.partition("## nDCG@10 across 2 collections")[2]
    assert "| configuration | all | most | mean [95 %] | differ by | ahead in |" in table
    assert "| what each study selected |" in table
    # The seeds were measured by both: BM25 alone is one of them.
    assert "| retriever=bm25 " in table
    assert "Hartung-Knapp" in told
    assert "Across 2 collections" in page.read_text("utf-8") or "across 2 collections" in page.read_text("utf-8")
    # The same name in two folders is two studies all the same.
    (tmp_path / "copies").mkdir()
    twins = [tmp_path / "copies" / folder.name / "twin" for folder in folders]
    for folder, twin in zip(folders, twins, strict=True):
        shutil.copytree(folder, twin)
    pairs = [open_finished(twin) for twin in twins]
    same = [(replace(findings, name="twin"), study) for findings, study in pairs]
    assert "across 2 collections" in (compare_studies(same, twins).parent / "comparison.md").read_text("utf-8")
    compare_studies([open_finished(folders[0])] * 2, [folders[0], folders[0]])
    assert "across" not in (folders[0] / "comparison.md").read_text("utf-8")
