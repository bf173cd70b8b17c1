"""Rerankers: RankGPT's windows, passages judged one by one, scores of pairs, late interaction."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.embedders.minilm import find_minilm
from rag_opt.components.llm.request import Request
from rag_opt.components.llm.talks import ATTEMPTS
from rag_opt.components.rerankers import pairs
from rag_opt.components.rerankers.llm import (
    ListwiseReranker,
    PointwiseReranker,
    parse_grade,
    parse_permutation,
    slide_windows,
)
from rag_opt.components.rerankers.pairs import BETWEEN, CrossEncoder, MaxSim, PairReranker, PairScorer, Tokens, maxsim
from rag_opt.components.resources import Resources
from rag_opt.records.documents import Document, Documents, Floats
from rag_opt.records.products import Rankings
from tests.services import tiny_models
from tests.unit.scripted import FAILS, Scripted, in_json, prompt, saying, spent, text_of
from tests.unit.test_components import asked, chunked, ranking, rows

# ---- windows

WORTH = [5, 1, 7, 0, 3, 2, 4, 9]
"""Of eight passages, in the order in which they were found."""


def by_worth(places: list[int]) -> list[int]:
    return sorted(places, key=lambda place: -WORTH[place])


def test_windows_of_four_by_two_over_eight_passages() -> None:
    windows = []

    def order(places: list[int]) -> list[int]:
        windows.append(list(places))
        return by_worth(places)

    assert slide_windows(8, 4, 2, order) == [7, 2, 0, 1, 6, 3, 4, 5]
    assert windows == [[4, 5, 6, 7], [2, 3, 7, 6], [0, 1, 7, 2]]


def test_the_best_passage_rises_from_the_last_place_to_the_first() -> None:
    assert slide_windows(50, 3, 2, lambda places: sorted(places, reverse=True))[0] == 49


def test_windows_side_by_side_carry_nothing_upwards() -> None:
    assert slide_windows(5, 2, 2, lambda places: sorted(places, reverse=True)) == [0, 2, 1, 4, 3]


@given(st.integers(0, 40), st.integers(2, 12), st.data())
def test_windows_always_give_a_permutation_with_the_best_in_front(count: int, window: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, window))
    worth = data.draw(st.permutations(range(count)))
    sizes = []

    def order(places: list[int]) -> list[int]:
        sizes.append(len(places))
        return sorted(places, key=lambda place: -worth[place])

    found = slide_windows(count, window, step, order)
    assert sorted(found) == list(range(count))
    carried = window - step
    assert found[:carried] == sorted(range(count), key=lambda place: -worth[place])[:carried]
    full = len(range(count, window, -step))
    assert sizes == [window] * full + [count - step * full] * (count - step * full > 1)


@given(st.integers(0, 30), st.integers(2, 8), st.data())
def test_windows_give_a_permutation_in_whatever_order_they_are_put(
    count: int, window: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, window))
    chance = random.Random(data.draw(st.integers(0, 99)))
    found = slide_windows(count, window, step, lambda places: chance.sample(list(places), len(places)))
    assert sorted(found) == list(range(count))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([3, 1, 2], [2, 0, 1]),
        ([2, 2, 1, 2], [1, 0, 2]),
        ([3], [2, 0, 1]),
        ([0, 4, -1, 10**30, 2], [1, 0, 2]),
        ([True, 2], [1, 0, 2]),
        ([2.0, 3], [1, 2, 0]),
        (["1", 2], [0, 1, 2]),
        ([None, [1], {"1": 1}, 3], [2, 0, 1]),
        ([], None),
        ([0, 4], None),
        ([True], None),
        ([1.5, "one", None], None),
        ("321", None),
        (3, None),
        ({"1": 2}, None),
        (None, None),
    ],
)
def test_a_ranking_is_read_as_a_permutation_of_three(said: object, found: list[int] | None) -> None:
    assert parse_permutation({"ranking": said}, 3) == found


@pytest.mark.parametrize("said", [None, [3, 1, 2], "ranking", 3, {}, {"Ranking": [1]}, {"order": [1, 2, 3]}])
def test_what_has_no_ranking_is_none(said: object) -> None:
    assert parse_permutation(said, 3) is None


@given(st.integers(1, 12), st.lists(st.integers(-3, 15) | st.booleans() | st.none() | st.floats() | st.text()))
def test_what_is_read_is_a_permutation_or_nothing(count: int, said: list) -> None:
    found = parse_permutation({"ranking": said}, count)
    assert found is None or sorted(found) == list(range(count))


# ---- rerankers by a language model

TEXTS = [f"passage {number} worth {worth}" for number, worth in enumerate(WORTH)]
PASSAGE = re.compile(r"\[(\d+)\] passage \d+ worth (\d+)")


def all_of(texts: list[str] = TEXTS) -> Rankings:
    return ranking(chunked(*texts), [(row, 1.0 - row / 100) for row in range(len(texts))])


def knowing(request: Request) -> str:
    """What a model says that orders passages by their worth."""
    shown = sorted(PASSAGE.findall(text_of(request)), key=lambda each: -int(each[1]))
    return in_json(ranking=[int(number) for number, _ in shown])


def listwise(chat: Scripted, store: Store, window: int = 4, step: int = 2, keep: int | None = None) -> ListwiseReranker:
    stage = ListwiseReranker(chat, "model", prompt("listwise"), window, step, keep)
    stage.use(Resources.from_store(store))
    return stage


def pointwise(chat: Scripted, store: Store, keep: int | None = None) -> PointwiseReranker:
    stage = PointwiseReranker(chat, "model", prompt("pointwise"), keep)
    stage.use(Resources.from_store(store))
    return stage


def test_listwise_asks_window_by_window(store: Store) -> None:
    chat = Scripted(knowing)
    found = listwise(chat, store).run(asked("q"), all_of())["ranking"]
    assert rows(found) == [7, 2, 0, 1, 6, 3, 4, 5]
    assert [score for _, score in found.get_hits(0)] == pytest.approx([1 / rank for rank in range(1, 9)])
    (usage,) = found.usage.values()
    assert usage.stage == "reranker"
    assert spent(usage) == ([3], [30], [15], [0])
    assert found.costs[found.key] == pytest.approx(1.5)
    shown = [re.findall(r"passage (\d)", text_of(each)) for each in chat.requests]
    assert shown == [list("4567"), list("2376"), list("0172")]
    assert "Rank all 4 passages" in text_of(chat.requests[0])


def test_listwise_keeps_as_many_as_asked(store: Store) -> None:
    found = listwise(Scripted(knowing), store, keep=2).run(asked("q"), all_of())["ranking"]
    assert found.rows.tolist() == [[7, 2]]
    assert listwise(Scripted(knowing), store, keep=99).run(asked("q"), all_of())["ranking"].rows.shape == (1, 8)


BROKEN = ("I think the third.", '{"ranking": []}', '{"ranking": [0, true, "two"]}', '{"ranking": [1', "")


def test_a_ranking_that_cannot_be_read_is_asked_for_again(store: Store) -> None:
    chat = saying(BROKEN[0], BROKEN[2], 'Sure: {"ranking": [3, 1, 2]}')
    found = listwise(chat, store).run(asked("q"), all_of(TEXTS[:3]))["ranking"]
    assert rows(found) == [2, 0, 1]
    assert spent(next(iter(found.usage.values()))) == ([3], [30], [15], [2])
    assert [each.attempt for each in chat.requests] == [0, 1, 2]


@pytest.mark.parametrize("broken", BROKEN)
def test_where_no_ranking_can_be_read_the_old_order_stays(store: Store, broken: str) -> None:
    chat = Scripted(lambda _: broken)
    found = listwise(chat, store).run(asked("q"), all_of(TEXTS[:3]))["ranking"]
    assert rows(found) == [0, 1, 2]
    assert len(chat.requests) == ATTEMPTS == 3
    assert spent(next(iter(found.usage.values()))) == ([3], [30], [15], [3])


def test_where_a_call_fails_its_window_keeps_its_order(store: Store) -> None:
    """[4 5 6 7] → 7 6 4 5; [2 3 7 6] fails; [0 1 2 3] → 2 0 1 3."""
    order = iter([knowing, lambda _: FAILS, knowing])
    found = listwise(Scripted(lambda each: next(order)(each)), store).run(asked("q"), all_of())["ranking"]
    assert rows(found) == [2, 0, 1, 3, 7, 6, 4, 5]
    assert spent(next(iter(found.usage.values()))) == ([3], [20], [10], [1])


def test_what_was_not_found_is_not_asked_about(store: Store) -> None:
    chunks = chunked(*TEXTS)
    found = listwise(Scripted(knowing, at_once=4), store).run(
        asked("many", "none", "one"), ranking(chunks, [(1, 3.0), (2, 2.0), (7, 1.0)], [], [(4, 1.0)])
    )["ranking"]
    assert [rows(found, query) for query in range(3)] == [[7, 2, 1], [], [4]]
    assert spent(next(iter(found.usage.values()))) == ([1, 0, 0], [10, 0, 0], [5, 0, 0], [0, 0, 0])


@pytest.mark.parametrize("sizes", [(1, 1), (4, 5), (4, 0), (4.0, 2), (True, 1)])
def test_windows_that_cannot_slide_are_refused(sizes: tuple) -> None:
    with pytest.raises(ValueError, match="window|step"):
        ListwiseReranker(saying(), "model", prompt("listwise"), *sizes)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"relevance": 0}, 0),
        ({"relevance": 10, "why": "it says so"}, 10),
        ({"relevance": "7"}, 7),
        ({"relevance": 7.0}, 7),
        *[({"relevance": value}, None) for value in (11, -1, 5.5, "five", True, None, [5], float("nan"))],
        ({}, None),
        (5, None),
        ([5], None),
        (None, None),
    ],
)
def test_a_grade_is_a_whole_number_from_0_to_10(said: object, found: int | None) -> None:
    assert parse_grade(said) == found


def graded_by(grades: dict[str, list]) -> Callable[[Request], object]:
    """Says of each passage, in turn, what is written here."""
    left = {text: iter(said) for text, said in grades.items()}

    def script(request: Request) -> object:
        (passage,) = re.findall(r"<document>\s*(.*?)\s*</document>", text_of(request))
        said = next(left[passage])
        return in_json(relevance=said) if isinstance(said, int) else said

    return script


def test_pointwise_asks_of_each_passage_and_keeps_the_order_of_equal_ones(store: Store) -> None:
    chat = Scripted(graded_by({"a": [3], "b": [9], "c": [3], "d": [10], "e": [0]}))
    found = pointwise(chat, store).run(asked("q"), all_of(list("abcde")))["ranking"]
    assert rows(found) == [3, 1, 0, 2, 4]
    assert [score for _, score in found.get_hits(0)] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert spent(next(iter(found.usage.values()))) == ([5], [50], [25], [0])


def test_pointwise_puts_what_could_not_be_judged_behind_what_was(store: Store) -> None:
    """a: broken for ever (3 calls), b: fails (1), c: broken twice, then 0 (3), d: 7 (1)."""
    chat = Scripted(graded_by({"a": ["no"] * 3, "b": [FAILS], "c": ['{"relevance": 11}', "no", 0], "d": [7]}))
    found = pointwise(chat, store, keep=3).run(asked("q"), all_of(list("abcd")))["ranking"]
    assert rows(found) == [3, 2, 0]
    assert spent(next(iter(found.usage.values()))) == ([8], [70], [35], [6])


# ---- pairs


class Worth(PairScorer):
    """The number in a passage is its score."""

    name = "worth"

    def __init__(self) -> None:
        self.seen: list[str] = []

    @property
    def fingerprint(self) -> str:
        return "worth"

    def encode(self, given: list[str]) -> Floats:
        self.seen += given
        return np.array([[float(re.findall(r"-?\d+", pair)[-1])] for pair in given], np.float32)


class Never(Worth):
    def encode(self, given: list[str]) -> Floats:
        raise AssertionError(f"scored again: {given}")


def reranked(scorer: PairScorer, store: Store, given: Rankings, *questions: str, keep: int | None = None) -> Rankings:
    stage = PairReranker(scorer, keep)
    stage.use(Resources.from_store(store))
    return stage.run(asked(*questions), given)["ranking"]


GIVEN = [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]


def test_pairs_are_ordered_by_their_scores_equal_ones_as_before(store: Store) -> None:
    chunks = chunked("a 2", "b 7", "c 2", "d -1")
    found = reranked(Worth(), store, ranking(chunks, GIVEN, [], GIVEN[2:]), "p", "q", "r")
    assert [found.get_hits(query) for query in range(3)] == [
        [(1, 7.0), (0, 2.0), (2, 2.0), (3, -1.0)],
        [],
        [(2, 2.0), (3, -1.0)],
    ]
    assert found.rows.shape == (3, 4)


def test_keep_cuts_after_the_order_is_made(store: Store) -> None:
    found = reranked(Worth(), store, ranking(chunked("a 2", "b 7", "c 2", "d 9"), GIVEN), "p", keep=2)
    assert found.rows.tolist() == [[3, 1]]
    whole = reranked(Worth(), store, ranking(chunked("a 2", "b 7", "c 2", "d 9"), GIVEN), "p")
    assert found.whole.tolist() == whole.rows.tolist()


@pytest.mark.parametrize("keep", [0, -1, 2.0, True])
def test_keep_is_a_whole_number_or_none(keep: object) -> None:
    with pytest.raises(ValueError, match="keep"):
        PairReranker(Worth(), keep)


def test_a_passage_is_scored_with_its_title(store: Store) -> None:
    from rag_opt.components.splitters.chunkers import NoSplitter

    chunks = NoSplitter().run(Documents((Document("a", "body 3", "Title"),), "titled"))["chunks"]
    scorer = Worth()
    reranked(scorer, store, ranking(chunks, [(0, 1.0)]), "p")
    assert scorer.seen == [f"p{BETWEEN}Title\nbody 3"]


def test_a_pair_is_scored_once_whatever_the_process(tmp_path: Path) -> None:
    given = ranking(chunked("a 2", "b 7", "c 2", "d -1"), GIVEN, GIVEN[:2])
    scorer = Worth()
    first = reranked(scorer, Store(tmp_path), given, "p", "p")
    assert len(scorer.seen) == 4
    again = reranked(Never(), Store(tmp_path), given, "p", "p")
    assert again.rows.tolist() == first.rows.tolist()
    assert again.scores.tolist() == first.scores.tolist()
    with pytest.raises(AssertionError, match="scored again"):
        reranked(Never(), Store(tmp_path), given, "p", "q")


# ---- late interaction


def test_maxsim_by_hand() -> None:
    """Best cosines of the two question tokens: 0.8 and 0.6."""
    question = np.array([[1, 0], [0, 1]], np.float32)
    passage = np.array([[0.8, 0.6], [0.6, -0.8]], np.float32)
    assert maxsim(question, passage) == pytest.approx(0.7)
    nothing = np.zeros((0, 2), np.float32)
    assert maxsim(nothing, passage) == maxsim(question, nothing) == 0.0


@pytest.fixture(scope="module")
def minilm():
    from rag_opt.components.embedders.encoders import MiniLM

    encoder = MiniLM("float32")
    encoder.use(Resources.from_store(Store()))
    return encoder


QUESTION = "What do kittens drink?"
PASSAGES = ["Kittens drink milk.", "An owl hunts mice at night, while other birds sleep.", "Milk", ""]


def brute_force(question: str, passage: str) -> float:
    """The same by sentence-transformers' own token vectors and two loops."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_minilm()), device="cpu")

    def unit_vectors(text: str) -> list[np.ndarray]:
        found = model.encode([text], output_value="token_embeddings", show_progress_bar=False)[0].cpu().numpy()
        return [vector / np.linalg.norm(vector) for vector in found.astype(np.float64)]

    passages = unit_vectors(passage)
    best = []
    for mine in unit_vectors(question):
        greatest = -1.0
        for other in passages:
            greatest = max(greatest, float(sum(x * y for x, y in zip(mine, other, strict=True))))
        best.append(greatest)
    return sum(best) / len(best)


