"""A served model tuned again: from what people asked and said to a challenger, a canary, a champion, and back."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
import yaml
from mlflow.tracing.client import TracingClient

from rag_opt.cli import retune, watch
from rag_opt.cli import study as study_command
from rag_opt.cli.study import run_study
from rag_opt.config.compose import compose_config
from rag_opt.config.quoting import quote_arguments
from rag_opt.errors import ConfigError, ModelError
from rag_opt.production import asked, judged
from rag_opt.production.asked import GONE, MASKED, UNTOLD, WRONG, read_asked
from rag_opt.production.bundle import Bundle
from rag_opt.production.canary import ROLLED_BACK, find_canary, roll_back
from rag_opt.production.judged import judge_sample
from rag_opt.production.promotion import promote_study
from rag_opt.production.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, read_lineage
from rag_opt.production.rounds import Round, find_rounds, find_seen
from rag_opt.production.updating import update_model
from rag_opt.serving.traces import write_trace
from tests.conftest import own_space, write_jsonl
from tests.services import fault
from tests.services.model_server import RECORD, serving

pytestmark = pytest.mark.integration
ANIMALS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("ra", "lomi")]
DOCUMENTS = [
    {"id": f"{name}-{part}", "text": f"The {name} {does} the {name[::-1]}."}
    for name in ANIMALS
    for part, does in (("food", "feeds on"), ("home", "lives near"))
]
HALF = len(ANIMALS) // 2
FRESH = ANIMALS[HALF:]
SPACE: dict[str, object] = {"retriever.top_k": "choice(1, 3)"}


def build_question(animal: str, text: str = "What is known of the {}?") -> dict[str, Any]:
    gold = [f"{animal}-food", f"{animal}-home"]
    return {"id": f"q-{animal}", "question": text.format(animal), "relevant": gold}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study whose only trial finds one document of two."""
    # A folder as people have them.
    folder = tmp_path_factory.mktemp("retuned") / "Bäume (1)"
    folder.mkdir()
    words = own_space(folder, SPACE)
    place = folder / "conf" / "experiment"
    place.mkdir()
    (place / "weak.yaml").write_text("# @package _global_\n" + yaml.safe_dump({"retriever": {"top_k": 1}}), "utf-8")
    data = [
        "dataset=jsonl",
        f"dataset.documents={write_jsonl(folder / 'documents.jsonl', DOCUMENTS)}",
        f"dataset.questions={write_jsonl(folder / 'questions.jsonl', map(build_question, ANIMALS[:HALF]))}",
    ]
    stages = ["embedder=hashing", "splitter=none", "retriever=bm25", "generator=none", "seeds=[]", "+experiment=weak"]
    stages.append("objective.metrics=[context.R@10]")
    known = [f"studies_dir={folder}/studies", f"store.path={folder}/store", "tracking=none", "n_trials=1", "name=mine"]
    known.append("confirmation.method=crossfit")
    return run_study(quote_arguments([*data, *stages, *words, *known])).folder


@pytest.fixture(scope="module")
def promoted(study, tmp_path_factory) -> Path:
    """MLflow's database with that study's model as its champion."""
    path = tmp_path_factory.mktemp("promoted") / "mlflow.db"
    promote_study(study, "mine", tracking=f"sqlite:///{path}")
    return path


@pytest.fixture
def registry(study, promoted, tmp_path) -> Iterator[Registry]:
    """A copy of that database; studies that tune the model are put away in the end."""
    # What it names, the bundle's files, lies where it was.
    shutil.copy(promoted, tmp_path / "mlflow.db")
    found = Registry.connect(f"sqlite:///{tmp_path}/mlflow.db")
    with found.use():
        yield found
    for folder in study.parent.glob("mine-retune-*"):
        folder.rename(tmp_path / folder.name)


class Traffic:
    """People who ask, and say what is right."""

    def __init__(self, registry: Registry) -> None:
        self.client = TracingClient(registry.uri)
        self.place = registry.find_experiment("served mine")
        self.count = 0

    def ask(self, question: str, version: str = "1", **more: Any) -> str:
        """The id of a trace of a question that found the food of an animal."""
        self.count += 1
        found = [{"id": f"{FRESH[0]}-food", "text": "The food.", "score": 1.0}]
        known = {"question": question, "version": f"models:/mine/{version}", "at": time.time(), "sources": found}
        return write_trace(self.client, self.place, f"{self.count:032x}", {**RECORD, **known, **more})

    def tell(self, trace: str, documents: list[str]) -> None:
        mlflow.log_expectation(
            trace_id=trace, name="expected_retrieved_context", value=[{"doc_uri": name} for name in documents]
        )

    def thumb(self, trace: str, *, up: bool) -> None:
        source = mlflow.entities.AssessmentSource(source_type="HUMAN", source_id="somebody")
        mlflow.log_feedback(trace_id=trace, name="thumbs", value=up, source=source)

    def ask_all(self) -> list[str]:
        """A trace for each fresh animal, with what people expect."""
        traces = []
        for animal in FRESH:
            traces.append(self.ask(f"Please tell me of the {animal}."))
            self.tell(traces[-1], [f"{animal}-food", f"{animal}-home"])
        return traces


