"""What is searched for in place of the question: feedback, imagined passages, other wordings; rankings fused again."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from rag_opt.cache.store import Store
from rag_opt.components.embedders.embed import ChunkEmbedder, QueryEmbedder
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.llm.chat import Chat
from rag_opt.components.llm.talks import ATTEMPTS
from rag_opt.components.query.feedback import RM3, Feedback
from rag_opt.components.query.transforms import HyDE, MultiQuery, Rewrite, WebRewrite
from rag_opt.components.ranking import score_by_rank, stack_rankings
from rag_opt.components.resources import Resources
from rag_opt.components.retrievers.bm25 import BM25Indexer, BM25Retriever
from rag_opt.components.retrievers.dense import DenseRetriever, ExactIndexer
from rag_opt.components.retrievers.fusion import fuse_variants
from rag_opt.llm.client import Rehearsal
from rag_opt.records.documents import Queries, Query
from rag_opt.records.products import Chunks, Rankings, Searches
from tests.unit.scripted import FAILS, Scripted, in_json, prompt, saying, spent, text_of
from tests.unit.test_components import asked, chunked, ranking, rows

# ---- pseudo-relevance feedback

VOCABULARY = ["apple", "pie", "tart", "plum"]
COUNTS = csr_array(np.array([[2, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 3]], np.float32))
HITS = np.array([0, 1], np.int32), np.array([3, 1], np.float32)
"""apple apple pie · apple tart · plum plum plum: the first two are hit, three to one."""


def grown(words: dict[str, float], terms: int, own: float, hits: tuple = HITS) -> dict[str, float]:
    return Feedback(2, terms, own).expand_query(words, hits, COUNTS, VOCABULARY)


def test_words_of_the_first_hits_join_the_query() -> None:
    """apple: ¾ · ⅔ + ¼ · ½ = ⅝, pie: ¾ · ⅓ = ¼, tart: ¼ · ½ = ⅛; the two best make up ⅞."""
    assert grown({"apple": 1.0, "crust": 3.0}, 2, 0.4) == pytest.approx(
        {"apple": 0.4 / 4 + 0.6 * 5 / 7, "crust": 0.4 * 3 / 4, "pie": 0.6 * 2 / 7}
    )


def test_all_words_that_the_hits_have_and_no_other() -> None:
    assert grown({"crust": 1.0}, 99, 0.0) == pytest.approx({"crust": 0, "apple": 5 / 8, "pie": 1 / 4, "tart": 1 / 8})


def test_own_words_alone_count_where_their_weight_is_one() -> None:
    weights = {word: weight for word, weight in grown({"plum": 1.0, "apple": 1.0}, 2, 1.0).items() if weight}
    assert weights == pytest.approx({"plum": 0.5, "apple": 0.5})


def test_without_a_hit_the_query_stays_as_it_is() -> None:
    nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
    assert grown({"apple": 2.0, "zebra": 1.0}, 5, 0.3, nothing) == {"apple": 2.0, "zebra": 1.0}
    assert grown({}, 5, 0.3) == {}


@given(
    st.dictionaries(st.sampled_from([*VOCABULARY, "zebra"]), st.integers(1, 4).map(float), min_size=1),
    st.integers(1, 6),
    st.floats(0, 1),
    st.lists(st.floats(0.0625, 50, width=32), min_size=1, max_size=3),
)
def test_weights_sum_to_one_and_at_most_so_many_words_join(
    words: dict[str, float], terms: int, own: float, scores: list[float]
) -> None:
    hits = np.arange(len(scores), dtype=np.int32), np.array(scores, np.float32)
    found = grown(words, terms, own, hits)
    assert sum(found.values()) == pytest.approx(1.0)
    assert all(weight >= 0 for weight in found.values())
    assert len(set(found) - set(words)) <= terms
    assert all(found[word] >= own * weight / sum(words.values()) - 1e-12 for word, weight in words.items())


@pytest.mark.parametrize("wrong", [(0, 1, 0.5), (1, 0, 0.5), (1, 1, -0.1), (1, 1, 1.1), (1.5, 1, 0.5)])
def test_feedback_that_cannot_be_is_refused(wrong: tuple) -> None:
    with pytest.raises(ValueError, match="documents|terms|own_weight"):
        RM3(*wrong)


def test_rm3_hands_its_numbers_to_the_retriever() -> None:
    feedback = RM3(3, 20, 0.6).run(Searches((asked("q"),)))["feedback"]
    assert (feedback.documents, feedback.terms, feedback.own_weight) == (3, 20, 0.6)
    assert feedback.key == Feedback(3, 20, 0.6).key
    assert len({feedback.key, Feedback(3, 20, 0.7).key, Feedback(3, 2, 0.6).key, Feedback(2, 20, 0.6).key}) == 4


def bm25(texts: list[str], queries: Queries, feedback: Feedback | None, k1: float = 1.2, b: float = 0.75) -> Rankings:
    index = BM25Indexer(k1, b, "lucene", None, None).run(chunked(*texts))["bm25_index"]
    retriever = BM25Retriever(len(texts))
    retriever.use(Resources.from_store(Store()))
    return retriever.run(Searches((queries,)), index, feedback)["bm25_ranking"]


def slow_bm25(texts: list[list[str]], query: dict[str, float], k1: float, b: float) -> list[tuple[int, float]]:
    """Lucene's BM25, each chunk by itself."""
    average = sum(map(len, texts)) / len(texts)
    found = []
    for row, text in enumerate(texts):
        score = 0.0
        for word, weight in query.items():
            containing = sum(word in other for other in texts)
            frequency = text.count(word)
            idf = math.log(1 + (len(texts) - containing + 0.5) / (containing + 0.5))
            score += weight * idf * frequency / (frequency + k1 * (1 - b + b * len(text) / average))
        if score > 0:
            found.append((row, score))
    return sorted(found, key=lambda each: -each[1])