def test_maxsim_agrees_with_two_loops_over_token_vectors(minilm, store: Store) -> None:
    scorer = MaxSim(minilm)
    scorer.use(Resources.from_store(store))
    found = scorer.encode([f"{QUESTION}{BETWEEN}{passage}" for passage in [*PASSAGES, QUESTION]])
    assert found.dtype == np.float32
    assert found.shape == (5, 1)
    assert found[:4, 0] == pytest.approx([brute_force(QUESTION, passage) for passage in PASSAGES], abs=1e-4)
    assert found[4, 0] == pytest.approx(1.0, abs=1e-5)


def test_maxsim_puts_the_passage_that_answers_first(minilm, store: Store) -> None:
    given = ranking(chunked(*PASSAGES[:3][::-1]), GIVEN[:3])
    found = reranked(MaxSim(minilm), store, given, QUESTION)
    assert rows(found)[0] == 2


def test_a_question_with_a_separator_of_its_own_stays_whole(minilm, store: Store) -> None:
    text = f"milk{BETWEEN}mice"
    found = reranked(MaxSim(minilm), store, ranking(chunked(text), [(0, 1.0)]), text)
    assert found.get_hits(0) == [(0, pytest.approx(1.0, abs=1e-4))]


def test_maxsim_needs_token_vectors() -> None:
    with pytest.raises(ValueError, match="Hashing"):
        MaxSim(Hashing())


