"""What all tests share: where real data lies, small datasets, and an empty store for each test."""

from __future__ import annotations

import gc
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything loads a pool of threads: two test processes share two cores, and a process that has no pool can be
# forked (tests/faults/workers.py), while a child that inherits one hangs in it.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pytest
import yaml
from hypothesis import HealthCheck, settings

import rag_opt  # noqa: F401  (telemetry off before anything else is imported)
from rag_opt.cache.store import Store
from rag_opt.console.progress import Screen
from tests import sharing
from tests.services import fault, served
from tests.services.postgres import Server, binaries

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("RAG_OPT_DATA", ROOT.parent / "shared" / "data"))

LONG = os.environ.get("RAG_OPT_LONG") == "1"
"""Whether everything is run, with the figures that are promised: `nox -s faults`."""

LARGEST = "test_smollm2.py"
"""The tests of the largest model: each process comes to hold more with every file that it runs."""

settings.register_profile("rag_opt", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("rag_opt")

sharing.share()

DOCUMENTS: list[dict[str, str]] = [
    {
        "id": "cats",
        "title": "Cats",
        "text": "Cats purr when they are content. A cat sleeps most of the day. Kittens drink milk.",
    },
    {
        "id": "dogs",
        "title": "Dogs",
        "text": "Dogs bark at strangers. A dog needs long walks. Puppies chew shoes and bark at night.",
    },
    {"id": "birds", "text": "Birds build nests in spring. Some birds fly south in winter. An owl hunts mice at night."},
    {
        "id": "fish",
        "text": "Fish breathe through gills. A shark is a fish that never stops swimming.\n\nGoldfish live in ponds.",
    },
    {
        "id": "bees",
        "text": "Bees make honey from nectar. A queen bee lays eggs. Bees dance to tell where flowers grow.",
    },
    {"id": "trees", "text": "Oak trees lose their leaves in autumn. Pine trees stay green in winter."},
]
QUESTIONS: list[dict[str, Any]] = [
    {"id": "q1", "question": "Which animals purr?", "relevant": ["cats"], "answer": "Cats"},
    {"id": "q2", "question": "What do dogs need?", "relevant": ["dogs"], "answer": "Long walks"},
    {"id": "q3", "question": "Where do birds fly in winter?", "relevant": {"birds": 2, "trees": 1}, "answer": "South"},
    {"id": "q4", "question": "How do fish breathe?", "relevant": ["fish"], "answer": "Through gills"},
    {"id": "q5", "question": "Who makes honey?", "relevant": ["bees"], "answer": "Bees"},
    {"id": "q6", "question": "Which trees stay green?", "relevant": ["trees"], "answer": "Pine trees"},
    {"id": "q7", "question": "Who barks at night?", "relevant": ["dogs"], "answer": "Puppies"},
    {"id": "q8", "question": "What hunts mice?", "relevant": ["birds"], "answer": "An owl"},
    {"id": "q9", "question": "What do kittens drink?", "relevant": ["cats"], "answer": "Milk"},
    {"id": "q10", "question": "Who lays eggs in a hive?", "relevant": ["bees"], "answer": "A queen bee"},
]


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """A server on this machine that speaks OpenAI's protocol; its small model reads what it is given."""
    with served("openai_server.py") as url:
        yield url


@pytest.fixture
def services(endpoint: str) -> list[str]:
    """The words that make language models answer from that server, which behaves."""
    fault(endpoint, "none")
    return [f"llm.base_url={endpoint}", "llm.key=null"]


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A search service on this machine, whose web is six pages about animals."""
    pages = [
        {"url": f"https://example.org/{row['id']}", "title": row["id"], "content": row["text"]} for row in DOCUMENTS
    ]
    with served(
        "search_server.py", "--pages", str(write_jsonl(tmp_path_factory.mktemp("web") / "pages.jsonl", pages))
    ) as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server on this machine."""
    if binaries() is None:
        assert "CI" not in os.environ, "CI needs Debian's package postgresql"
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def pgvector() -> Iterator[Server]:
    """A PostgreSQL server on this machine that has pgvector."""
    server = Server(pgvector=True)
    yield server
    server.close()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of models with random weights: what loads and runs them is real."""
    from tests.services.tiny_models import cross_encoder, language_model, sentence_encoder

    folder = tmp_path_factory.mktemp("models")
    return {
        "tiny_llm": language_model(folder / "llm"),
        "tiny_cross_encoder": cross_encoder(folder / "cross"),
        "tiny_encoder": sentence_encoder(folder / "encoder", {}),
    }


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network without the hub, where a name is not even found."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="session")
def animals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a study over six documents and ten questions, three of them kept, without a model."""
    folder = tmp_path_factory.mktemp("animals")
    documents = write_jsonl(folder / "documents.jsonl", DOCUMENTS)
    questions = write_jsonl(folder / "questions.jsonl", QUESTIONS)
    return [
        "dataset=jsonl",
        f"dataset.documents={documents}",
        f"dataset.questions={questions}",
        "embedder=hashing",
        "splitter=none",
        "search_space=retrieval",
        "retriever.depth=6",
        "confirmation.method=split",
        "name=animals",
    ]


def own_space(folder: Path, rows: dict[str, object]) -> list[str]:
    """The overrides that choose a search space of one's own, from a configuration folder of one's own."""
    place = folder / "conf" / "search_space"
    place.mkdir(parents=True, exist_ok=True)
    (place / "own.yaml").write_text(yaml.safe_dump(rows), "utf-8")
    return [f"hydra.searchpath=[file://{folder}/conf]", "search_space=own"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def said() -> Iterator[Callable[[], list[str]]]:
    """The lines that a person has been told so far in this test."""
    file = io.StringIO()
    with Screen(file):
        yield lambda: file.getvalue().splitlines()


@pytest.fixture(scope="session")
def packaged_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that all tests share which read the packaged documents: these are encoded once."""
    place = tmp_path_factory.getbasetemp()
    # Of pytest-xdist's processes each has a folder of its own in one of all.
    return (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "packaged_store"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real collections; tests that need it skip, saying so, where it is missing."""
    if not DATA.is_dir():
        pytest.skip(f"no real data: {DATA} does not exist (set RAG_OPT_DATA)")
    return DATA


def animals_study(animals: list[str], folder: Path, *overrides: str) -> Path:
    """The folder of a study over the animals that was run to its end, without MLflow; `name=` gives it another name."""
    from rag_opt.cli.study import run_study

    words = [f"studies_dir={folder}/studies", f"store.path={folder}/store", "tracking=none", "pruner=none"]
    return run_study([*animals, *words, *overrides]).folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """A test, and what it has left let go."""
    try:
        return (yield)
    finally:
        sharing.let_go()


def pytest_collection_finish() -> None:
    """What was collected lives as long as the process: no later search for garbage needs to look at it."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The default line leaves out what is marked `long`; the largest model comes while a process is still small."""
    items.sort(key=lambda item: item.path.name != LARGEST)
    if not LONG:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