def clear(values: list[tuple[float, object]]) -> bool:
    """Whether no two of these are nearly equal, unless they are of the same kind."""
    return all(
        kind == other or abs(value - another) > 1e-5 * max(value, another)
        for place, (value, kind) in enumerate(values)
        for another, other in values[:place]
    )


WORDS = ["aa", "bb", "cc", "dd", "ee", "ff"]


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=7), min_size=1, max_size=7),
    st.lists(st.sampled_from([*WORDS, "zz"]), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 0.8, 1.0]),
)
@settings(max_examples=120)
def test_bm25_with_feedback_agrees_with_a_slow_search(
    texts: list[list[str]], asked_for: list[str], documents: int, terms: int, own: float
) -> None:
    query = {word: float(times) for word, times in Counter(asked_for).items()}
    kinds = [tuple(sorted(text)) for text in texts]
    hits = slow_bm25(texts, query, 1.2, 0.75)
    assume(clear([(score, kinds[row]) for row, score in hits]))
    if hits := sorted(hits, key=lambda each: (-round(each[1], 9), each[0]))[:documents]:
        total = sum(score for _, score in hits)
        model: dict[str, float] = {}
        for row, score in hits:
            for word in texts[row]:
                model[word] = model.get(word, 0.0) + score / total / len(texts[row])
        # Words of the very same chunks weigh the same; which one joins is then not ours to say.
        weights = sorted(model.values(), reverse=True)
        assume(len(weights) <= terms or weights[terms - 1] - weights[terms] > 1e-6)
        joining = sorted(model, key=lambda word: -model[word])[:terms]
        of_joining = sum(model[word] for word in joining)
        query = {word: own * weight / sum(query.values()) for word, weight in query.items()}
        for word in joining:
            query[word] = query.get(word, 0.0) + (1 - own) * model[word] / of_joining
    expected = slow_bm25(texts, query, 1.2, 0.75)
    found = bm25(
        [" ".join(text) for text in texts], asked(" ".join(asked_for)), Feedback(documents, terms, own)
    ).get_hits(0)
    assert dict(found) == pytest.approx(dict(expected), rel=1e-4)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_feedback_finds_what_has_no_word_of_the_query() -> None:
    texts = ["cat kitten purr", "kitten milk", "stone wall"]
    assert rows(bm25(texts, asked("cat"), None)) == [0]
    assert rows(bm25(texts, asked("cat"), Feedback(1, 3, 0.5))) == [0, 1]


def test_feedback_that_leaves_all_weight_to_the_query_keeps_its_ranking() -> None:
    texts = ["cat kitten purr", "cat cat dog", "kitten milk", "dog dog cat milk", "stone"]
    queries = asked("cat", "cat milk", "dog kitten", "zebra")
    plain, same = bm25(texts, queries, None), bm25(texts, queries, Feedback(2, 5, 1.0))
    assert same.rows.tolist() == plain.rows.tolist()


@pytest.mark.parametrize("question", ["", "zebra", "!?"])
def test_feedback_makes_nothing_out_of_nothing(question: str) -> None:
    assert rows(bm25(["red apple", "blue sky"], asked(question), Feedback(2, 2, 0.5))) == []