@pytest.fixture
def traffic(registry) -> Traffic:
    return Traffic(registry)


def tune(registry: Registry, study: Path, *more: str) -> None:
    known = ["--fewest", "10", "--tracking", registry.uri, "--studies", str(study.parent)]
    retune.main(["models:/mine", "n_trials=3", *known, *more])


def begin(registry: Registry, study: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """A round that is killed as its study begins."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study_command, "run_study", interrupt)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            tune(registry, study, *more)


def read_rows(study: Path, number: int) -> dict[str, dict[str, Any]]:
    """The questions of a round, by their ids."""
    lines = (study.parent / f"mine-retune-{number}/retune/questions.jsonl").read_text("utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def get_version(registry: Registry, alias: str) -> str | None:
    found = registry.find_alias("mine", alias)
    return None if found is None else str(found.version)


def test_a_better_one_becomes_challenger_then_champion_and_goes_back_on_an_alarm(
    registry, traffic, study, capsys
) -> None:
    traffic.ask_all()
    tune(registry, study, "--answers", "40")
    told = capsys.readouterr().out
    assert f"{HALF} questions that the model was tuned with, {len(FRESH)} fresh ones" in told
    assert "models:/mine@challenger is version 2 now" in told
    assert "is better: context.R@10 +" in told
    lineage = read_lineage(registry.find_alias("mine", CHALLENGER))
    assert lineage.study == "mine-retune-1"
    assert lineage.low > 0
    rows = [json.loads(line) for line in (study.parent / "mine-retune-1/retune/questions.jsonl").open()]
    # Fresh ones confirm, and what the model was tuned with is searched.
    assert {row["split"] for row in rows if row["id"].startswith("tr-")} == {"test"}
    assert {row["split"] for row in rows if not row["id"].startswith("tr-")} == {"dev"}
    # What people have asked is in no bundle.
    assert not [
        probe
        for probe in Bundle.read(registry.fetch(registry.find("models:/mine/2"))).probes
        if "Please" in probe.question
    ]

    tune(registry, study, "--answers", "40")
    assert "40 more answers of each are awaited" in capsys.readouterr().out
    for _ in range(40):
        traffic.ask("What is it?", "2")
    # Nothing to compare with, so far.
    tune(registry, study, "--answers", "40")
    assert "40 more answers of each are awaited" in capsys.readouterr().out
    for _ in range(40):
        traffic.ask("What is it?")
    tune(registry, study, "--answers", "40")
    assert "models:/mine@champion is version 2 now, in place of 1" in capsys.readouterr().out
    assert (get_version(registry, PREVIOUS), get_version(registry, CHALLENGER)) == ("1", None)

    # Nothing has been said since.
    tune(registry, study)
    assert "models:/mine stays: 0 fresh questions" in capsys.readouterr().out

    for up in [True] * 40 + [False] * 40:
        traffic.thumb(traffic.ask("And now?", "2"), up=up)
    with pytest.raises(SystemExit) as ended:
        watch.main(["models:/mine", "--rollback", "--tracking", registry.uri])
    assert ended.value.code == 1
    assert "models:/mine@champion is version 1 again, in place of 2" in capsys.readouterr().out
    assert get_version(registry, CHAMPION) == "1"
    assert registry.client.get_model_version("mine", "2").tags[ROLLED_BACK] == "alarm: thumbs"


def test_a_canary_that_is_worse_is_taken_back(registry, traffic, study, capsys) -> None:
    promote_study(study, "mine", because="for the test", tracking=registry.uri)
    for _ in range(30):
        traffic.thumb(traffic.ask("Well?"), up=True)
        traffic.thumb(traffic.ask("Well?", "2"), up=False)
    with pytest.raises(SystemExit) as ended:
        tune(registry, study)
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert "models:/mine@challenger is no more: version 2 was taken back" in told
    assert "worse than the champion: thumbs" in told
    assert get_version(registry, CHALLENGER) is None
    assert get_version(registry, CHAMPION) == "1"


def test_what_was_deleted_or_masked_reaches_no_data_set(registry, traffic, study, capsys) -> None:
    traces = traffic.ask_all()
    masked = [traffic.ask(f"Tell <PERSON> of the {FRESH[0]}!"), traffic.ask(f"My key is ***, what of the {FRESH[1]}?")]
    for trace in masked:
        traffic.tell(trace, [f"{FRESH[0]}-food"])
    registry.client.delete_traces(traffic.place, trace_ids=traces[:2])
    # Not better by so much: it stays, and what decided is searched the next time.
    tune(registry, study, "--min-gain", "0.9")
    assert f"2 left out, which {MASKED}" in capsys.readouterr().out
    first = (study.parent / "mine-retune-1/retune/questions.jsonl").read_text("utf-8")
    assert FRESH[2] in first
    for gone in (FRESH[0], FRESH[1], "PERSON", "***"):
        assert gone not in first
    registry.client.delete_traces(traffic.place, trace_ids=traces[2:3])
    again = []
    for animal in FRESH:
        again.append(traffic.ask(f"Now what about a {animal} at home?"))
        traffic.tell(again[-1], [f"{animal}-home", f"{animal}-food"])
    tune(registry, study, "--min-gain", "0.9")
    assert "1 left out, which were deleted, masked or taken back since they were asked" in capsys.readouterr().out
    rows = [json.loads(line) for line in (study.parent / "mine-retune-2/retune/questions.jsonl").open()]
    ids = {row["id"]: row["split"] for row in rows}
    assert traces[2] not in ids
    assert ids[traces[3]] == "dev"
    assert {ids[name] for name in again} == {"test"}


def test_one_that_was_interrupted_goes_on_with_the_same_questions(
    registry, traffic, study, capsys, monkeypatch
) -> None:
    traffic.ask_all()

    begin(registry, study, monkeypatch)
    assert find_seen(registry, "mine") == 0
    late = traffic.ask(f"And the {FRESH[0]}, late?")
    traffic.tell(late, [f"{FRESH[0]}-home"])
    tune(registry, study)
    assert "models:/mine@challenger is version 2 now" in capsys.readouterr().out
    assert late not in (study.parent / "mine-retune-1/retune/questions.jsonl").read_text("utf-8")
    assert not (study.parent / "mine-retune-2").exists()
    assert find_seen(registry, "mine") > 0


def test_a_deletion_in_between_begins_another_study(registry, traffic, study, capsys, monkeypatch) -> None:
    traces = traffic.ask_all()
    begin(registry, study, monkeypatch)
    (study.parent / "mine-retune-1/study.db").touch()
    registry.client.delete_traces(traffic.place, trace_ids=traces[:1])
    tune(registry, study)
    assert "models:/mine@challenger is version 2 now" in capsys.readouterr().out
    assert read_lineage(registry.find_alias("mine", CHALLENGER)).study == "mine-retune-2"
    assert_gone(study, FRESH[0])


def assert_gone(study: Path, animal: str) -> None:
    """Of an animal that is asked about in no question any more nothing but its documents is left."""
    held = [path for path in study.parent.glob("mine-retune-*/retune/**/*") if path.is_file()]
    assert not [path for path in held if path.name != "documents.jsonl" and animal in path.read_text("utf-8")]


def test_a_round_that_has_lost_too_many_questions_gives_way(registry, traffic, study, capsys, monkeypatch) -> None:
    traces = traffic.ask_all()
    many = str(len(FRESH))
    begin(registry, study, monkeypatch, "--fewest", many)
    registry.client.delete_traces(traffic.place, trace_ids=traces[:1])
    tune(registry, study, "--fewest", many)
    assert f"{len(FRESH) - 1} fresh questions, {many} are needed" in capsys.readouterr().out
    assert_gone(study, FRESH[0])
    late = traffic.ask(f"And the {FRESH[1]}, what does it feed on?")
    traffic.tell(late, [f"{FRESH[1]}-food"])
    tune(registry, study, "--fewest", many)
    assert "models:/mine@challenger is version 2 now" in capsys.readouterr().out


def test_what_was_said_and_is_taken_back_is_in_no_later_data_set(registry, traffic, study) -> None:
    traces = traffic.ask_all()
    noted = mlflow.log_expectation(trace_id=traces[0], name="expected_response", value="a private answer")
    tune(registry, study, "--min-gain", "0.9")
    assert read_rows(study, 1)[traces[0]]["answers"] == ["a private answer"]
    mlflow.delete_assessment(trace_id=traces[0], assessment_id=noted.assessment_id)
    wrong = next(each for each in mlflow.get_trace(traces[1]).info.assessments if each.expectation)
    mlflow.delete_assessment(trace_id=traces[1], assessment_id=wrong.assessment_id)
    traffic.tell(traces[2], [f"{FRESH[3]}-food"])
    for animal in FRESH:
        traffic.tell(traffic.ask(f"Now what about a {animal} at home?"), [f"{animal}-home"])
    tune(registry, study, "--min-gain", "0.9")
    found = read_rows(study, 2)
    assert "private" not in (study.parent / "mine-retune-2/retune/questions.jsonl").read_text("utf-8")
    assert traces[1] not in found
    # The last word counts, also of what was searched before.
    assert found[traces[2]]["relevant"] == {f"{FRESH[3]}-food": 1}
    assert found[traces[0]]["split"] == "dev"


@pytest.mark.parametrize("damage", ["state.json", "questions.jsonl", "empty"])
def test_files_that_are_gone_or_half_written_hold_up_nothing(registry, traffic, study, capsys, monkeypatch, damage):
    traffic.ask_all()
    begin(registry, study, monkeypatch)
    place = study.parent / "mine-retune-1/retune"
    if damage == "empty":
        (place / "state.json").write_text("")
    else:
        (place / damage).unlink()
    tune(registry, study)
    assert "models:/mine@challenger is version 2 now" in capsys.readouterr().out


@pytest.mark.parametrize("kept", [True, False])
def test_a_champion_that_was_tuned_is_tuned_again(registry, traffic, study, capsys, monkeypatch, kept: bool) -> None:
    # Without the file it is by their time alone that they are told from fresh ones.
    monkeypatch.setattr(asked, "EARLY", 0)
    traces = traffic.ask_all()
    tune(registry, study, "--answers", "0")
    assert "models:/mine@champion is version 2 now" in capsys.readouterr().out
    if not kept:
        (study.parent / "mine-retune-1/retune/questions.jsonl").unlink()
    for animal in FRESH:
        traffic.tell(traffic.ask(f"Now what about a {animal} at home?", "2"), [f"{animal}-home"])
    tune(registry, study)
    assert "models:/mine stays version 2: the search has found nothing better" in capsys.readouterr().out
    # What decided the first time is searched now; without its file the bundle's own questions are.
    found = read_rows(study, 2)
    assert {found[name]["split"] for name in traces if name in found} == ({"dev"} if kept else set())
    assert sum(row["split"] == "dev" for row in found.values()) == (len(ANIMALS) if kept else HALF)


def test_rounds_are_a_models_own(tmp_path) -> None:
    known = {"version": "1", "made": 7, "corpus": "c", "since": 0, "until": 9}
    for model, name in (("mine", "mine-retune-2"), ("mine", "mine-retune-10"), ("mine-retune-1", "mine-retune-1")):
        found = Round(model=model, folder=tmp_path / name, **known)
        found.questions.parent.mkdir(parents=True)
        found.questions.touch()
        found.begin()
    other = Round(model="mine-retune-1", folder=tmp_path / "mine-retune-1-retune-1", **known)
    other.questions.parent.mkdir(parents=True)
    other.questions.touch()
    other.begin()
    assert [each.folder.name for each in find_rounds(tmp_path, "mine")] == ["mine-retune-2", "mine-retune-10"]
    assert list(find_rounds(tmp_path, "mine-retune-1")) == [other]
    other.give_up()
    assert list(find_rounds(tmp_path, "mine-retune-1")) == []


def test_after_an_update_evidence_of_changed_texts_is_left_out(registry, traffic, study, tmp_path, capsys) -> None:
    rows = []
    for animal in ANIMALS[:HALF]:
        evidence = [{"doc_id": f"{animal}-food", "start": 0, "end": 3}, {"doc_id": f"{animal}-home", "quote": animal}]
        rows.append({**build_question(animal), "evidence": evidence})
    path = study.parent.parent / "questions.jsonl"
    before = path.read_text("utf-8")
    write_jsonl(path, rows)
    try:
        kept = [row for row in DOCUMENTS if not row["id"].startswith(f"{ANIMALS[0]}-")]
        update_model(registry, "models:/mine", write_jsonl(tmp_path / "kept.jsonl", kept), "for the test")
        traffic.ask_all()
        tune(registry, study)
    finally:
        path.write_text(before, "utf-8")
    told = capsys.readouterr().out
    assert "1 left out, which are about documents that are gone or have changed" in told
    assert "models:/mine@challenger is version 3 now" in told
    assert not [row for row in read_rows(study, 1).values() if "evidence" in row]


def test_a_canary_counts_what_it_answered_and_can_be_taken_back(registry, traffic, study, capsys) -> None:
    promote_study(study, "mine", because="for the test", tracking=registry.uri)
    for _ in range(12):
        traffic.ask("Well?", "2", error="away", sources=[])
        traffic.ask("Well?", error="away", sources=[])
    canary = find_canary(registry, "mine")
    assert (canary.answered, canary.beside) == (0, 0)
    tune(registry, study, "--answers", "10")
    assert "10 more answers of each are awaited" in capsys.readouterr().out
    registry.set_alias(registry.find("models:/mine/1"), CHALLENGER)
    with pytest.raises(ModelError, match="stays version 1: what was judged is version 2"):
        roll_back(registry, canary.challenger, CHALLENGER, "a test")
    # A challenger that is the champion already is none.
    assert find_canary(registry, "mine") is None
    assert get_version(registry, CHALLENGER) is None
    registry.set_alias(canary.challenger, CHALLENGER)
    tune(registry, study, "--take-back")
    assert "models:/mine@challenger is no more: version 2 was taken back" in capsys.readouterr().out
    registry.set_alias(canary.challenger, CHALLENGER)
    # Nor is one that was taken back, whoever was killed before its alias was.
    assert find_canary(registry, "mine") is None


def test_a_challenger_over_other_documents_says_what_to_do(registry, study, tmp_path) -> None:
    promote_study(study, "mine", tracking=registry.uri)
    update_model(registry, "models:/mine", write_jsonl(tmp_path / "fewer.jsonl", DOCUMENTS[2:]), "for the test")
    with pytest.raises(ModelError, match=r"update models:/mine@challenger <documents> .*--take-back takes"):
        find_canary(registry, "mine")


def test_what_people_say_is_read_as_they_mean_it(registry, traffic) -> None:
    right, wrong, both, gone, answered = (traffic.ask(f"Question {n}?") for n in range(5))
    untold = traffic.ask("Nobody says anything?")
    graded = traffic.ask("A judge says something?")
    source = mlflow.entities.AssessmentSource(source_type="LLM_JUDGE", source_id="a model")
    mlflow.log_feedback(trace_id=graded, name="judge.faithfulness", value=5.0, source=source)
    traffic.thumb(right, up=True)
    traffic.thumb(wrong, up=False)
    traffic.thumb(both, up=True)
    # The same person's last word counts.
    traffic.thumb(both, up=False)
    traffic.tell(gone, ["no such document"])
    person = mlflow.entities.AssessmentSource(source_type="HUMAN", source_id="somebody")
    mlflow.log_feedback(trace_id=wrong, name="toxic", value=True, source=person)
    mlflow.log_expectation(trace_id=answered, name="expected_response", value="the food")
    found, left = read_asked(registry, "mine", 0, int(time.time() * 1000) + 1, [f"{FRESH[0]}-food"])
    assert {query.id: names for query, names in found} == {
        right: (f"{FRESH[0]}-food",),
        answered: (f"{FRESH[0]}-food",),
    }
    assert left == {WRONG: 2, GONE: 1, UNTOLD: 2}
    assert untold


def test_there_is_no_way_back_to_other_documents_or_from_nothing(registry, study) -> None:
    with pytest.raises(ModelError, match="no version before it is known"):
        roll_back(registry, registry.find("models:/mine"), CHAMPION, "a test")
    assert find_canary(registry, "mine") is None
    second = promote_study(study, "mine", CHAMPION, "a test", tracking=registry.uri)
    lineage = json.loads(registry.client.get_model_version("mine", "1").tags["rag_opt.lineage"])
    registry.client.set_model_version_tag("mine", "1", "rag_opt.lineage", json.dumps({**lineage, "corpus": "other"}))
    with pytest.raises(ModelError, match="knows other documents"):
        roll_back(registry, registry.find("models:/mine"), CHAMPION, "a test")
    assert get_version(registry, CHAMPION) == str(second.model.version)


def test_a_service_takes_a_canary_up_when_it_comes_and_lets_it_go(registry, study, tmp_path) -> None:
    canary = {"canary": "models:/mine@challenger", "share": 0.5, "refresh": 0.05}

    def wait_for(url: str, wanted: dict[str, str]) -> float:
        start = time.perf_counter()
        while httpx.get(f"{url}/ready").json()["models"] != wanted:
            assert time.perf_counter() - start < 20
            time.sleep(0.02)
        return time.perf_counter() - start

    with serving("models:/mine@champion", registry.uri, tmp_path / "state", traces=0.0, **canary) as url:
        wait_for(url, {"model": "models:/mine/1"})
        promote_study(study, "mine", because="for the test", tracking=registry.uri)
        wait_for(url, {"model": "models:/mine/1", "canary": "models:/mine/2"})
        registry.crown(registry.find("models:/mine@challenger"))
        registry.drop_alias("mine", CHALLENGER)
        wait_for(url, {"model": "models:/mine/2"})
        roll_back(registry, registry.find("models:/mine"), CHAMPION, "a test")
        wait_for(url, {"model": "models:/mine/1"})


def test_a_watch_has_a_sample_graded_once_and_leaves_a_page(
    registry, traffic, endpoint, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    fault(endpoint, "none")
    for number in range(6):
        animal = FRESH[number]
        source = {"id": f"{animal}-food", "text": f"The {animal} feeds on the grass.", "score": 1.0}
        traffic.ask(f"What does the {animal} feed on?", answer=f"The {animal} feeds on the grass.", sources=[source])
    traffic.ask("What failed?", error="away", sources=[])
    judge = [f"llm.base_url={endpoint}", "llm.key=null", f"store.path={tmp_path}/store", "judge.check=0"]
    page = tmp_path / "watch.html"
    watch.main(["models:/mine", *judge, "--judge", "4", "--page", str(page)])
    told = capsys.readouterr().out
    assert "graded: 4 for faithfulness, 4 for context_relevance; paid: 8 calls" in told
    assert "no alarm" in told
    # Two are left, and nothing is paid twice.
    watch.main(["models:/mine", *judge, "--judge", "4"])
    assert "graded: 2 for faithfulness, 2 for context_relevance; paid: 4 calls" in capsys.readouterr().out
    grades = [
        (each.name, each.source.source_type, 1 <= each.feedback.value <= 5)
        for trace in mlflow.search_traces(locations=[traffic.place], return_type="list")
        for each in trace.info.assessments
    ]
    assert sorted(grades) == sorted(
        [(f"judge.{aspect}", "LLM_JUDGE", True) for aspect in ("faithfulness", "context_relevance")] * 6
    )
    assert "judge.faithfulness" in page.read_text("utf-8")
    with pytest.raises(ConfigError, match="--aspect correctness: there is no such judge"):
        judge_sample(registry, registry.find("models:/mine"), compose_config(judge), ["correctness"], 1, 0)
    strict = compose_config([*judge, "judge.check=6", "judge.floor=0.99"])
    with pytest.raises(ConfigError, match="below judge.floor=0.99"):
        judge_sample(registry, registry.find("models:/mine"), strict, ["faithfulness"], 1, 0)
    measure = vars(judged)["measure_judge"]
    monkeypatch.setattr(
        judged, "measure_judge", lambda *given: replace(measure(*given), right=3.0, wrong=3.0, distinct=1)
    )
    trusted = compose_config([*judge, "judge.check=6", "judge.trust=true"])
    with pytest.raises(ConfigError, match=r"it gives 3 to each of \d+ labelled answers.*choose another judge.model"):
        judge_sample(registry, registry.find("models:/mine"), trusted, ["faithfulness"], 1, 0)


def test_a_judge_stops_at_its_budget_and_what_it_said_is_kept(registry, traffic, endpoint, tmp_path, capsys) -> None:
    fault(endpoint, "none")
    for number in range(30):
        traffic.ask(f"What about {number}?", answer=f"It is {number}.")
    judge = [f"llm.base_url={endpoint}", "llm.key=null", f"store.path={tmp_path}/store", "judge.check=0"]
    words = [*judge, "budget.tokens=3000", "--judge", "30", "--aspect", "faithfulness", "--tracking", registry.uri]
    # These questions are shorter than the study's, which is an alarm of its own.
    with pytest.raises(SystemExit):
        watch.main(["models:/mine", *words])
    told = capsys.readouterr().out
    assert "budget.tokens=3,000 is spent" in told
    graded = int(told.partition("graded: ")[2].partition(" ")[0])
    assert 0 < graded < 30
