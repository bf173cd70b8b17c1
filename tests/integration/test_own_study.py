"""Studies of pipelines of one's own: from a command to the report and the export; eight workers share no documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_opt.cli import export
from rag_opt.cli.ask import answer_question
from rag_opt.cli.study import run_study
from rag_opt.config.experiments import expand_best
from tests.conftest import LONG, ROOT, own_space
from tests.services import brought

pytestmark = pytest.mark.integration


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **environment},
        timeout=300,
    )


@pytest.fixture
def base(animals: list[str], tmp_path: Path) -> list[str]:
    """The animals without anything of a pipeline that is made of stages."""
    stages = ("embedder", "splitter", "retriever", "search_space")
    kept = [word for word in animals if not word.startswith(stages)]
    return [*kept, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none", "name=brought"]


def classic(folder: Path) -> list[str]:
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    return brought.write(folder, brought.build_classic(store), brought.build_indexing(store))


SPACE = {"indexing.splitter.split_length": "range(6, 19, 6)", "querying.retriever.top_k": "range(1, 6)"}


def test_a_study_of_ones_own_pipeline_is_reported_asked_exported_and_goes_on(base, tmp_path, capsys) -> None:
    files = classic(tmp_path)
    (path,) = [Path(word.partition("=")[2]) for word in files if word.startswith("pipeline.querying")]
    definition = yaml.safe_load(path.read_text())
    # As where each file is dumped by a process of its own: Haystack names a store in memory anew each time.
    definition["components"]["retriever"]["init_parameters"]["document_store"]["init_parameters"]["index"] = "another"
    path.write_text(yaml.safe_dump(definition))
    words = [*base, *files, *own_space(tmp_path, SPACE), "n_trials=4"]
    done = run("rag_opt.study", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "4 trials" in done.stdout
    folder = tmp_path / "studies/brought"
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["defaults"][0] == {"override /pipeline": "own"}
    assert not any("override /splitter" in each for each in best["defaults"])
    # From here on in this process: it knows of the study no more than another one would.
    run_study([*[word for word in words if not word.startswith("n_trials")], "n_trials=5"])
    assert "resumed: 4 of 5 trials are done" in capsys.readouterr().err
    place = f"hydra.searchpath=[file://{tmp_path}/conf]"
    store = f"store.path={tmp_path}/store"
    own = [*expand_best([f"best={folder}", place, "trusted_modules=[tests]"]), store]
    answer_question([*own, "question='Who makes honey?'"])
    assert "bees" in capsys.readouterr().out
    export.main([str(folder), place, "trusted_modules=[tests]"])
    program = (folder / "export/ask.py").read_text()
    assert "rag_opt" not in program.replace("by Haystack alone", "")
    told = subprocess.run(
        [sys.executable, str(folder / "export/ask.py"), "Who makes honey?"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    # The same documents, best first, from Haystack alone.
    assert "bees" in told.stdout.splitlines()[1], told.stderr[-1000:]


@pytest.mark.parametrize("asked", [["--cfg", "space"], ["--cfg=space"]], ids=" ".join)
def test_a_space_is_proposed_on_the_command_line(tmp_path, asked) -> None:
    done = run("rag_opt.study", *classic(tmp_path), *asked)
    assert done.returncode == 0, done.stderr
    rows = yaml.safe_load(done.stdout)
    assert rows["querying.retriever.top_k"] == "range(3, 10, 1)"
    assert "indexing.splitter.split_length" in rows


def in_memory(folder: Path) -> list[str]:
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    querying = brought.build_dense(InMemoryEmbeddingRetriever(store))
    return brought.write(folder, querying, brought.build_embedding_indexing(store))


def in_qdrant(folder: Path) -> list[str]:
    from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    store = QdrantDocumentStore(location=":memory:", embedding_dim=brought.SIZE)
    querying = brought.build_dense(QdrantEmbeddingRetriever(store))
    return brought.write(folder, querying, brought.build_embedding_indexing(store))


def in_pgvector(folder: Path) -> list[str]:
    from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever
    from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

    store = PgvectorDocumentStore(embedding_dimension=brought.SIZE)
    querying = brought.build_dense(PgvectorEmbeddingRetriever(document_store=store))
    return brought.write(folder, querying, brought.build_embedding_indexing(store))


@pytest.mark.parametrize(
    ("bring", "storage"),
    [
        (in_memory, "sqlite"),
        pytest.param(in_memory, "pgvector", marks=pytest.mark.long),
        *(
            pytest.param(bring, storage, marks=pytest.mark.long)
            for bring in (in_pgvector, in_qdrant)
            for storage in ("pgvector", "sqlite")
        ),
    ],
)
def test_a_poisoned_index_is_seen_by_nobody_else(bring, storage, base, tmp_path, pgvector, monkeypatch) -> None:
    """Workers, eight or two, two configurations of one pipeline, a document in one that all questions would find."""
    count = 8 if LONG else 2
    monkeypatch.setenv("PG_CONN_STR", pgvector.database(f"stored_{os.getpid()}_{time.monotonic_ns()}"))
    space = own_space(
        tmp_path,
        # All there is, so that a document too many shows.
        {"indexing.poisoner.poison": "choice(false, true)", "querying.retriever.top_k": "range(40, 44)"},
    )
    common = [*base, *bring(tmp_path), *space, f"n_trials={max(6, 2 * count)}", "sampler=random"]
    common += ["pruner=none", f"n_workers={count}"]
    url = pgvector.database(f"brought_{os.getpid()}_{time.monotonic_ns()}")
    done = run("rag_opt.study", *common, *([f"storage.url={url}"] if storage == "pgvector" else []))
    assert done.returncode == 0, done.stderr[-2000:]
    rankings = _read_rankings(tmp_path / "studies/brought")
    assert {poisoned for poisoned, _ in rankings} == {False, True}
    for poisoned, documents in rankings:
        assert poisoned == any("poison" in each for each in documents)


def _read_rankings(folder: Path) -> list[tuple[bool, list[str]]]:
    """Of each trial whether its index is poisoned, and all documents that it found."""
    found = []
    for place in sorted((folder / "trials").iterdir()):
        config = yaml.safe_load((place / "config.yaml").read_text())
        table = json.loads((place / "per_query.json").read_text())
        column = table["columns"].index("retrieved")
        documents = [each for row in table["data"] for each in row[column]]
        found.append((config["pipeline"]["parameters"]["indexing"]["poisoner"]["poison"], documents))
    return found


@pytest.mark.parametrize("how", ["function", "http"])
def test_a_function_and_a_service_are_tuned_alike(how: str, base, tmp_path, capsys) -> None:
    from tests.services.brought import answer, serve

    space = own_space(tmp_path, {"parameters.top_k": "range(1, 6)", "parameters.reverse": "choice(false, true)"})
    with serve(answer) as url:
        door = {
            "function": [
                "pipeline=function",
                "pipeline.function=tests.services.brought.answer",
                "trusted_modules=[tests]",
            ],
            "http": ["pipeline=http", f"pipeline.url={url}"],
        }[how]
        assert not run_study([*base, *door, *space, "n_trials=5"]).error
    told = capsys.readouterr().out
    assert "5 trials" in told
    # The service's parameters have no values of their own: the space says where to begin.
    assert "Recommended" in told


def test_a_service_that_answers_wrongly_is_said_before_trial_0(base, tmp_path) -> None:
    from tests.services.brought import serve

    def wrong(question: str, **_: Any) -> Any:
        return {"docs": [question]}

    space = own_space(tmp_path, {"parameters.top_k": "range(1, 6)"})
    with serve(wrong) as url:
        done = run("rag_opt.study", *base, "pipeline=http", f"pipeline.url={url}", *space)
    assert done.returncode == 2
    assert "it gave 'docs', which nothing reads; did you mean 'documents'?" in done.stderr