# ---- imagined passages


def hyde(chat: Scripted, store: Store, passages: int = 2) -> HyDE:
    stage = HyDE(chat, "model", prompt("hyde"), passages, 0.7, 64)
    stage.use(Resources.from_store(store))
    return stage


def by_seed(passages: dict[int, object]) -> Scripted:
    return Scripted(lambda each: passages[each.sampling.seed])


def direction(*texts: str) -> np.ndarray:
    """The normalised mean of these texts' vectors, in one's own words."""
    total = np.mean([np.asarray(vector, np.float64) for vector in Hashing(64).encode(list(texts))], axis=0)
    return total / math.sqrt(sum(value * value for value in total))


def vectors_of(searches: Searches, store: Store) -> np.ndarray:
    embedder = QueryEmbedder(Hashing(64))
    embedder.use(Resources.from_store(store))
    return embedder.run(searches)["query_vectors"].own


def test_hyde_searches_for_the_mean_of_question_and_passages(store: Store) -> None:
    chat = by_seed({0: "Cats purr when content.", 1: " Kittens drink milk and milk. "})
    found = hyde(chat, store).run(asked("Which animals purr?"))["dense_queries"]
    assert found.averaged
    assert [variant.texts for variant in found.variants] == [
        ["Which animals purr?"],
        ["Cats purr when content."],
        ["Kittens drink milk and milk."],
    ]
    mean = direction("Which animals purr?", "Cats purr when content.", "Kittens drink milk and milk.")
    assert vectors_of(found, store)[0] == pytest.approx(mean, abs=1e-6)
    assert [each.sampling.seed for each in chat.requests] == [0, 1]
    assert {each.sampling.temperature for each in chat.requests} == {0.7}
    assert spent(next(iter(found.usage.values()))) == ([2], [20], [10], [0])


@pytest.mark.parametrize("said", [FAILS, "", " \n "])
def test_a_passage_that_is_lacking_is_the_question_itself(store: Store, said: object) -> None:
    found = hyde(by_seed({0: said, 1: "Cats purr."}), store).run(asked("who?"))["dense_queries"]
    assert [variant.texts for variant in found.variants] == [["who?"], ["Cats purr."], ["who?"]]
    assert vectors_of(found, store)[0] == pytest.approx(direction("who?", "Cats purr.", "who?"), abs=1e-6)


def test_hyde_without_any_passage_searches_for_the_question(store: Store) -> None:
    found = hyde(Scripted(lambda _: FAILS), store).run(asked("who purrs?"))["dense_queries"]
    assert vectors_of(found, store)[0] == pytest.approx(direction("who purrs?"), abs=1e-6)
    assert spent(next(iter(found.usage.values()))) == ([2], [0], [0], [2])


def test_each_query_of_a_batch_keeps_its_own_vector(store: Store) -> None:
    chat = Scripted(lambda each: f"{text_of(each).split()[0][10:-11]} seed{each.sampling.seed}", at_once=4)
    whole = asked("alpha", "beta", "gamma")
    found = hyde(chat, store).run(whole.make_batch(np.array([2, 0], np.int32)))["dense_queries"]
    vectors = vectors_of(found, store)
    for vector, word in zip(vectors, ("gamma", "alpha"), strict=True):
        assert vector == pytest.approx(direction(word, f"{word} seed0", f"{word} seed1"), abs=1e-6)
    assert len(chat.requests) == 4


def test_hyde_finds_the_chunk_that_its_passages_are_about(store: Store) -> None:
    chunks = chunked("Dogs bark at night.", "Kittens drink milk.", "Oak trees lose leaves.")
    vectors = ChunkEmbedder(Hashing(512)).run(chunks)["vectors"]
    index = ExactIndexer().run(chunks, vectors)["vector_index"]
    searches = hyde(by_seed(dict.fromkeys(range(2), "Kittens drink milk.")), store).run(asked("trees?"))
    embedder, retriever = QueryEmbedder(Hashing(512)), DenseRetriever(3)
    embedder.use(Resources.from_store(store))
    retriever.use(Resources.from_store(store))
    found = retriever.run(embedder.run(searches["dense_queries"])["query_vectors"], index)["dense_ranking"]
    assert rows(found)[0] == 1
    assert {usage.stage for usage in found.usage.values()} == {"query"}


# ---- other wordings


