"""The benchmark script on tiny data: every row measures, and the README's table is made from the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DOCUMENTS, QUESTIONS, ROOT, write_jsonl

pytestmark = pytest.mark.integration
BENCH = ROOT / "studies" / "speed" / "bench.py"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    for name in ("msmarco_qa", "msmarco_large"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        texts = [(f"{d['id']}{i}", f"{d['text']} Copy {i}.") for i in range(20) for d in DOCUMENTS]
        write_jsonl(folder / "corpus.jsonl", [{"_id": key, "title": "", "text": text} for key, text in texts])
        rows = [q for i in range(4) for q in [{**q, "id": f"{q['id']}-{i}"} for q in QUESTIONS]]
        write_jsonl(folder / "queries.jsonl", [{"_id": q["id"], "text": q["question"]} for q in rows])
        lines = [f"{q['id']}\t{key}{i}\t1" for q in rows for key in q["relevant"] for i in range(3)]
        (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    return tmp_path / "data"


def benched(tiny: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCH), "--quick", "--data", str(tiny), "--out", str(tiny.parent / "out"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.long
def test_rows_are_measured_and_told_in_the_readme(tiny: Path) -> None:
    done = benched(tiny, "--rows", "floor,encoder,second,help")
    assert done.returncode == 0, done.stderr
    again = benched(tiny, "--rows", "help")
    assert again.returncode == 0, again.stderr
    rows = json.loads((tiny.parent / "out" / "figures.json").read_text())["rows"]
    assert list(rows) == ["floor", "encoder", "second", "help"]
    figures = {figure["what"]: figure["values"] for row in rows.values() for figure in row["figures"]}
    assert all(value >= 0 for name, values in figures.items() for value in values if "less" not in name)
    assert figures["second study, warm store: texts embedded"] == [0.0]
    readme = (tiny.parent / "out" / "README.md").read_text()
    assert all(f"| {name} |" in readme for name in figures)
    assert readme.count("<!-- end of figures -->") == 1


@pytest.mark.parametrize(("words", "told"), [(["--rows", "fast"], "fast"), (["--data", "nowhere"], "msmarco_qa")])
def test_a_row_or_folder_that_is_not_there_is_said(tiny: Path, words: list[str], told: str) -> None:
    done = benched(tiny, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
