"""A model over changed documents: as a fresh build, at the price of what changed, swapped under a running service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest

from rag_opt.analysis.paired import compute_p_value
from rag_opt.cache.store import Store
from rag_opt.cli import update
from rag_opt.cli.study import run_study
from rag_opt.components.resources import Resources
from rag_opt.errors import DatasetError, ModelError
from rag_opt.production import updating
from rag_opt.production.answering import open_folder
from rag_opt.production.bundle import Bundle
from rag_opt.production.bundling import write_bundle
from rag_opt.production.promotion import promote_study
from rag_opt.production.registry import CHAMPION, Registry
from rag_opt.production.updating import ProbeCheck, WorseError, load_documents, update_model
from tests.conftest import DOCUMENTS, LONG, QUESTIONS, write_jsonl
from tests.services.model_server import serving

pytestmark = pytest.mark.integration
ASKED = [row["question"] for row in QUESTIONS]
HYBRID = ["retriever=hybrid", "splitter=sentence"]
CHANGED = [
    *[row for row in DOCUMENTS if row["id"] not in ("bees", "fish")],
    {"id": "fish", "text": "Fish breathe through gills. Goldfish live in ponds, and never drink milk."},
    {"id": "whales", "text": "Whales breathe air. A whale is no fish."},
]
UPDATE = "import sys; from rag_opt.cli.update import main; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def study(animals, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("updated")
    run_study([*animals, f"studies_dir={folder}", f"store.path={folder}/store", "tracking=none", "n_trials=2"])
    return folder / "animals"


@pytest.fixture
def registry(study, tmp_path) -> Registry:
    """A registry with the study's hybrid as its champion."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    promote_study(study, overrides=HYBRID, tracking=uri)
    return Registry.connect(uri)


@pytest.fixture
def changed(tmp_path) -> Path:
    return write_jsonl(tmp_path / "changed.jsonl", CHANGED)


def fetch(registry: Registry, address: str = "models:/animals") -> Bundle:
    return Bundle.read(registry.fetch(registry.find(address)))


def read(folder: Path) -> list[tuple]:
    answerer = open_folder(folder)
    found = [answerer.ask(question) for question in [*ASKED, "Do whales drink milk?"]]
    return [(each.text, [(s.document_id, s.text, s.score, s.start) for s in each.sources]) for each in found]


def test_an_update_is_a_fresh_build_to_the_bit_and_encodes_what_changed(registry, changed, tmp_path, capsys) -> None:
    old = fetch(registry)
    update.main(["models:/animals", str(changed), "--tracking", registry.uri])
    told = capsys.readouterr().out
    assert "1 added: 'whales'" in told
    assert "1 changed: 'fish'" in told
    assert "1 removed: 'bees'" in told
    assert "models:/animals is version 2 now" in told
    new = fetch(registry)
    documents = load_documents(old, changed)
    fresh = write_bundle(
        tmp_path / "fresh", old.config, documents, Resources.from_store(Store(tmp_path / "store")), new.lineage
    )
    assert read(new.folder) == read(fresh.folder)
    files = {path.relative_to(fresh.artifacts): path for path in fresh.artifacts.rglob("*") if path.is_file()}
    for place, path in files.items():
        kept = new.artifacts / place
        # The seconds that making them took stand in manifests and at the head of tables.
        assert kept.exists(), place
        if path.suffix in (".npy", ".txt"):
            assert kept.read_bytes() == path.read_bytes()
    assert not [each for _, sources in read(new.folder) for each in sources if each[0] == "bees"]
    assert new.lineage.corpus != old.lineage.corpus
    assert new.lineage.fingerprint == old.lineage.fingerprint
    found = update_model(registry, "models:/animals", write_jsonl(tmp_path / "all.jsonl", [*CHANGED, DOCUMENTS[4]]))
    # One sentence splitter, three sentences in "bees": nothing else is encoded.
    assert 1 <= found.encoded <= 3 < found.texts


def test_the_same_documents_make_no_version(registry, tmp_path, capsys) -> None:
    same = write_jsonl(tmp_path / "same.jsonl", DOCUMENTS[::-1])
    update.main(["models:/animals@champion", str(same), "--tracking", registry.uri])
    assert "stays: no document was added" in capsys.readouterr().out
    assert int(registry.find("models:/animals").version) == 1


