"""A result means what it says: all are measured alike, nothing is left out, and no other is better in everything."""

from __future__ import annotations

import string
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

import ir_measures
import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState, create_trial

from rag_opt.analysis.confirmation import build_confirmation
from rag_opt.cli.ask import answer_question
from rag_opt.cli.study import run_study
from rag_opt.cli.trial import measure_configuration
from rag_opt.config import overrides
from rag_opt.config.trial import TrialConfig
from rag_opt.errors import ComponentError, SearchSpaceError
from rag_opt.evaluation.evaluator import Evaluator
from rag_opt.evaluation.latency import NARROW
from rag_opt.records.scores import Evaluation, Latency
from rag_opt.storages import archive
from rag_opt.storages import scores as scorebook
from rag_opt.storages.snapshot import StudySnapshot
from rag_opt.study import finalists
from rag_opt.study.finalists import confirm_finalists
from rag_opt.study.plan import Plan, build_plan
from tests.conftest import own_space, write_jsonl
from tests.faults.conftest import Figure
from tests.faults.test_copies import file_of
from tests.unit.ranking_parts import ReordersSlowlyOnce, StartsSlowly
from tests.unit.test_depth import books
from tests.unit.test_wiring import OURS, REFUSED, own

# ---- all are measured alike

SPACE: dict[str, object] = {
    "splitter.chunk_size": "choice(8, 16, 100)",
    "retriever": "choice(bm25, dense, hybrid)",
    "retriever.top_k": "range(1, 21)",
    "retriever.fusion": {"values": "choice(weighted, rrf)", "when": {"retriever": "hybrid"}},
    "reranker": "choice(none, mmr)",
    "reranker.keep": {"values": "range(1, 6)", "when": {"reranker": "mmr"}},
}
DEPTH, MOST = 10, 20
MEASURES = (ir_measures.nDCG @ DEPTH, ir_measures.R @ DEPTH, ir_measures.RR @ DEPTH, ir_measures.AP @ DEPTH)