def multi(chat: Scripted, store: Store, count: int = 2) -> list[list[str]]:
    stage = MultiQuery(chat, "model", prompt("multi_query"), count, 0.0)
    stage.use(Resources.from_store(store))
    found = stage.run(asked("why?"))
    assert set(found) == {"bm25_queries", "dense_queries"}
    assert found["bm25_queries"] is found["dense_queries"]
    assert not found["bm25_queries"].averaged
    return [variant.texts for variant in found["bm25_queries"].variants]


@pytest.mark.parametrize(
    ("said", "searched"),
    [
        (["b", "a"], ["why?", "b", "a"]),
        (["a"], ["why?", "a", "why?"]),
        (["a", "b", "c"], ["why?", "a", "b"]),
        (["a", " a ", "b"], ["why?", "a", "b"]),
        ([" ", "", None, 3, ["x"], "a"], ["why?", "a", "why?"]),
        (["why?", "a"], ["why?", "why?", "a"]),
    ],
)
def test_the_question_comes_first_then_the_other_wordings_in_their_order(
    store: Store, said: list, searched: list[str]
) -> None:
    chat = saying(in_json(queries=said))
    assert multi(chat, store) == [[text] for text in searched]
    assert "Write 2 other ways" in text_of(chat.requests[0])


@pytest.mark.parametrize("said", ["none", '{"queries": []}', '{"queries": "a"}', '{"queries": [1]}', "[]", FAILS])
def test_without_other_wordings_the_question_is_searched_for(store: Store, said: object) -> None:
    chat = Scripted(lambda _: said)
    assert multi(chat, store) == [["why?"]] * 3
    assert len(chat.requests) == (1 if said is FAILS else ATTEMPTS)


def test_a_rewritten_question_goes_to_every_retriever(store: Store) -> None:
    stage = Rewrite(saying("no", in_json(queries=[" cats purr ", "second"])), "model", prompt("rewrite"), 0.0)
    stage.use(Resources.from_store(store))
    found = stage.run(Queries.from_items((Query("q7", "Why do cats purr?", ("content",)),)))
    assert set(found) == {"bm25_queries", "dense_queries", "web_queries"}
    for searches in found.values():
        (variant,) = searches.variants
        assert variant.items == (Query("q7", "cats purr", ("content",)),)
        assert spent(next(iter(searches.usage.values()))) == ([2], [20], [10], [1])


def test_a_question_rewritten_for_the_web_goes_nowhere_else(store: Store) -> None:
    stage = WebRewrite(saying(in_json(queries=["cats purr"])), "model", prompt("rewrite"), 0.0)
    stage.use(Resources.from_store(store))
    found = stage.run(asked("Why do cats purr?"))
    assert set(found) == {"web_queries"}
    assert found["web_queries"].variants[0].texts == ["cats purr"]


@pytest.mark.parametrize("kind", [Rewrite, WebRewrite])
def test_a_question_that_cannot_be_rewritten_is_searched_for_itself(store: Store, kind: type) -> None:
    stage = kind(saying(FAILS, in_json(queries=["b!"])), "model", prompt("rewrite"), 0.0)
    stage.use(Resources.from_store(store))
    assert stage.run(asked("a?", "b?"))["web_queries"].variants[0].texts == ["a?", "b!"]


def test_what_is_searched_for_depends_on_the_texts_alone(store: Store) -> None:
    def key(text: str) -> str:
        stage = Rewrite(saying(in_json(queries=[text])), "model", prompt("rewrite"), 0.0)
        stage.use(Resources.from_store(Store()))
        return stage.run(asked("why?"))["bm25_queries"].key

    assert key("a") == key(" a") != key("b")


def test_a_query_that_is_no_valid_text_does_not_end_the_study(store: Store) -> None:
    stage = Rewrite(saying('{"queries": ["cats \\ud800 purr"]}'), "model", prompt("rewrite"), 0.0)
    stage.use(Resources.from_store(store))
    assert np.isfinite(vectors_of(stage.run(asked("why?"))["dense_queries"], store)).all()


@pytest.mark.parametrize(
    "question",
    [
        "What is a cat?",
        *[pytest.param(text) for text in ('What is a "cat"?', "What is \\w?", "two\nlines", "a\ttab")],
    ],
)
@pytest.mark.parametrize("kind", [Rewrite, MultiQuery])
def test_a_rehearsal_expects_one_call_a_question(store: Store, question: str, kind: type) -> None:
    resources, rehearsal = Resources.from_store(store), Rehearsal()
    chat: Chat = saying()
    stage = (
        Rewrite(chat, "model", prompt("rewrite"), 0.0)
        if kind is Rewrite
        else MultiQuery(chat, "model", prompt("multi_query"), 2, 0.0)
    )
    stage.use(replace(resources, llm=replace(resources.llm, rehearsal=rehearsal)))
    stage.run(asked(question))
    assert dict(rehearsal.calls) == {"query": 1}


