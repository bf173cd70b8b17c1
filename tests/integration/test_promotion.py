"""What a study recommends as a bundle and as a registered model: it answers as the study does, wherever it lies."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

import rag_opt
from rag_opt.cli import promote
from rag_opt.cli.study import run_study
from rag_opt.config.compose import compose_config
from rag_opt.config.experiments import expand_best
from rag_opt.config.quoting import quote_arguments
from rag_opt.config.trial import build_trial_config
from rag_opt.datasets.checks import get_corpus
from rag_opt.errors import ConfigError, ModelError, StudyError
from rag_opt.evaluation.evaluator import build_resources, load_dataset
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.production import bundling
from rag_opt.production.answering import open_folder
from rag_opt.production.bundle import FILE, Bundle, Lineage
from rag_opt.production.promotion import bundle_study, promote_study
from rag_opt.production.registry import Registry, explain_refusal, read_lineage
from rag_opt.production.requirements import list_requirements, skip_requirement_check
from rag_opt.records.documents import Queries, Query
from tests.conftest import QUESTIONS, animals_study, own_space
from tests.services import counts, reset

pytestmark = pytest.mark.integration
ASKED = [row["question"] for row in QUESTIONS]
HYBRID = ["retriever=hybrid", "splitter=sentence", "context=assembled"]


@pytest.fixture(scope="module")
def study(animals, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("promoted")
    words = [f"studies_dir={folder}", f"store.path={folder}/store", "tracking=none", "n_trials=3"]
    run_study([*animals, *words])
    return folder / "animals"


@pytest.fixture
def tracking(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def ask_study(study: Path, question: str, *more: str) -> tuple[str, list[tuple]]:
    """What the study's own configuration gives, as rag_opt.ask builds it."""
    words = expand_best(quote_arguments([f"best={study}", f"store.path={study.parent}/store", *more]))
    config = compose_config(words)
    pipeline = build_pipeline(build_trial_config(config, words), build_resources(config))
    documents = get_corpus(load_dataset(config))
    found = pipeline.ask(
        Queries.from_items((Query("question", question),)), documents, pipeline.index_documents(documents)
    )
    chunks = found["context"].chunks
    rows = [(chunks.document_ids[row], chunks.readings[row], score) for row, score in found["context"].get_hits(0)]
    return found["answers"].texts[0], rows


def read(answer) -> tuple[str, list[tuple]]:
    return answer.text, [(source.document_id, source.text, source.score) for source in answer.sources]


@pytest.mark.parametrize("more", [HYBRID, ["retriever=bm25"], ["retriever=dense", "index=chroma", "reranker=mmr"]])
def test_a_bundle_answers_as_the_study_does_when_the_study_is_gone(study, tmp_path, more) -> None:
    known = [ask_study(study, question, *more) for question in ASKED]
    copy = tmp_path / "study"
    shutil.copytree(study.parent, copy)
    bundle_study(copy / "animals", tmp_path / "bundle", [*more, f"store.path={copy}/store"])
    shutil.rmtree(copy)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    answerer = open_folder(tmp_path / "bundle")
    assert [read(answerer.ask(question)) for question in ASKED] == known
    assert [read(answerer.search(question))[1] for question in ASKED] == [rows for _, rows in known]
    assert [read(answer)[1] for answer in answerer.search_together(ASKED)] == [rows for _, rows in known]
    assert not answerer.base.store.misses
    # Asked or not: it is only read.
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_what_is_remembered_does_not_grow_with_the_questions(study, tmp_path) -> None:
    bundle_study(study, tmp_path / "bundle", HYBRID)
    answerer = open_folder(tmp_path / "bundle")
    answerer.ask("warm")
    sizes = []
    for n in range(300):
        answerer.ask(f"question number {n}")
        sizes.append(len(answerer._passing.store._live) + len(answerer.base.store._live))
    assert sizes[50] == sizes[-1] < 40


def test_a_model_at_work_tells_nobody_what_is_for_a_studys_report(study, tmp_path, said) -> None:
    bundle_study(study, tmp_path / "bundle", ["retriever=bm25"])
    before = len(said())
    assert not open_folder(tmp_path / "bundle").search("xylophone").sources
    assert not [line for line in said()[before:] if "share no word" in line]


