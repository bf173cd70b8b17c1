"""What happens once, a model that loads, a server that starts, is no part of what a question takes."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest

from rag_opt.cache.store import Store
from rag_opt.components.embedders.embedding_cache import embed_texts, score_pairs
from rag_opt.components.embedders.encoder import Encoder
from rag_opt.components.embedders.encoders import MiniLM
from rag_opt.components.llm.talks import Talk, Talks
from rag_opt.components.ranking import compute_rankings
from rag_opt.components.rerankers.pairs import BETWEEN, MaxSim
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.trial import compose_trial
from rag_opt.console.progress import Screen
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.evaluator import Evaluator
from rag_opt.evaluation.latency import _is_enough, time_pipeline
from rag_opt.evaluation.objective import build_objective
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.llm.replies import Reply
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.documents import Dataset, Document, Floats, Ints, Queries, Query
from tests.unit.ranking_parts import ReordersSlowlyOnce, StartsSlowly
from tests.unit.test_depth import chunks

TEXTS = [f"text {number}" for number in range(8)]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "perf_counter", found)
    return found


class SlowOnce(Encoder):
    """Ten seconds for the first call, a hundredth for each text."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.calls, self.name = clock, 0, "slow once"

    @property
    def fingerprint(self) -> str:
        return "slow once"

    def prepare(self, count: int) -> None:
        self.encode([])

    def encode(self, texts: list[str]) -> Floats:
        self.clock.now += 0.01 * len(texts) + (0.0 if self.calls else 10.0)
        self.calls += 1
        return np.ones((len(texts), 1), np.float32)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_model_that_loads_is_not_charged_to_the_first_texts_nor_kept(tmp_path, clock: Clock, on_disk: bool) -> None:
    store = Store(tmp_path / "store" if on_disk else None)
    assert embed_texts(SlowOnce(clock), TEXTS, store).seconds == pytest.approx(0.08)
    again = Store(tmp_path / "store")
    if on_disk:
        assert embed_texts(SlowOnce(clock), TEXTS, again).seconds == pytest.approx(0.08)
    assert score_pairs(SlowOnce(clock), [f"pair {text}" for text in TEXTS], Store())[1] == pytest.approx(0.08)


def test_a_model_is_ready_before_the_first_text(store: Store) -> None:
    """Loaded, and run once."""
    for encoder, text in ((MiniLM(), "a text"), (MaxSim(MiniLM()), f"a{BETWEEN}text")):
        encoder.use(Resources.from_store(store))
        encoder.prepare(2)
        known = set(store._live)
        assert {"model", "ready"} <= {stage for stage, _ in known}
        encoder.encode([text])
        assert {key for key in store._live if key[0] != "token vectors"} <= known


def test_the_first_touch_of_an_index_is_not_charged_to_questions(store: Store, clock: Clock) -> None:
    resources = Resources.from_store(store)
    asked: list[int] = []

    def search(rows: Ints, depth: int):
        clock.now += 0.02 * len(rows) + (0.0 if asked else 7.0)
        asked.append(len(rows))
        return [(np.arange(depth, dtype=np.int32), np.zeros(depth, np.float32)) for _ in rows]

    queries = Queries.from_items(tuple(Query(text, text) for text in TEXTS))
    found = compute_rankings(resources, "index", queries, chunks(), 3, lambda _: search)
    assert list(found.costs.values()) == [pytest.approx(0.02)]
    assert asked == [1, 8]
    compute_rankings(resources, "index", Queries.from_items((Query("q", "one"),)), chunks(), 3, lambda _: search)
    assert asked == [1, 8, 1]


def test_a_server_that_starts_is_not_what_a_question_takes() -> None:
    talks = [Talk(None, "generator", [Reply("yes", 1, 1, seconds)]) for seconds in (3.49, 3.49, 3.49, *[0.02] * 9)]
    assert Talks("generator", ["yes"] * 12, talks).seconds == 0.02


def questions(batches: int = 4) -> Questions:
    documents = tuple(Document(text, f"{text} is long") for text in TEXTS)
    queries = tuple(Query(text, text, answers=("yes",)) for text in TEXTS)
    return Questions.from_dataset(Dataset("texts", documents, queries, {text: {text: 1} for text in TEXTS}), batches, 0)