def vector_of(text: str) -> Floats:
    """As many rows as the text has characters, 8 bytes each."""
    return np.full((len(text), 2), ord(text[0]), np.float32)


def test_token_vectors_in_memory_keep_within_their_bytes(monkeypatch) -> None:
    monkeypatch.setattr(pairs, "TOKEN_VECTORS", 64)
    made: list[str] = []

    def make(texts: list[str]) -> list[Floats]:
        made.extend(texts)
        return [vector_of(text) for text in texts]

    tokens = Tokens(make)
    found = tokens.get_vectors(["aaaa", "bb", "aaaa"])
    assert made == ["aaaa", "bb"]
    assert found["aaaa"].tolist() == [[97, 97]] * 4
    tokens.get_vectors(["aaaa"])
    tokens.get_vectors(["cccc"])  # 32 + 16 + 32 bytes: b, used least lately, has to go
    made.clear()
    tokens.get_vectors(["aaaa", "cccc"])
    assert made == []
    tokens.get_vectors(["bb"])
    assert made == ["bb"]
    whole = tokens.get_vectors(["d" * 20, "e" * 3])  # more than may be kept: complete all the same
    assert {text: len(rows) for text, rows in whole.items()} == {"d" * 20: 20, "e" * 3: 3}
    assert sum(each.nbytes for each in tokens._known.values()) == tokens._bytes <= 64


