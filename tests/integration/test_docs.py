"""The pages of docs/: every command line on them is one that rag_opt reads, and what a page starts with works."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_opt.config.compose import compose_config
from rag_opt.config.schema import check_shape
from rag_opt.config.settings import parse_settings
from rag_opt.study.plan import build_plan
from tests.conftest import ROOT, animals_study
from tests.integration.test_readme import PAGES, README, shell

pytestmark = pytest.mark.integration

OWN = ("--config-dir", "best=", "…", "-m")
"""Words of commands that stand on a folder or a study of one's own, or for several commands."""


def read_blocks(page: str, language: str = "sh") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def read_commands() -> Iterator[tuple[str, list[str]]]:
    """The Hydra overrides of each `python -m rag_opt.study|trial|ask` in a block of the README and the pages."""
    for page, text in {**PAGES, "README": README}.items():
        for block in re.findall(r"```(?:sh|text)\n(.*?)```", text, re.DOTALL):
            for line in re.findall(r"python -m rag_opt\.(?:study|trial|ask)\b(.*)", block.replace("\\\n", " ")):
                words = shlex.split(line.partition(">")[0], comments=True)
                if not any(word.startswith(OWN) or word in OWN for word in words):
                    yield page, [word for word in words if not word.startswith("--")]


@pytest.mark.parametrize(("page", "words"), list(read_commands()))
def test_every_command_of_the_docs_is_composed(page: str, words: list[str]) -> None:
    del page
    config = compose_config(words)
    check_shape(config)
    parse_settings(config)


def test_there_are_many_commands() -> None:
    assert len(list(read_commands())) >= 20


def test_own_data_starts_with_the_readmes_example() -> None:
    assert read_blocks("own-data")[0].strip() in README


def test_pages_about_a_finished_study_start_with_what_works(tmp_path: Path, animals: list[str]) -> None:
    study = animals_study(animals, tmp_path, "name=quickstart", "n_trials=4")
    assert study == tmp_path / "studies/quickstart"
    python = read_blocks("reference", "python")[0]
    (tmp_path / "store").rename(tmp_path / "studies/.store")
    script = f"{read_blocks('cache')[0]}\ncat > example.py <<'EOF'\n{python}EOF\npython example.py"
    done = shell(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rankings" in done.stdout


def test_the_page_about_documents_starts_with_what_works(tmp_path: Path) -> None:
    script = read_blocks("documents")[0].replace("n_trials=4", "n_trials=4 tracking=none")
    done = shell(script, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 of 2 files read" in done.stdout
    assert "rooms.csv" in done.stdout.splitlines()[-1]
    assert (tmp_path / "studies/handbook/report.html").is_file()


def test_the_page_about_questions_starts_with_what_works(tmp_path: Path) -> None:
    done = shell(read_blocks("questions")[0], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "406 questions about 79 documents" in done.stdout
    assert (tmp_path / "checked/questions.html").is_file()


@pytest.mark.long
def test_the_page_about_python_starts_with_what_works(tmp_path: Path, animals: list[str]) -> None:
    for name, given in (("documents", "dataset.documents="), ("questions", "dataset.questions=")):
        (path,) = (word.removeprefix(given) for word in animals if word.startswith(given))
        shutil.copy(path, tmp_path / f"{name}.jsonl")
    done = shell(f"cat > example.py <<'EOF'\n{read_blocks('python', 'python')[0]}EOF\npython example.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nDCG@10" in done.stdout
    assert (tmp_path / "studies/mine/report.html").is_file()


def test_the_architectures_page_names_what_is_there() -> None:
    for path in set(re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", PAGES["architecture"])):
        assert (ROOT / "rag_opt" / path).is_file(), path


def test_what_the_reference_names_exists() -> None:
    found = re.findall(r"::: (\S+)\n(?: +options: \{members: \[(.*?)\])?", PAGES["reference"])
    assert len(found) >= 8
    for module, members in found:
        loaded = importlib.import_module(module)
        assert all(hasattr(loaded, name) for name in members.split(", ") if name), f"{module}: {members}"


def test_the_pipeline_you_have_starts_with_what_works(tmp_path: Path) -> None:
    """From nothing to a result in five commands; fewer trials and questions here."""
    (block, *_) = read_blocks("own-pipeline")
    assert "n_trials=12" in block
    done = shell(block.replace("n_trials=12", "n_trials=3 dataset.num_queries=60"), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    space = (tmp_path / "my_conf/search_space/mine.yaml").read_text("utf-8")
    assert "querying.retriever.top_k: range(" in space
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {
        "indexing.yaml",
        "querying.yaml",
        "documents.jsonl",
        "ask.py",
    }
    assert "# indexing.splitter.respect_sentence_boundary" in space, "it would fetch a file"
    # The space that the page shows is one of this pipeline's.
    (page, *_) = read_blocks("own-pipeline", "yaml")
    (tmp_path / "my_conf/search_space/shown.yaml").write_text(page, "utf-8")
    files = [f"pipeline.{side}={tmp_path}/{name}.yaml" for side, name in (("indexing", "index"), ("querying", "query"))]
    place = f"hydra.searchpath=[file://{tmp_path}/my_conf]"
    plan = build_plan([place, "pipeline=own", *files, "search_space=shown", f"studies_dir={tmp_path}/other"])
    assert len(plan.space.parameters) == 4


@pytest.mark.long
@pytest.mark.parametrize(("library", "place"), [("langchain_core", 0), ("llama_index.core", 1)])
def test_chains_of_other_libraries_are_tuned_as_they_stand(library: str, place: int, tmp_path: Path) -> None:
    pytest.importorskip(library)
    name = f"chain_of_{library.removesuffix('_core').removesuffix('.core').replace('.', '_')}"
    (tmp_path / f"{name}.py").write_text(read_blocks("own-pipeline", "python")[place], "utf-8")
    command = read_blocks("own-pipeline")[-1].replace("chain_of_langchain", name).replace("n_trials=4", "n_trials=2")
    done = shell(command.replace("n_trials=2", "n_trials=2 dataset.num_queries=40 tracking=none"), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 trials" in done.stdout