def test_a_bundle_says_what_is_to_be_expected_and_where_it_comes_from(study, tmp_path) -> None:
    bundle = bundle_study(study, tmp_path / "bundle")
    again = Bundle.read(tmp_path / "bundle")
    # By their words: what is not known is nan, which equals nothing.
    assert repr((again.lineage, again.reference, again.probes)) == repr(
        (bundle.lineage, bundle.reference, bundle.probes)
    )
    assert len(again.reference.scores) == len(QUESTIONS) == len(again.probes)
    assert again.lineage.study == "animals"
    assert again.lineage.metric == "nDCG@10"
    assert all(len(column) == len(QUESTIONS) for column in again.reference.seconds.values())
    assert not any(math.isnan(value) for column in again.reference.seconds.values() for value in column)
    # What was changed after the study was confirmed by nobody.
    assert not bundle_study(study, tmp_path / "other", ["retriever=bm25"]).lineage.metric


@pytest.mark.parametrize("more", [HYBRID, ["retriever=dense"]])
def test_what_is_asked_together_is_found_as_if_asked_alone(study, tmp_path, monkeypatch, more) -> None:
    alone = bundle_study(study, tmp_path / "alone", more)
    monkeypatch.setattr(bundling, "TIMED", 4)
    together = bundle_study(study, tmp_path / "together", more)
    assert together.reference.scores == alone.reference.scores
    assert together.reference.hits == alone.reference.hits
    assert [probe.found for probe in together.probes] == [probe.found for probe in alone.probes]
    for column in together.reference.seconds.values():
        assert [math.isnan(value) for value in column] == [False] * 4 + [True] * (len(QUESTIONS) - 4)


def test_none_that_is_paid_for_is_asked_together() -> None:
    assert bundling.PAID <= bundling.TIMED < bundling.ASKED


def test_a_damaged_bundle_is_refused_in_a_line(study, tmp_path) -> None:
    bundle_study(study, tmp_path / "bundle", HYBRID)
    whole = (tmp_path / "bundle" / FILE).read_text()
    for text in ("", "{", "[]", json.dumps({"form": 99}), whole.replace('"form": 1', '"form": "1"')):
        (tmp_path / "bundle" / FILE).write_text(text)
        with pytest.raises(ModelError, match="promote"):
            open_folder(tmp_path / "bundle")
    (tmp_path / "bundle" / FILE).write_text(whole)
    vectors = next((tmp_path / "bundle" / "artifacts" / "vectors").rglob("*.arrow"))
    vectors.write_bytes(vectors.read_bytes()[:-40])
    with pytest.raises(rag_opt.RagOptError, match="not what was written"):
        open_folder(tmp_path / "bundle")


def test_the_first_is_the_champion_and_the_next_its_challenger(study, tracking, tmp_path, capsys) -> None:
    promote.main([str(study), "--tracking", tracking])
    assert "models:/animals@champion is version 1" in capsys.readouterr().out
    promote.main([str(study), "retriever=bm25", "--tracking", tracking])
    assert "models:/animals@challenger is version 2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        promote.main([str(study), "retriever=dense", "--tracking", tracking, "--alias", "champion"])
    assert "models:/animals@champion stays" in capsys.readouterr().err
    registry = Registry.connect(tracking)
    assert int(registry.find("models:/animals").version) == 1
    with pytest.raises(ModelError, match="animals/3"):
        registry.find("models:/animals/3")
    promote.main([str(study), "retriever=dense", "--tracking", tracking, "--alias", "champion", "--because", "a test"])
    found = registry.find("models:/animals@champion")
    assert int(found.version) == 3
    assert read_lineage(found).reason == "a test" == found.tags["rag_opt.reason"]
    # Nothing is left beside the study.
    assert not list(study.glob(".bundle-*"))


