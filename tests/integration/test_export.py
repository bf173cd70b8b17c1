"""What a study recommends, as plain Haystack pipelines: loaded in another process they say what rag_opt.ask says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rag_opt.cli import export
from rag_opt.cli.ask import answer_question
from rag_opt.cli.study import run_study
from rag_opt.config.experiments import expand_best
from rag_opt.errors import ConfigError
from tests.conftest import write_jsonl

pytestmark = pytest.mark.integration

QUESTION = "Where do birds fly in winter?"


@pytest.fixture(scope="module")
def study(animals, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    run_study([*animals, f"studies_dir={folder}", f"store.path={folder}/store", "tracking=none", "n_trials=3"])
    return folder / "animals"


@pytest.mark.parametrize("more", [["retriever=hybrid"], ["retriever=bm25", "context=assembled", "splitter=sentence"]])
def test_an_export_asked_in_another_process_says_what_ask_says(study, tmp_path, more, capsys) -> None:
    export.main([str(study), *more, "--to", str(tmp_path / "out")])
    about, told = capsys.readouterr().out.strip().splitlines()
    assert about.endswith(f"python -m rag_opt.ask best={study} question='your question'")
    assert told == f"ask it: python {tmp_path}/out/ask.py 'your question'"
    assert "from haystack import Pipeline\n" in (tmp_path / "out/ask.py").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "out/ask.py"), QUESTION],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    answer_question([*expand_best([f"best={study}"]), *more, f"question='{QUESTION}'", f"store.path={tmp_path}/store"])
    assert done.stdout == capsys.readouterr().out
    assert "birds" in done.stdout


def test_headings_and_pages_of_files_are_exported_with_them(tmp_path, capsys) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/pets.md").write_text("# Pets\n\nCats purr.\n\n## Dogs\n\nDogs bark.\n", "utf-8")
    (tmp_path / "docs/birds.md").write_text("# Birds\n\nOwls hunt at night.\n", "utf-8")
    words = ["dataset=folder", f"dataset.path={tmp_path}/docs", "splitter=markdown", "splitter.chunk_size=50"]
    rows = [{"question": "Who barks?", "relevant": ["pets.md"]}, {"question": "Who hunts?", "relevant": ["birds.md"]}]
    words += [f"dataset.questions={write_jsonl(tmp_path / 'questions.jsonl', rows)}", "retriever=bm25", "tracking=none"]
    words += [f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "n_trials=1", "generator=none"]
    words += ["context=assembled", "context.headings=true", "dataset.test_share=0.5"]
    folder = run_study([*words, "search_space=retrieval", "name=files"]).folder
    place = export.export_pipelines(folder)
    assert '"name": "Dogs"' in (place / "documents.jsonl").read_text("utf-8")
    done = subprocess.run([sys.executable, str(place / "ask.py"), "Who barks?"], capture_output=True, text=True)
    capsys.readouterr()
    answer_question([*expand_best([f"best={folder}"]), "question='Who barks?'", f"store.path={tmp_path}/store"])
    assert done.stdout == capsys.readouterr().out, done.stderr
    assert "Pets" in done.stdout


def test_a_model_that_can_not_be_asked_is_said(study, tmp_path) -> None:
    model = ["generator=openai", "llm.key=null", "llm.base_url=http://127.0.0.1:9/v1", "llm.tries=1"]
    export.main([str(study), *model, "--to", str(tmp_path)])
    done = subprocess.run([sys.executable, str(tmp_path / "ask.py"), QUESTION], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no answer: the call to the model failed\n")


def test_no_secret_is_exported(study, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ANIMALS_KEY", "sk-animals-0123456789abcdef")
    words = ["generator=openai", "llm.key=ANIMALS_KEY", "llm.base_url=http://127.0.0.1:9/v1"]
    place = export.export_pipelines(study, words, tmp_path / "out")
    texts = [path.read_text("utf-8") for path in sorted(place.iterdir())]
    assert len(texts) == 4
    assert not any("sk-animals" in text for text in texts)
    assert "ANIMALS_KEY" in (place / "querying.yaml").read_text("utf-8")
    assert {"components", "connections"} <= yaml.safe_load((place / "querying.yaml").read_text("utf-8")).keys()


def test_what_is_no_finished_study_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="name the folder of a finished study"):
        export.export_pipelines(tmp_path)
