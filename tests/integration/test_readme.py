"""What the README says is what happens: its examples as written, the dashboard on a real study."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT, animals_study

pytestmark = pytest.mark.integration
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path.stem: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-ec", script], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_smallest_example_of_ones_own_data_runs_as_written(tmp_path: Path) -> None:
    """But for its number of trials, as the next one."""
    (script,) = [block for block in BLOCKS if "documents.jsonl" in block]
    done = shell(f"{script.rstrip()} n_trials=5", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "studies/mine/report.md").is_file()


def test_the_example_in_python_runs_as_written(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script, fewer = re.subn(
        r"^    documents, questions, space=",
        r"    documents, questions, n_trials=5, space=",
        script,
        flags=re.MULTILINE,
    )
    assert fewer == 1
    done = shell(f"cat > example.py <<'EOF'\n{script}EOF\npython example.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nDCG@10" in done.stdout
    assert (tmp_path / "studies/study/report.html").is_file()


def test_the_sampler_of_the_readme_needs_its_yaml_file_and_nothing_else(tmp_path: Path, animals: list[str]) -> None:
    (yaml_file,) = re.findall(r"`my_conf/sampler/halton.yaml`:\n\n```yaml\n(.*?)```", PAGES["extending"], re.DOTALL)
    place = tmp_path / "my_conf" / "sampler"
    place.mkdir(parents=True)
    (place / "halton.yaml").write_text(yaml_file)
    study = animals_study(
        animals, tmp_path, f"hydra.searchpath=[file://{place.parent}]", "sampler=halton", "n_trials=5"
    )
    assert "sampler=halton" in (study / "report.md").read_text("utf-8")


def test_the_readme_is_short_and_every_page_starts_with_what_works() -> None:
    assert len(README.splitlines()) <= 150
    for name, text in PAGES.items():
        title, _, rest = text.partition("\n")
        assert title.startswith("# "), name
        assert "```" in "".join(rest.strip().splitlines(keepends=True)[:8]), f"{name}: it starts with words alone"


def test_ci_runs_the_readmes_test_command() -> None:
    command = next(block for block in BLOCKS if "nox" in block).strip()
    assert command in (ROOT / ".ci/run").read_text()


def test_every_package_is_in_the_architecture_and_every_one_named_exists() -> None:
    named = set(
        re.findall(r"\b([a-z]+)/(?=[ \n])", PAGES["architecture"].partition("rag_opt/\n")[2].partition("notebooks/")[0])
    )
    assert named == {path.parent.name for path in (ROOT / "rag_opt").glob("*/__init__.py")}


def test_optuna_dashboard_serves_the_study_with_values_and_notes(tmp_path: Path, animals: list[str]) -> None:
    animals_study(animals, tmp_path, "n_trials=5")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(sys.executable).parent / "optuna-dashboard"
    options = ["--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [script, "sqlite:///studies/animals/study.db", *options], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        (study,) = fetched(port, "/api/studies")["study_summaries"]
        detail = fetched(port, f"/api/studies/{study['study_id']}?after=0")
        assert study["study_name"] == "animals"
        assert len(detail["trials"]) == 5
        first = detail["trials"][0]
        assert {param["name"] for param in first["params"]} >= {"retriever", "retriever.k1"}
        assert len(first["intermediate_values"]) == 7
        assert "python -m rag_opt.trial" in first["note"]["body"]
    finally:
        server.terminate()
        server.wait(20)


def fetched(port: int, path: str) -> dict:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