def test_the_model_loads_and_streams_without_rag_opt_being_told(study, tracking, tmp_path, monkeypatch) -> None:
    address = promote_study(study, "loaded", overrides=HYBRID, tracking=tracking).address
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    registry = Registry.connect(tracking)
    with registry.use():
        model = mlflow.pyfunc.load_model(address)
        for question in ASKED[:3]:
            asked = {"input": [{"role": "system", "content": "no"}, {"role": "user", "content": question}]}
            told, known = model.predict(asked), ask_study(study, question, *HYBRID)
            assert told["output"][0]["content"][0]["text"] == known[0]
            rows = told["custom_outputs"]["documents"]
            assert [(row["id"], row["text"], row["score"]) for row in rows] == known[1]
            events = list(model.predict_stream(asked))
            assert "".join(event["delta"] for event in events if event["type"].endswith("delta")) == known[0]
            assert events[-1]["item"]["content"][0]["annotations"][0]["file_id"] == rows[0]["id"]
    files = [path for path in registry.fetch(registry.find(address)).parents[1].rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle") or path.read_bytes()[:2] == b"\x80\x04"]


BARN = """
from barn.stalls import STALLS


def answer(question, polite=False):
    found = [name for name in STALLS if name[:-1] in question.lower()]
    return {"documents": found, "answer": ("Please: " if polite else "") + STALLS.get(found[0] if found else "", "?")}
"""

ELSEWHERE = """
import sys
from pathlib import Path
from rag_opt.errors import ModelError
from rag_opt.production.answering import open_folder
from rag_opt.production.bundle import Bundle
from rag_opt.production.updating import build_update
try:
    open_folder(Path(sys.argv[1]))
except ModelError as error:
    print(str(error).rpartition("the model, ")[2])
answerer = open_folder(Path(sys.argv[1]), code=True)
print(answerer.ask("A cat?").text)
made, *_ = build_update(Bundle.read(Path(sys.argv[1])), answerer.documents, Path(sys.argv[2]))
print(len(list(made.folder.glob("code/barn/__init__.py"))))
"""


def test_code_of_ones_own_goes_with_the_model_and_is_found_elsewhere(
    animals, tracking, tmp_path, monkeypatch, said
) -> None:
    package = tmp_path / "own" / "barn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BARN)
    (package / ".#stalls.py").symlink_to("me@host.1")
    (package / "stalls.py").write_text('STALLS = {"cats": "They purr.", "dogs": "They bark."}')
    monkeypatch.syspath_prepend(package.parent)
    words = ["pipeline=function", "pipeline.function=barn.answer", "trusted_modules=[barn,nowhere]", "n_trials=1"]
    given = [word for word in animals if word.startswith(("dataset", "confirmation"))]
    places = [f"studies_dir={tmp_path}", f"store.path={tmp_path}/store", "tracking=none", "name=barn"]
    run_study([*given, *words, *places, *own_space(tmp_path, {"parameters.polite": "choice(true, false)"})])
    found = promote_study(tmp_path / "barn", "barn", tracking=tracking)
    assert "trusted_modules: nowhere is no file" in "".join(said())
    registry = Registry.connect(tracking)
    folder = registry.fetch(registry.find(found.address))
    assert {path.name for path in (folder / "code").rglob("*") if path.is_file()} == {"__init__.py", "stalls.py"}
    # Installed modules are no part of it, but of what an environment has to have.
    assert f"pyyaml=={version('pyyaml')}" in {line.lower() for line in list_requirements(["yaml"])}
    (package / "stalls.py").write_text('STALLS = {"cats": "They hiss."}')
    open_folder(folder)
    assert f"{package} is used, and differs from the barn that came with the model" in "".join(said())
    shutil.rmtree(package)
    words = [sys.executable, "-c", ELSEWHERE, str(folder), str(tmp_path / "update")]
    asked = subprocess.run(words, cwd="/", capture_output=True, text=True)
    assert asked.stdout.splitlines() == [f"PYTHONPATH={folder}/code has it found: barn", "They purr.", "1"], (
        asked.stderr
    )


def test_prompts_are_linked_and_no_key_is_in_the_model(study, tracking, services, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ANIMALS_KEY", "sk-animals-0123456789abcdef")
    words = [*services[:1], "llm.key=ANIMALS_KEY", "generator=llm", "llm.model=extractive-1"]
    found = promote_study(study, "asking", overrides=words, tracking=tracking)
    prompts = found.registry.client.search_prompts()
    assert any("documents" in found.registry.client.get_prompt_version(each.name, 1).template for each in prompts)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"sk-animals-0123456789abcdef" in p.read_bytes()]
    answer = open_folder(found.registry.fetch(found.model)).ask(ASKED[0])
    assert answer.text
    assert answer.spent.calls == 1
    assert answer.spent.tokens_in > 0


def test_what_can_not_be_promoted_is_said(study, tracking, tmp_path) -> None:
    with pytest.raises(StudyError, match=r"there is no findings\.json"):
        promote_study(tmp_path, tracking=tracking)
    with pytest.raises(ModelError, match="champion or challenger"):
        promote_study(study, alias="best", tracking=tracking)
    with pytest.raises(ModelError, match="--name"):
        promote_study(study, "a/b", tracking=tracking)
    with pytest.raises(ConfigError, match="retriever"):
        promote_study(study, overrides=["retriever=nothing"], tracking=tracking)


def test_a_study_promotes_itself_where_it_is_told_to(animals, tmp_path, capsys) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    words = [f"studies_dir={tmp_path}", f"tracking.uri={uri}", f"tracking.artifacts={tmp_path}/files", "n_trials=2"]
    run_study([*animals, *words, "promote=true", "name=self"])
    assert "models:/self@champion is version 1" in capsys.readouterr().out
    study = rag_opt.load_study(tmp_path / "self")
    assert study.promote(tracking=uri) == "models:/self@challenger"


def test_a_registry_that_can_not_be_asked_makes_nobody_a_champion(study, tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("Too many 503 error responses", error_code=TEMPORARILY_UNAVAILABLE)

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", fail)
    with pytest.raises(ModelError, match="can't tell"):
        promote_study(study, tracking=uri)
    assert not MlflowClient(uri).search_registered_models()


def test_promoting_asks_no_model_and_goes_on_within_a_run(study, tracking, endpoint, services) -> None:
    words = [*services, "generator=llm", "llm.model=extractive-1", "retriever=bm25"]
    reset(endpoint)
    registry = Registry.connect(tracking)
    with registry.use(), mlflow.start_run(experiment_id=registry.find_experiment("mine")):
        promote_study(study, "unpaid", overrides=words, tracking=tracking)
    assert not any(counts(endpoint).values())


KNOWN = Lineage("new", 3, "now", fingerprint="new", corpus="c", baseline="old", metric="m", case="better")
CHAMPION = replace(KNOWN, study="old", fingerprint="old")


@pytest.mark.parametrize(
    ("candidate", "champion", "why"),
    [
        (KNOWN, CHAMPION, ""),
        (replace(KNOWN, case="cheaper"), CHAMPION, ""),
        (replace(KNOWN, case="unproven"), CHAMPION, "did not show"),
        (replace(KNOWN, case="alone"), CHAMPION, "did not show"),
        (replace(KNOWN, baseline="another"), CHAMPION, "did not compare"),
        (replace(KNOWN, baseline=""), CHAMPION, "did not compare"),
        (replace(KNOWN, fingerprint="old", case="", baseline=""), CHAMPION, ""),
        (replace(KNOWN, corpus="d"), CHAMPION, "other documents"),
        (replace(KNOWN, corpus="d", fingerprint="old"), CHAMPION, "update"),
        (KNOWN, None, "nothing is known"),
    ],
)
def test_only_what_was_confirmed_against_the_champion_takes_its_place(candidate, champion, why) -> None:
    found = explain_refusal(candidate, champion)
    assert why in found
    assert bool(found) == bool(why)


def test_a_promotion_has_mlflow_look_at_no_requirements(animals: list[str], tmp_path: Path, monkeypatch) -> None:
    from mlflow.utils import requirements_utils

    looked = list[int]()
    monkeypatch.setattr(requirements_utils, "_init_packages_to_modules_map", lambda: looked.append(1))
    study = animals_study(animals, tmp_path, "n_trials=1")
    assert promote_study(study, "animals", tracking=f"sqlite:///{tmp_path}/mlflow.db").address
    assert not looked
    look = requirements_utils.warn_dependency_requirement_mismatches
    with skip_requirement_check(), ThreadPoolExecutor(1) as pool:
        look(["mlflow==0.0.1"])
        assert not looked
        pool.submit(look, ["mlflow==0.0.1"]).result()
    look(["mlflow==0.0.1"])
    assert len(looked) == 2