def test_a_version_that_loses_its_probes_is_refused_and_says_which(registry, tmp_path, capsys) -> None:
    noise = [{"id": row["id"], "text": f"Nothing about that, number {n}."} for n, row in enumerate(DOCUMENTS)]
    place = write_jsonl(tmp_path / "noise.jsonl", noise)
    with pytest.raises(SystemExit):
        update.main(["models:/animals", str(place), "--tracking", registry.uri])
    told = capsys.readouterr()
    assert "stays" in told.err
    assert "Who makes honey?" in told.out
    assert int(registry.find("models:/animals").version) == 1
    with pytest.raises(WorseError) as refused:
        update_model(registry, "models:/animals", place)
    assert refused.value.check.p < 0.05
    found = update_model(registry, "models:/animals", place, because="it is a test")
    assert int(registry.find("models:/animals").version) == int(found.model.version)
    assert fetch(registry).lineage.reason == "it is a test"


def test_other_documents_altogether_are_refused(registry, tmp_path) -> None:
    place = write_jsonl(tmp_path / "other.jsonl", [{"id": "x", "text": "Cats purr."}, DOCUMENTS[5]])
    with pytest.raises(WorseError, match="are they the right ones"):
        update_model(registry, "models:/animals", place)
    assert int(registry.find("models:/animals").version) == 1


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ((1.0,) * 20, (1.0,) * 20, False),
        ((1.0,) * 20, (1.0,) * 19 + (0.0,), False),
        ((1.0,) * 20, (0.5,) * 10 + (1.0,) * 10, True),
        ((1.0,) * 5, (0.0,) * 5, True),
        ((1.0,) * 5, (0.9,) * 5, False),
        ((0.0,) * 5, (1.0,) * 5, False),
    ],
)
def test_few_probes_are_worse_by_a_great_fall_and_many_by_a_test(before, after, worse) -> None:
    p = compute_p_value(np.array(after) - np.array(before), 0)
    assert ProbeCheck((None,) * len(before), before, after, p, 0).is_worse == worse


def test_an_alias_that_was_moved_meanwhile_stays(registry, changed, monkeypatch) -> None:
    update_model(registry, "models:/animals", changed)
    made = updating.build_update

    def build(*given):
        found = made(*given)
        registry.set_alias(registry.find("models:/animals/1"), CHAMPION)
        return found

    monkeypatch.setattr(updating, "build_update", build)
    with pytest.raises(ModelError, match="run the same command again"):
        update_model(registry, "models:/animals", write_jsonl(changed.with_name("more.jsonl"), DOCUMENTS[:-1]))
    assert int(registry.find("models:/animals").version) == 1


def test_a_canary_that_is_gone_holds_up_no_rollback(registry, changed, tmp_path, said) -> None:
    update_model(registry, "models:/animals", changed)
    registry.set_alias(registry.find("models:/animals/2"), "challenger")
    with serving(
        "models:/animals",
        registry.uri,
        tmp_path / "state",
        canary="models:/animals@challenger",
        share=0.5,
        refresh=0.05,
    ) as url:
        assert httpx.get(f"{url}/ready").json()["models"]["model"] == "models:/animals/2"
        registry.client.delete_registered_model_alias("animals", "challenger")
        registry.set_alias(registry.find("models:/animals/1"), CHAMPION)
        deadline = time.monotonic() + 10
        while httpx.get(f"{url}/ready").json()["models"]["model"] != "models:/animals/1":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # A version that can't be loaded leaves the one that answers.
        broken = fetch(registry, "models:/animals/2").folder / "bundle.json"
        broken.write_text("{}")
        registry.fetched.clear()
        registry.set_alias(registry.find("models:/animals/2"), CHAMPION)
        time.sleep(0.5)
        assert httpx.post(f"{url}/search", json={"query": "Who makes honey?"}).json()["model"] == "models:/animals/1"


def test_what_can_not_be_read_is_refused_before_anything_changes(registry, tmp_path) -> None:
    with pytest.raises(ModelError, match="JSON Lines file"):
        update_model(registry, "models:/animals", tmp_path)
    with pytest.raises(ModelError, match="never changes"):
        update_model(registry, "models:/animals/1", tmp_path)
    with pytest.raises(DatasetError):
        update_model(registry, "models:/animals", write_jsonl(tmp_path / "twice.jsonl", [DOCUMENTS[0]] * 2))
    with pytest.raises(ModelError, match="nobody"):
        update_model(registry, "models:/nobody", tmp_path)
    assert int(registry.find("models:/animals").version) == 1