@given(st.lists(st.lists(st.text("abc", min_size=1, max_size=9), max_size=5), max_size=12))
@settings(max_examples=60)
def test_token_vectors_are_right_whatever_was_dropped(calls: list[list[str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "TOKEN_VECTORS", 100)
        tokens = Tokens(lambda texts: [vector_of(text) for text in texts])
        for texts in calls:
            found = tokens.get_vectors(texts)
            assert {text: rows.tolist() for text, rows in found.items()} == {
                text: vector_of(text).tolist() for text in texts
            }
            assert sum(rows.nbytes for rows in tokens._known.values()) == tokens._bytes <= 100


# ---- cross-encoders


@pytest.fixture(scope="module")
def crossing(tmp_path_factory) -> str:
    return tiny_models.cross_encoder(tmp_path_factory.mktemp("cross"))


def test_a_cross_encoder_gives_the_logits_of_the_pair(crossing: str, store: Store) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    scorer = CrossEncoder(crossing, batch_size=2)
    scorer.use(Resources.from_store(store))
    found = scorer.encode([f"{QUESTION}{BETWEEN}{passage}" for passage in PASSAGES])
    tokenizer = AutoTokenizer.from_pretrained(crossing)
    model = AutoModelForSequenceClassification.from_pretrained(crossing).eval()
    with torch.inference_mode():
        expected = [model(**tokenizer(QUESTION, text, return_tensors="pt")).logits.item() for text in PASSAGES]
    assert found.shape == (4, 1)
    assert found[:, 0] == pytest.approx(expected, abs=1e-4)
    assert np.ptp(found) > 0.01


def test_a_cross_encoder_reranks_once(crossing: str, tmp_path: Path, monkeypatch) -> None:
    given = ranking(chunked(*PASSAGES[:3]), GIVEN[:3])
    first = reranked(CrossEncoder(crossing), Store(tmp_path), given, QUESTION)
    scores = [score for _, score in first.get_hits(0)]
    assert sorted(scores, reverse=True) == scores
    monkeypatch.setattr(CrossEncoder, "load_model", lambda _: pytest.fail("loaded again"))
    again = reranked(CrossEncoder(crossing), Store(tmp_path), given, QUESTION)
    assert again.get_hits(0) == first.get_hits(0)


def test_a_cross_encoder_that_is_nowhere_is_a_component_error(tmp_path: Path, store: Store) -> None:
    from rag_opt.errors import ComponentError

    nowhere, empty, given = tmp_path / "nothing", tmp_path / "empty", ranking(chunked("a"), [(0, 1.0)])
    with pytest.raises(ComponentError, match=re.escape(f"reranker: model '{nowhere}': there is no such folder; name")):
        reranked(CrossEncoder(str(nowhere)), store, given, "q")
    empty.mkdir()
    with pytest.raises(ComponentError, match=re.escape(f"cross-encoder '{empty}' can't be loaded (") + ".*maxsim"):
        reranked(CrossEncoder(str(empty)), store, given, "q")


def test_several_threads_share_token_vectors_and_what_is_held_is_what_is_counted(monkeypatch) -> None:
    monkeypatch.setattr(pairs, "TOKEN_VECTORS", 4 * 4 * 10)
    both = threading.Barrier(2)

    def make(texts: list[str]) -> list[Floats]:
        if texts == ["same"]:
            # Both threads make it before either has put it in.
            both.wait(10)
        return [np.full((1, 4), len(text), np.float32) for text in texts]

    tokens = Tokens(make)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(tokens.get_vectors, [["same"], ["same"]]))
    assert [each["same"].tolist() for each in found] == [[[4.0] * 4]] * 2
    assert tokens._bytes == 16
    with ThreadPoolExecutor(4) as pool:
        wanted = [[f"{n % 37:04}", f"{n % 11:03}"] for n in range(2_000)]
        for texts, vectors in zip(wanted, pool.map(tokens.get_vectors, wanted), strict=True):
            assert {*vectors} == {*texts}
    assert tokens._bytes == sum(each.nbytes for each in tokens._known.values()) <= 160