# ---- rankings of several texts, fused


@st.composite
def several(draw) -> tuple[int, list[list[list[int]]], int]:
    """How many chunks there are, then for each text and query the chunks found, best first; and how many remain."""
    chunks, queries = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    order = st.permutations(range(chunks)).flatmap(
        lambda all_of: st.integers(0, chunks).map(lambda count: list(all_of)[:count])
    )
    texts = draw(st.lists(st.lists(order, min_size=queries, max_size=queries), min_size=2, max_size=4))
    return chunks, texts, draw(st.integers(1, 10))


def placed(chunks: Chunks, lists: list[list[int]]) -> Rankings:
    """As a retriever gives them: as wide as it may rank deep, whatever was found."""
    columns = stack_rankings([score_by_rank(np.array(found, np.int32)) for found in lists], len(chunks))
    return Rankings(chunks, columns["rows"], columns["scores"], repr(lists))


@given(several())
@settings(max_examples=150)
def test_rankings_of_variants_are_fused_by_their_ranks(case: tuple) -> None:
    count, texts, depth = case
    chunks = chunked(*[f"chunk {number}" for number in range(count)])
    found = fuse_variants([placed(chunks, each) for each in texts], depth)
    for query in range(len(texts[0])):
        worth: dict[int, Fraction] = {}
        for each in texts:
            for rank, row in enumerate(each[query], 1):
                worth[row] = worth.get(row, Fraction(0)) + Fraction(1, 60 + rank)
        best = sorted(worth.values(), reverse=True)[:depth]
        hits = found.get_hits(query)
        assert [worth[row] for row, _ in hits] == best
        assert len({row for row, _ in hits}) == len(hits)
        assert [score for _, score in hits] == pytest.approx([float(value) for value in best], rel=1e-6)


def test_equal_ranks_are_told_apart_by_chunk() -> None:
    chunks = chunked("a", "b", "c")
    found = fuse_variants([ranking(chunks, [(2, 9.0), (0, 1.0)]), ranking(chunks, [(0, 9.0), (2, 1.0), (1, 0.5)])], 3)
    assert rows(found) == [0, 2, 1]
    assert found.get_hits(0)[0][1] == pytest.approx(1 / 61 + 1 / 62)


def test_a_single_ranking_stays_as_it_is() -> None:
    alone = ranking(chunked("a", "b"), [(1, 9.0), (0, 1.0)])
    assert fuse_variants([alone], 1) is alone


def test_a_chunk_that_every_wording_finds_beats_one_that_a_single_wording_finds_first(store: Store) -> None:
    texts = ["feline purring", "feline sound", "cat sound purring", "stone"]
    index = BM25Indexer(1.2, 0.75, "lucene", None, None).run(chunked(*texts))["bm25_index"]
    stage = MultiQuery(saying(in_json(queries=["purring", "cat sound"])), "model", prompt("multi_query"), 2, 0.0)
    stage.use(Resources.from_store(store))
    retriever = BM25Retriever(4)
    retriever.use(Resources.from_store(store))
    found = retriever.run(stage.run(asked("feline"))["bm25_queries"], index)["bm25_ranking"]
    ranks = {0: [1, 1], 1: [2, 2], 2: [2, 1]}
    worth = {row: sum(1 / (60 + rank) for rank in each) for row, each in ranks.items()}
    assert dict(found.get_hits(0)) == pytest.approx(worth)
    assert rows(found) == [0, 2, 1]
    assert {usage.stage for usage in found.usage.values()} == {"query"}


def test_words_of_equal_weight_grow_a_query_in_the_same_way_whatever_their_order() -> None:
    """BM25's vocabulary has another order in each process."""
    names = ["zebra", "apple", "mango", "kiwi"]
    counts = np.array([[1, 1, 1, 1]])
    hits = np.array([0], np.int32), np.array([2.0], np.float32)
    grown = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        vocabulary = [names[place] for place in order]
        grown.append(Feedback(1, 2, 0.5).expand_query({"zebra": 1.0}, hits, csr_array(counts[:, order]), vocabulary))
    assert grown[0] == grown[1] == grown[2] == {"zebra": 0.5, "apple": 0.25, "kiwi": 0.25}