def test_a_folder_of_files_is_compared_by_their_bytes(tmp_path, capsys) -> None:
    docs, uri = tmp_path / "docs", f"sqlite:///{tmp_path}/mlflow.db"
    docs.mkdir()
    for row in DOCUMENTS:
        (docs / f"{row['id']}.md").write_text(f"# {row['id']}\n\n{row['text']}\n")
    rows = [{**row, "relevant": [f"{name}.md" for name in row["relevant"]]} for row in QUESTIONS]
    asked = write_jsonl(tmp_path / "questions.jsonl", rows)
    words = ["dataset=folder", f"dataset.path={docs}", f"dataset.questions={asked}", "embedder=hashing", "n_trials=1"]
    run_study([*words, f"studies_dir={tmp_path}", "tracking=none", "search_space=retrieval", "name=files"])
    promote_study(tmp_path / "files", tracking=uri)
    (docs / "bees.md").unlink()
    (docs / "whales.md").write_text("# Whales\n\nWhales breathe air.\n")
    os.utime(docs / "cats.md")
    update.main(["models:/files", str(docs), "--tracking", uri])
    told = capsys.readouterr().out
    assert "1 added: 'whales.md'" in told
    assert "1 removed: 'bees.md'" in told
    assert "changed:" not in told
    registry = Registry.connect(uri)
    found = open_folder(registry.fetch(registry.find("models:/files"))).ask("Who breathes air?")
    assert found.sources[0].document_id == "whales.md"


def test_a_running_service_goes_over_and_no_answer_is_of_two_versions(registry, changed, tmp_path) -> None:
    swaps = 200 if LONG else 4
    update_model(registry, "models:/animals", changed)
    versions = {version: fetch(registry, f"models:/animals/{version}") for version in (1, 2)}
    known = {
        f"models:/animals/{version}": [each[0] for each in read(bundle.folder)[-1][1]]
        for version, bundle in versions.items()
    }
    assert len(set(map(tuple, known.values()))) == 2
    told, ended = Counter[str](), threading.Event()
    wrong: list[object] = []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not ended.is_set():
                answer = client.post("/search", json={"query": "Do whales drink milk?"})
                if answer.status_code != 200:
                    wrong.append(answer.status_code)
                    continue
                found = answer.json()
                told[found["model"]] += 1
                if [each["id"] for each in found["documents"]] != known[found["model"]]:
                    wrong.append(found)

    with serving("models:/animals", registry.uri, tmp_path / "state", refresh=0.05, traces=0.0) as url:
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for swap in range(swaps):
            wanted = f"models:/animals/{1 + swap % 2}"
            registry.set_alias(registry.find(wanted), CHAMPION)
            deadline = time.monotonic() + 20
            while httpx.get(f"{url}/ready").json()["models"]["model"] != wanted:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert set(told) == set(known)


@pytest.mark.long
@pytest.mark.parametrize("delay", range(50))
def test_the_old_version_answers_after_a_kill_at_any_moment(registry, changed, tmp_path, delay) -> None:
    words = [sys.executable, "-c", UPDATE, "models:/animals", str(changed), "--tracking", registry.uri]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(1 + delay * 0.12)
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = registry.find("models:/animals")
    expected = {1: "bees", 2: "whales"}[int(found.version)]
    question = {"bees": "Who makes honey?", "whales": "Which whale is no fish?"}[expected]
    assert open_folder(registry.fetch(found)).ask(question).sources[0].document_id == expected
    # The same command ends what was begun.
    finished = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "now" in finished or "stays" in finished
    assert open_folder(registry.fetch(registry.find("models:/animals"))).ask("whale").sources[0].document_id == "whales"


def test_the_lineage_of_an_update_is_what_mlflow_shows(registry, changed) -> None:
    found = update_model(registry, "models:/animals", changed)
    assert found.model is not None
    assert json.loads(found.model.tags["rag_opt.lineage"])["corpus"] == fetch(registry).lineage.corpus