WORDS = ["retriever=bm25", "splitter=none", "embedder=hashing", "trusted_modules=[tests]"]


def test_a_batch_that_starts_something_does_not_make_a_pipeline_slow(store: Store) -> None:
    StartsSlowly.started.clear()
    own = ["generator=none", "+generator.components.own._target_=tests.unit.ranking_parts.StartsSlowly"]
    found = evaluate_pipeline(
        build_pipeline(compose_trial([*WORDS, *own]), Resources.from_store(store)),
        questions(),
        [get_metric("latency"), get_metric("F1")],
    )
    assert StartsSlowly.started == [True] * 4
    assert found.means["latency"] == pytest.approx(0.01)
    assert found.per_query["latency"].tolist() == [found.means["latency"]] * 8
    assert found.seconds["query"] == pytest.approx(0.01)


SLOW = [*WORDS, "generator=none", "+reranker.components.own._target_=tests.unit.ranking_parts.ReordersSlowlyOnce"]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    ReordersSlowlyOnce.started.clear()
    monkeypatch.setattr(time, "perf_counter", lambda: ReordersSlowlyOnce.clock[0])


@pytest.mark.usefixtures("slow")
def test_what_is_timed_was_asked_before(store: Store) -> None:
    output = io.StringIO()
    with Screen(output):
        found = time_pipeline(build_pipeline(compose_trial(SLOW), Resources.from_store(store)), questions())
    assert output.getvalue() == ""
    assert (found.p50, found.p95, found.questions) == (pytest.approx(0.02), pytest.approx(0.02), 8)


@pytest.mark.parametrize(
    ("seconds", "enough"),
    [
        ([], False),
        ([0.02] * 20, True),
        ([0.01, 0.03] * 10, False),
        ([0.01] * 10 + [0.02] * 30 + [0.9] * 5, True),
        ([0.01, 0.9] * 10, True),
    ],
)
def test_timing_ends_once_the_median_is_known_or_it_takes_long(seconds: list[float], enough: bool) -> None:
    assert _is_enough(seconds, 0.1) is enough
    assert not _is_enough(seconds, 0.0)


@pytest.mark.usefixtures("slow")
def test_a_report_is_content_with_few_questions_of_the_same_latency(store: Store) -> None:
    many = tuple(Query(text, text) for text in (f"question {number}" for number in range(60)))
    asked = Questions.from_dataset(Dataset("d", questions().dataset.documents, many, {}), 1, 0)
    counts = [
        time_pipeline(build_pipeline(compose_trial(SLOW), Resources.from_store(store)), asked, narrow).questions
        for narrow in (0.1, 0)
    ]
    assert counts == [20, 50]


def test_timing_says_nothing_of_single_questions(store: Store, said) -> None:
    strange = tuple(Query(text, text) for text in ("zymurgy", "quixotic"))
    asked = Questions.from_dataset(Dataset("d", questions().dataset.documents, strange, {}), 1, 0)
    time_pipeline(build_pipeline(compose_trial(WORDS), Resources.from_store(store)), asked)
    assert said() == []


@pytest.mark.usefixtures("slow")
def test_latency_that_decides_is_measured_apart_from_the_search(store: Store) -> None:
    """The reranker tells no cost, so what stages took when they ran says nothing of it."""
    by_stages, apart = (
        Evaluator(
            tuple(SLOW), questions(), (get_metric("latency"),), Resources.from_store(store), times
        ).measure_config(compose_trial(SLOW))
        for times in (False, True)
    )
    assert by_stages.means["latency"] == pytest.approx(0.0)
    assert apart.means["latency"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("words", "times"),
    [
        ([], False),
        (["objective.metrics=[nDCG@10,latency]"], True),
        (["objective.constraints=['latency <= 1 s']"], True),
        (["confirmation.cost=latency"], True),
        (["objective.metrics=[F1]"], False),
    ],
)
def test_when_latency_decides(words: list[str], times: bool) -> None:
    assert build_objective(compose_config(words)).times is times