@pytest.fixture
def chunked(tmp_path: Path) -> list[str]:
    """A study over thirteen documents of several chunks each, whose space hands on from one chunk to twenty."""
    dataset = books().dataset
    documents = [{"id": each.id, "text": each.text} for each in dataset.documents]
    questions = [
        {"id": each.id, "question": each.text, "answer": each.answers[0], "relevant": dict(dataset.qrels[each.id])}
        for each in dataset.queries
    ]
    return [
        *("dataset=jsonl", f"dataset.documents={write_jsonl(tmp_path / 'd.jsonl', documents)}"),
        f"dataset.questions={write_jsonl(tmp_path / 'q.jsonl', questions)}",
        *own_space(tmp_path, SPACE),
        *("splitter=word", "embedder=hashing", "generator=none", "name=animals"),
        *("objective.metrics=[nDCG@10,tokens]", f"objective.report=[{','.join(map(str, MEASURES[1:]))}]"),
        *(f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none"),
    ]


def by_another(plan: Plan, retrieved: dict[str, list[str]]) -> dict[str, float]:
    """The means that ir_measures finds for these documents in their order."""
    ranked = {query: {key: -float(place) for place, key in enumerate(keys)} for query, keys in retrieved.items()}
    grades = {query: dict(plan.dataset.qrels[query]) for query in retrieved}
    found = ir_measures.calc_aggregate(list(MEASURES), grades, ranked)
    return {str(measure): value for measure, value in found.items()}


def test_every_configuration_is_scored_on_as_many_documents(chunked, long: bool, figure: Figure) -> None:
    """However few chunks are handed on; and as another implementation scores them."""
    plan, study = build_plan(chunked), optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    drawn = {
        tuple(overrides.format_overrides(plan.space.suggest(study.ask()))): None for _ in range(300 if long else 12)
    }
    handed, furthest = set(), 0.0
    for given in drawn:
        found = plan.dev.measure_config(plan.dev.compose_overrides(given))
        assert all(len(keys) >= DEPTH for keys in found.retrieved)
        for name, value in by_another(plan, dict(zip(found.query_ids, found.retrieved, strict=True))).items():
            furthest = max(furthest, abs(found.means[name] - value))
        (top_k,) = (word for word in given if word.startswith("retriever.top_k="))
        handed.add(int(top_k.partition("=")[2]))
        if "reranker=none" in given:
            deepest = plan.dev.measure_config(plan.dev.compose_overrides([*given, f"retriever.top_k={MOST}"]))
            assert np.array_equal(deepest.per_query["nDCG@10"], found.per_query["nDCG@10"])
    assert furthest < 1e-9
    assert len(handed) > 5
    figure(
        "the same measure for every configuration",
        f"{len(drawn)} configurations that hand on {min(handed)} to {max(handed)} chunks: at least {DEPTH} documents a "
        f"question, at most {furthest:.0e} from ir_measures, the same ranks to the bit with {MOST} chunks",
    )


# ---- nothing that is configured is left out


def misspelt(word: str, count: int) -> list[str]:
    """So many ways to mistype a word by a letter."""
    chance, found = Random(0), dict[str, None]()
    while len(found) < count:
        place, letter = chance.randrange(len(word)), chance.choice(string.ascii_lowercase)
        end = word[place + 1 :]
        found |= dict.fromkeys(
            (word[:place] + end, f"{word[:place]}{letter}{end}", f"{word[:place]}{letter}{word[place:]}")
        )
        found.pop(word, None)
    return [*found][:count]


def misnamed(count: int) -> Iterator[list[str]]:
    """The words for rerankers of which each takes, or gives, what is called a little differently."""
    for name in misspelt("ranking", count):
        for takes, gives in (("ranking", name), (name, "ranking")):
            sockets = (f"+reranker.components.mine.{key}={each}" for key, each in (("takes", takes), ("gives", gives)))
            yield [own("reranker", f"{OURS}.Misnamed"), *sockets]


def in_a_space(folder: Path, words: Sequence[str]) -> list[str]:
    """The words with which the same components are a file that only the search space chooses."""
    (whole,) = (word for word in words if word.startswith("+"))
    key, _, target = whole.partition("=")
    stage, _, name, _ = key.removeprefix("+").split(".")
    place = folder / "conf" / stage
    place.mkdir(parents=True, exist_ok=True)
    (place / "mine.yaml").write_text(yaml.safe_dump({"components": {name: {"_target_": target}}}), "utf-8")
    rows = {stage: f"choice({DEFAULTS[stage]}, mine)", "retriever.top_k": "range(3, 6)"}
    return [*own_space(folder, rows), *(word for word in words if word != whole)]


DEFAULTS = {"reranker": "none", "context": "none", "generator": "extractive"}
"""The groups in which a file of one component is a whole choice: a retriever needs more than one."""


def useless(folder: Path, long: bool) -> Iterator[tuple[list[str], str]]:
    """Words that give a study a component that serves nothing, and what is said of it."""
    yield from REFUSED.values()
    for added in misnamed(200 if long else 2):
        yield added, r"^mine: .*did you mean 'ranking'"
    chosen = [case for case in REFUSED.values() if case[0][0].startswith(tuple(f"+{stage}" for stage in DEFAULTS))]
    for place, (added, message) in enumerate(chosen if long else chosen[:2]):
        yield in_a_space(folder / str(place), added), message.strip("^$")


def test_what_serves_nothing_is_refused_before_the_first_trial(
    words, tmp_path: Path, long: bool, figure: Figure
) -> None:
    """On the command line and as a choice of the space, by a study, a single configuration and a question."""
    refused = Counter[str]()
    commands = {
        "study": run_study,
        "trial": measure_configuration,
        "ask": lambda given: answer_question([*given, "question=who"]),
    }
    for added, message in useless(tmp_path, long):
        in_space = "search_space=own" in added
        for name, command in commands.items() if long and not in_space else [("study", run_study)]:
            with pytest.raises(SearchSpaceError if in_space else ComponentError, match=message):
                command([*words, "trusted_modules=[tests]", *added])
            refused[name] += 1
    assert not (tmp_path / "studies/animals/study.db").exists()
    figure(
        "nothing configured is dropped",
        f"{refused.total()} useless, misspelt or misplaced components: refused before trial 0",
    )


# ---- latency is the pipeline's


STARTS = (0.1, 3.5, 60.0, 900.0)


def slow_components(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[float]]:
    """Time that passes in a reranker alone, which starts slowly whenever it is timed; the starts that there were.

    And how narrow an interval ended each timing.
    """
    starts: list[float] = []
    narrow: list[float] = []
    real = Evaluator.measure_latency

    def timed(self: Evaluator, given: TrialConfig, enough: float = 0.0) -> Latency | None:
        narrow.append(enough)
        ReordersSlowlyOnce.started.clear()
        monkeypatch.setattr(ReordersSlowlyOnce, "start", STARTS[len(starts) % len(STARTS)])
        starts.append(ReordersSlowlyOnce.start)
        return real(self, given, enough)

    monkeypatch.setattr(Evaluator, "measure_latency", timed)
    monkeypatch.setattr(time, "perf_counter", lambda: ReordersSlowlyOnce.clock[0])
    return starts, narrow


def test_no_reported_latency_holds_a_slow_start(words, monkeypatch, long: bool, figure: Figure) -> None:
    """Neither a median nor a percentile, of a component that tells no cost and so is timed apart from the search."""
    starts, narrow = slow_components(monkeypatch)
    mine = [own("reranker", f"{OURS}.ReordersSlowlyOnce"), "trusted_modules=[tests]", "pruner=none", "retriever=bm25"]
    told = ["objective.metrics=[nDCG@10,latency]", "objective.report=[latency_p95]", f"n_trials={60 if long else 4}"]
    found = run_study([*words, *mine, *told]).findings
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{file_of(words)}")
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    seconds = [trial.user_attrs["metrics"][name] for trial in trials for name in ("latency", "latency_p95")]
    seconds += [each for latency in found.latencies.values() for each in (latency.p50, latency.p95)]
    assert len(found.latencies) == narrow.count(NARROW) > 0
    assert set(narrow) == {0.0, NARROW}, "what decides is timed over all questions, what is reported as long as needed"
    seconds += [arm.test for arm in found.confirmations[1].arms]
    assert seconds == pytest.approx([0.02] * len(seconds))
    assert set(starts) == set(STARTS)
    figure(
        "latency is the pipeline's",
        f"{len(starts)} first calls of {min(STARTS)} to {max(STARTS):.0f} s among calls of 0.02 s: "
        f"{len(seconds)} latencies in trials, confirmation and report, all 0.02 s",
    )


@pytest.mark.parametrize("batches", [2, 7])
def test_nor_does_one_that_comes_from_the_search_itself(words, tmp_path: Path, batches: int) -> None:
    """A component that pays for each question is asked in the search alone: its median counts."""
    StartsSlowly.started.clear()
    mine = ["generator=none", own("generator", f"{OURS}.StartsSlowly"), "trusted_modules=[tests]"]
    plan = build_plan([*words, *mine, f"evaluation.batches={batches + 1}"])
    evaluation = plan.dev.measure_config(plan.shown[0])
    assert evaluation.means["latency"] == pytest.approx(0.01)


# ---- no other is better in everything

TRIALS = 10


def better_in_all(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the first is at least as good in both objectives, more of the one and less of the other, and not equal."""
    return one[0] >= other[0] and one[1] <= other[1] and tuple(one) != tuple(other)


def planted(study: optuna.Study, chance: np.random.Generator, questions: int) -> list[FrozenTrial]:
    """Trials whose scores lie within noise of each other, some of them equal; costs know nothing of the objectives."""
    ids = [f"q{place}" for place in range(questions)]
    difficulty = chance.normal(0.5, 0.2, questions)
    latencies = chance.integers(1, 9, TRIALS) / 100
    for number, latency in enumerate(latencies.tolist()):
        noise = chance.normal(chance.normal(0, 0.05), 0.1, questions)
        scores = np.clip(np.round(difficulty + noise, 1), 0, 1)
        values = [float(scores.mean()), latency]
        metrics = {"nDCG@10": values[0], "latency": latency, "tokens": float(chance.integers(100, 3000))}
        about = {"metrics": metrics, "origin": "random" if number else "baseline"}
        study.add_trial(create_trial(values=values, user_attrs=about))
        columns = {"nDCG@10": scores.tolist(), "latency": [latency] * questions}
        archive.store_files(study, number, {scorebook.FILE: scorebook._serialize_table(ids, columns)})
    return study.get_trials()


def test_no_trial_is_better_in_both_objectives_than_what_is_selected(
    words, tmp_path: Path, monkeypatch, long: bool, figure: Figure
) -> None:
    """Nor are the ends of the front left out of what is confirmed."""
    plan = build_plan([*words, "objective.metrics=[nDCG@10,latency]"])
    asked_later, dev = plan.test.questions.count, plan.dev.questions.count
    chance = np.random.default_rng(0)

    def measured(*_: object) -> Evaluation:
        scores = {"nDCG@10": chance.random(asked_later), "latency": np.full(asked_later, 0.02)}
        return Evaluation(tuple(map(str, range(asked_later))), scores, {}, {}, coverage=dict.fromkeys(scores, 1.0))

    monkeypatch.setattr(Evaluator, "measure_config", measured)
    monkeypatch.setattr(finalists, "build_confirmation", partial(build_confirmation, resamples=10))
    storage, dominated, tied = optuna.storages.RDBStorage("sqlite://"), 0, 0
    studies = 400 if long else 40
    for seed in range(studies):
        study = optuna.create_study(study_name=str(seed), storage=storage, directions=["maximize", "minimize"])
        archive.create_table(study)
        trials = planted(study, np.random.default_rng(seed), dev)
        found = confirm_finalists(plan, study, StudySnapshot(study)).confirmations
        chosen = trials[found[0].selected]
        assert [each.number for each in trials if better_in_all(each.values, chosen.values)] == []
        arms = {arm.trial for arm in found[0].arms}
        ends = (max(trial.values[0] for trial in trials), min(trial.values[1] for trial in trials))
        for place, end in enumerate(ends):
            assert end in {trials[number].values[place] for number in arms}
        dominated += any(better_in_all(one.values, other.values) for one in trials for other in trials)
        tied += found[0].all_tied > 0
    assert dominated == studies
    assert tied > studies / 4
    figure(
        "what is selected is never dominated",
        f"{studies} simulated studies of two objectives, in {tied} of which costs decided among tied ones: "
        "0 selected trials that another is better than in both; both ends of the front confirmed in all",
    )
