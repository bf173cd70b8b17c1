"""Splitters, retrievers, fusion, rerankers, generators: against exact search, brute force and hand-worked examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.embedders.embed import ChunkEmbedder, QueryEmbedder
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.generators.extractive import Extractive, Sentence, join_sentences
from rag_opt.components.ranking import select_top, stack_rankings
from rag_opt.components.rerankers.mmr import MMR
from rag_opt.components.resources import Resources
from rag_opt.components.retrievers.bm25 import BM25Indexer, BM25Retriever, build_bm25
from rag_opt.components.retrievers.dense import ChromaIndexer, DenseRetriever, ExactIndexer
from rag_opt.components.retrievers.fusion import Fusion
from rag_opt.components.retrievers.term_counts import count_chunks, count_terms
from rag_opt.components.splitters.chunkers import NoSplitter, SemanticSplitter, SentenceSplitter
from rag_opt.components.tokenization import Reading
from rag_opt.records.documents import Document, Documents, Queries, Query
from rag_opt.records.keys import FORM, compute_key
from rag_opt.records.products import Chunks, QueryVectors, Rankings, Searches, Vectors

WORDS = st.sampled_from("red green blue apple sky sea fish pie".split())


def corpus(*texts: str) -> Documents:
    return Documents(tuple(Document(f"d{i}", text) for i, text in enumerate(texts)), repr(texts))


def asked(*texts: str) -> Queries:
    return Queries.from_items(tuple(Query(f"q{i}", text) for i, text in enumerate(texts)))


def chunked(*texts: str) -> Chunks:
    return NoSplitter().run(corpus(*texts))["chunks"]


def ranking(chunks: Chunks, *lists: list[tuple[int, float]]) -> Rankings:
    depth = max(map(len, lists))
    columns = stack_rankings(
        [(np.array([r for r, _ in x], np.int32), np.array([s for _, s in x], np.float32)) for x in lists], depth
    )
    return Rankings(chunks, columns["rows"], columns["scores"], repr(lists))


def rows(found: Rankings, query: int = 0) -> list[int]:
    return [row for row, _ in found.get_hits(query)]


# ---- ranking


@given(st.lists(st.floats(-5, 5, width=32) | st.just(-np.inf), min_size=1, max_size=40), st.integers(1, 50))
def test_best_is_a_stable_sort_cut_at_depth(scores: list[float], depth: int) -> None:
    found, values = select_top(np.array(scores, np.float32), depth)
    expected = [i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)) if np.isfinite(scores[i])][:depth]
    assert found.tolist() == expected
    assert values.tolist() == [np.float32(scores[i]) for i in expected]


# ---- splitters


def test_chunks_know_their_document_and_characters() -> None:
    documents = corpus("One two. Three four.", "Five six.")
    chunks = SentenceSplitter(2, 0).run(documents)["chunks"]
    assert chunks.texts == ["One two.", "Three four.", "Five six."]
    assert chunks.document_ids == ["d0", "d0", "d1"]
    for row, start, end, text in zip(chunks.document_rows, chunks.starts, chunks.ends, chunks.texts, strict=True):
        assert documents.items[row].text[start:end] == text


def test_semantic_splitter_cuts_where_the_subject_changes() -> None:
    text = "Cats purr and cats sleep. Cats like cats that purr. Stocks fell and bonds fell. Bonds fell as stocks fell."
    chunks = SemanticSplitter(100, 0.4, Hashing(4096)).run(corpus(text))["chunks"]
    assert [len(t.split(". ")) for t in chunks.texts] == [2, 2]
    assert chunks.texts[1].startswith("Stocks")


def test_titles_are_indexed_but_are_no_part_of_the_chunk() -> None:
    documents = Documents((Document("a", "body text", "Title"),), "k")
    chunks = NoSplitter().run(documents)["chunks"]
    assert chunks.texts == ["body text"]
    assert chunks.contents == ["Title\nbody text"]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (5, 5), (5, 9), (5, -1)])
def test_an_overlap_that_never_advances_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=r"chunk_size|overlap"):
        SentenceSplitter(size, overlap)


# ---- BM25


def bm25(texts: list[str], queries: Queries, depth: int = 10, **options: object) -> Rankings:
    settings = {"k1": 1.2, "b": 0.75, "variant": "lucene", "stemmer": "english", "stopwords": "english", **options}
    index = BM25Indexer(**settings).run(chunked(*texts))["bm25_index"]
    return BM25Retriever(depth).run(Searches((queries,)), index)["bm25_ranking"]


def test_bm25_agrees_with_the_formula() -> None:
    """Lucene's BM25: idf = ln(1 + (N - n + 0.5) / (n + 0.5)), tf / (tf + k1 (1 - b + b |d| / avg))."""
    texts = ["red apple red", "green apple", "blue sky blue sea"]
    found = bm25(texts, asked("red apple"), stemmer=None, stopwords=None)
    average = (3 + 2 + 4) / 3

    def part(tf: int, containing: int, length: int) -> float:
        idf = np.log(1 + (3 - containing + 0.5) / (containing + 0.5))
        return float(idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * length / average)))

    expected = [part(2, 1, 3) + part(1, 2, 3), part(1, 2, 2)]
    assert rows(found) == [0, 1]
    assert [score for _, score in found.get_hits(0)] == pytest.approx(expected, rel=1e-5)


@given(
    st.lists(st.tuples(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=6)), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_a_title_weighed_is_a_title_written_so_often(texts: list[tuple[list[str], list[str]]], weight: int) -> None:
    """Counts with a whole weight are those of texts that hold the title so many times."""
    documents = tuple(Document(f"d{n}", " ".join(body), " ".join(title)) for n, (title, body) in enumerate(texts))
    chunks = NoSplitter().run(Documents(documents, repr(texts)))["chunks"]
    reading = Reading(None, None)
    ours = count_chunks(chunks, reading, float(weight))
    written = [f"{' '.join([title] * weight)} {text}" for title, text in zip(chunks.titles, chunks.texts, strict=True)]
    theirs = count_terms(written, reading)
    assert sorted(ours.words) == sorted(theirs.words)
    np.testing.assert_array_equal(ours.lengths, theirs.lengths)
    for word in theirs.words:
        found = [
            dict(zip(each.chunk_rows[place].tolist(), each.frequencies[place].tolist(), strict=True))
            for each in (ours, theirs)
            for place in [slice(each.starts[each.places[word]], each.starts[each.places[word] + 1])]
        ]
        assert found[0] == found[1]


def test_titles_count_as_they_are_weighed() -> None:
    documents = Documents(
        (Document("a", "pie pie", "apple"), Document("b", "apple pie"), Document("c", "sky")), "titles"
    )
    chunks = NoSplitter().run(documents)["chunks"]

    def search(weight: float) -> list[int]:
        index = BM25Indexer(1.2, 0.0, "lucene", None, None, title_weight=weight).run(chunks)["bm25_index"]
        return rows(BM25Retriever(10).run(Searches((asked("apple"),)), index)["bm25_ranking"])

    assert search(0.0) == [1]
    assert search(3.0) == [0, 1]
    assert search(0.5) == [1, 0]


def test_a_weight_of_1_keeps_what_was_counted_before_there_were_weights() -> None:
    settings = (1.2, 0.75, "lucene", "english", "english", "auto")
    # The key that 0.1.0 gave this indexer, when it knew of no weight.
    values = dict(zip(("k1", "b", "variant", "stemmer", "stopwords", "language"), settings, strict=True))
    before = compute_key(FORM, BM25Indexer.algorithm, values)
    assert BM25Indexer(*settings).fingerprint == before
    assert BM25Indexer(*settings, title_weight=2.0).fingerprint != before


@pytest.mark.parametrize("query", ["", "the of and", "zebra", "!?"])
def test_a_query_without_a_known_word_finds_nothing(query: str) -> None:
    found = bm25(["red apple", "blue sky"], asked(query, "apple"))
    assert rows(found, 0) == []
    assert rows(found, 1) == [0]


@pytest.mark.parametrize("variant", ["robertson", "lucene", "atire", "bm25l", "bm25+"])
def test_chunks_without_a_word_of_the_query_are_no_hits(variant: str) -> None:
    texts = ["red apple", "blue sky", "green sea", "fish and sea", "apple pie"]
    assert rows(bm25(texts, asked("fish"), variant=variant)) == [3]
    assert sorted(rows(bm25(texts, asked("apple sea"), variant=variant))) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stemmer", "klingon"),
        ("stopwords", "klingon"),
        ("variant", "bm26"),
        ("k1", -1),
        ("b", 2),
        ("title_weight", -1),
        ("title_weight", "heavy"),
        ("b", None),
    ],
)
def test_what_bm25_can_not_use_is_refused_when_it_is_built(name: str, value: object) -> None:
    settings = {"k1": 1.2, "b": 0.75, "variant": "lucene", "stemmer": None, "stopwords": None, name: value}
    with pytest.raises(ValueError, match=name):
        BM25Indexer(**settings)


@pytest.mark.parametrize("value", [0, 2.5, True, "3", None])
def test_counts_are_whole_numbers(value: object) -> None:
    for make in (Fusion, BM25Retriever, DenseRetriever, Extractive):
        with pytest.raises(ValueError, match="must be a whole number"):
            make(value)


def test_a_corpus_of_stop_words_finds_nothing() -> None:
    assert rows(bm25(["the", "and of"], asked("the"))) == []


def test_stemming_and_stop_words_are_choices() -> None:
    assert rows(bm25(["running dogs", "blue sky"], asked("run"))) == [0]
    assert rows(bm25(["running dogs", "blue sky"], asked("run"), stemmer=None)) == []


# ---- dense


def vectors_of(chunks: Chunks, queries: Queries) -> tuple[Vectors, QueryVectors]:
    encoder = Hashing(256)
    return ChunkEmbedder(encoder).run(chunks)["vectors"], QueryEmbedder(encoder).run(Searches((queries,)))[
        "query_vectors"
    ]


def test_chroma_agrees_with_exact_search_and_greater_is_better(tmp_path) -> None:
    words = [f"w{i}" for i in range(40)]
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, 8)) for _ in range(300)]
    chunks, queries = chunked(*texts), asked(*texts[:20])
    vectors, query_vectors = vectors_of(chunks, queries)
    chroma = ChromaIndexer(200, 200, 32)
    chroma.use(Resources.from_store(Store(tmp_path)))
    indexers: dict[str, ExactIndexer | ChromaIndexer] = {"exact": ExactIndexer(), "chroma": chroma}
    found = {
        name: DenseRetriever(10).run(query_vectors, indexer.run(chunks, vectors)["vector_index"])["dense_ranking"]
        for name, indexer in indexers.items()
    }
    for query in range(20):
        # A text is its own nearest neighbour: a distance taken for a similarity would put it last.
        assert rows(found["exact"], query)[0] == query or found["exact"].scores[query][0] == pytest.approx(1, abs=1e-5)
    # Many texts are equally near, so the scores are compared, not the rows; HNSW may miss a few.
    same = np.isclose(found["chroma"].scores, found["exact"].scores, atol=1e-4)
    assert same.mean() > 0.95


def test_depth_is_clipped_to_the_corpus() -> None:
    chunks, queries = chunked("red apple", "blue sky"), asked("apple")
    vectors, query_vectors = vectors_of(chunks, queries)
    index = ExactIndexer().run(chunks, vectors)["vector_index"]
    assert DenseRetriever(100).run(query_vectors, index)["dense_ranking"].rows.shape == (1, 2)


# ---- fusion

CHUNKS = chunked(*(f"text {i}" for i in range(10)))
hit_lists = st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True).flatmap(
    lambda rows: st.lists(st.floats(0, 100, width=32), min_size=len(rows), max_size=len(rows)).map(
        lambda scores: list(zip(rows, sorted(scores, reverse=True), strict=True))
    )
)


def test_weighted_fusion_by_hand() -> None:
    bm25_list, dense_list = [(0, 10.0), (1, 5.0), (2, 0.0)], [(1, 0.9), (3, 0.5)]
    fused = Fusion(4, "weighted", 0.25).run(ranking(CHUNKS, bm25_list), ranking(CHUNKS, dense_list))["ranking"]
    # 0: .75 × 1;  1: .75 × .5 + .25 × 1;  2 and 3: 0, each a hair below for the list that lacks it
    assert rows(fused) == [0, 1, 2, 3]
    assert fused.scores[0].tolist() == pytest.approx([0.75, 0.625, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("scaling", ["minmax", "zscore"])
def test_a_lists_last_hit_stands_above_chunks_that_the_list_lacks(scaling: str) -> None:
    bm25_list, dense_list = [(5, 9.0), (7, 1.0)], [(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6)]
    for weight, expected in ((0.0, [5, 7]), (1.0, [1, 2, 3, 4])):
        fused = Fusion(6, "weighted", weight, scaling).run(ranking(CHUNKS, bm25_list), ranking(CHUNKS, dense_list))
        assert rows(fused["ranking"])[: len(expected)] == expected


def test_reciprocal_rank_fusion_by_hand() -> None:
    fused = Fusion(3, "rrf").run(ranking(CHUNKS, [(0, 9.0), (1, 5.0)]), ranking(CHUNKS, [(1, 0.9), (2, 0.1)]))[
        "ranking"
    ]
    assert rows(fused) == [1, 0, 2]
    assert fused.scores[0].tolist() == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])


@given(hit_lists, hit_lists, st.sampled_from(["minmax", "zscore"]))
def test_the_ends_of_the_weight_keep_each_rankings_own_order(one, two, scaling: str) -> None:
    """At weight 0 the order of BM25's hits stays, at 1 that of dense: equal scores aside."""
    for weight, kept in ((0.0, one), (1.0, two)):
        fused = Fusion(20, "weighted", weight, scaling).run(ranking(CHUNKS, one), ranking(CHUNKS, two))["ranking"]
        place = {row: position for position, row in enumerate(rows(fused))}
        score = dict(fused.get_hits(0))
        for (a, _), (b, _) in zip(kept, kept[1:], strict=False):
            assert place[a] < place[b] or score[a] == score[b]


@given(hit_lists, hit_lists, st.floats(0, 1), st.integers(1, 12), st.sampled_from(["weighted", "rrf"]))
def test_fusion_is_a_ranking_of_the_union(one, two, weight: float, top_k: int, method: str) -> None:
    fused = Fusion(top_k, method, weight).run(ranking(CHUNKS, one), ranking(CHUNKS, two))["ranking"]
    union = {row for row, _ in one + two}
    assert len(rows(fused)) == min(top_k, len(union)) == len(set(rows(fused)))
    assert set(rows(fused)) <= union
    scores = [score for _, score in fused.get_hits(0)]
    assert scores == sorted(scores, reverse=True)


@given(st.lists(st.tuples(hit_lists, hit_lists), min_size=1, max_size=4), st.sampled_from(["weighted", "rrf"]))
def test_a_batch_is_its_queries_one_by_one(lists, method: str) -> None:
    fusion = Fusion(5, method, 0.3)
    whole = fusion.run(ranking(CHUNKS, *[a for a, _ in lists]), ranking(CHUNKS, *[b for _, b in lists]))["ranking"]
    for query, (a, b) in enumerate(lists):
        assert whole.get_hits(query) == fusion.run(ranking(CHUNKS, a), ranking(CHUNKS, b))["ranking"].get_hits(0)


def test_one_ranking_is_only_cut() -> None:
    fused = Fusion(2).run(bm25_ranking=ranking(CHUNKS, [(4, 3.0), (5, 2.0), (6, 1.0)]))["ranking"]
    assert fused.get_hits(0) == [(4, 3.0), (5, 2.0)]


# ---- reranking


def test_mmr_agrees_with_a_brute_force_greedy_choice() -> None:
    chunks = chunked("red apple", "red apples", "apple pie red", "green sea", "apple sea")
    queries = asked("red apple sea")
    vectors, query_vectors = vectors_of(chunks, queries)
    given_ranking = ranking(chunks, [(row, float(5 - row)) for row in range(5)])
    for diversity in (0.0, 0.4, 1.0):
        found = MMR(diversity, Hashing(256)).run(given_ranking, query_vectors, vectors)["ranking"]
        chosen: list[int] = []
        while len(chosen) < 5:

            def gain(row: int, chosen: list[int] = chosen, diversity: float = diversity) -> float:
                near = max((float(vectors.values[row] @ vectors.values[c]) for c in chosen), default=0.0)
                return (1 - diversity) * float(vectors.values[row] @ query_vectors.own[0]) - diversity * near

            chosen.append(max((r for r in range(5) if r not in chosen), key=gain))
        assert rows(found) == chosen


def test_mmr_keeps_so_many() -> None:
    chunks, queries = chunked("a b", "c d", "e f"), asked("a")
    vectors, query_vectors = vectors_of(chunks, queries)
    given_ranking = ranking(chunks, [(2, 3.0), (1, 2.0), (0, 1.0)])
    found = MMR(0.3, Hashing(256), keep=2).run(given_ranking, query_vectors, vectors)["ranking"]
    whole = MMR(0.3, Hashing(256)).run(given_ranking, query_vectors, vectors)["ranking"]
    assert len(rows(found)) == 2
    assert found.whole.tolist() == whole.rows.tolist() != given_ranking.rows.tolist()


# ---- generation


def test_the_answer_is_the_most_telling_sentence() -> None:
    chunks = chunked("The sky is blue. Apples grow on trees in autumn. Rain is wet.", "Nothing here.")
    queries = asked("Where do apples grow?")
    answers = Extractive(8).run(queries, ranking(chunks, [(0, 2.0), (1, 1.0)]), chunks)["answers"]
    assert answers.texts == ("Apples grow on trees in autumn.",)
    assert answers.tokens.tolist() == [5 + 13 + 3 + 3]


def test_the_answer_is_the_most_telling_sentence_in_any_script() -> None:
    chunks = chunked("水獭住在河边。骆驼住在沙漠里！企鹅住在南极。", "वह नदी में है। ऊँट रेगिस्तान में है।")
    for question, answer in (("沙漠里有什么？", "骆驼住在沙漠里！"), ("रेगिस्तान?", "ऊँट रेगिस्तान में है।")):
        found = Extractive(8).run(asked(question), ranking(chunks, [(0, 1.0), (1, 0.5)]), chunks)["answers"]
        assert found.texts[0].startswith(answer)


def test_nothing_retrieved_gives_an_empty_answer() -> None:
    chunks, queries = chunked("text"), asked("question?")
    nothing = Rankings(chunks, np.zeros((1, 0), np.int32), np.zeros((1, 0), np.float32), "k")
    answers = Extractive(8).run(queries, nothing, chunks)["answers"]
    assert answers.texts == ("",)
    assert answers.tokens.tolist() == [2]


@given(st.lists(st.text(alphabet="ab ,.", min_size=1, max_size=30)), st.integers(1, 20))
def test_an_answer_never_exceeds_its_tokens(parts: list[str], limit: int) -> None:
    from rag_opt.text.tokenization import count_tokens

    assert count_tokens(join_sentences(map(Sentence.from_text, parts), limit)) <= limit


# ---- batches


def test_batches_of_a_set_give_what_the_set_gives() -> None:
    texts = ["red apple", "blue sky", "green sea", "red sky at night"]
    whole = asked("red", "sky", "sea", "apple night")
    index = BM25Indexer(1.2, 0.75, "lucene", None, None).run(chunked(*texts))["bm25_index"]
    retriever = BM25Retriever(3)
    full = retriever.run(Searches((whole,)), index)["bm25_ranking"]
    for picked in ([0, 1], [2], [3, 0]):
        part = retriever.run(Searches((whole.make_batch(np.array(picked, np.int32)),)), index)["bm25_ranking"]
        assert [part.get_hits(i) for i in range(len(picked))] == [full.get_hits(row) for row in picked]


def test_a_depth_or_top_k_beyond_the_corpus_is_clipped_and_said_once(
    store: Store, capsys: pytest.CaptureFixture
) -> None:
    from rag_opt.console.progress import Screen

    indexer, retriever, fusion = BM25Indexer(1.2, 0.75, "lucene", None, None), BM25Retriever(50), Fusion(20)
    for part in (indexer, retriever, fusion):
        part.use(Resources.from_store(store))
    index = indexer.run(chunked("red apple", "blue sky", "red sky"))["bm25_index"]
    with Screen():
        for query in ("red", "sky", "apple"):
            found = fusion.run(bm25_ranking=retriever.run(Searches((asked(query),)), index)["bm25_ranking"])["ranking"]
            assert found.rows.shape == (1, 3)
    said = capsys.readouterr().err
    assert said.count("depth 50 is clipped") == 1
    assert said.count("top_k 20 is more than the 3 chunks") == 1


# ---- what is stored is what would be computed


@given(
    st.lists(st.lists(WORDS, max_size=9), min_size=2),
    st.sampled_from(["robertson", "lucene", "atire", "bm25l", "bm25+"]),
    st.floats(0.01, 4),
    st.floats(0, 1),
)
def test_counts_weighed_are_the_index_that_bm25s_makes(texts, variant: str, k1: float, b: float) -> None:
    """The same scores, to the bit, for every chunk and word."""
    import bm25s

    reading = Reading(None, None)
    corpus_texts = [" ".join(words) for words in texts]
    tokens = bm25s.tokenize(corpus_texts, stopwords=[], show_progress=False)
    if not any(tokens.ids):
        assert count_terms(corpus_texts, reading).words == []
        return
    theirs = bm25s.BM25(k1=k1, b=b, method=variant)
    theirs.index(tokens, show_progress=False)
    ours = build_bm25(count_terms(corpus_texts, reading), k1, b, variant)
    for word in tokens.vocab:
        if word in ours.vocab_dict:
            mine = ours.get_scores_from_ids([ours.vocab_dict[word]])
            np.testing.assert_array_equal(mine, theirs.get_scores_from_ids([theirs.vocab_dict[word]]))


def fused_by_hand(lists, method: str, weight: float, scaling: str, top_k: int) -> list[int]:
    """One query at a time, with dictionaries."""
    total: dict[int, float] = dict.fromkeys([row for hits in lists for row, _ in hits], 0.0)
    for hits, share in zip(lists, (1.0, 1.0) if method == "rrf" else (1.0 - weight, weight), strict=True):
        scores = np.array([score for _, score in hits], np.float32).astype(np.float64)
        if method == "rrf":
            values, lacking = 1 / (61 + np.arange(len(scores))), 0.0
        else:
            origin = scores.min() if scaling == "minmax" else scores.mean()
            width = scores.max() - scores.min() if scaling == "minmax" else scores.std()
            flat = np.full(len(scores), 0.5 if scaling == "minmax" else 0.0)
            values = (scores - origin) / width if width > 1e-12 else flat
            lacking = (0.0 if scaling == "minmax" or width <= 1e-12 else values.min()) - 1e-6
        known = dict(zip([row for row, _ in hits], values, strict=True))
        for row in total:
            total[row] += share * known.get(row, lacking)
    return [row for row, _ in sorted(total.items(), key=lambda item: (-round(item[1], 9), item[0]))][:top_k]


@given(
    hit_lists,
    hit_lists,
    st.sampled_from(["weighted", "rrf"]),
    st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]),
    st.sampled_from(["minmax", "zscore"]),
)
def test_fusion_of_all_queries_at_once_agrees_with_one_by_hand(one, two, method, weight, scaling) -> None:
    whole = [(float(np.float32(score)), row) for hits in (one, two) for row, score in hits]
    one, two = ([(row, round(score, 2)) for row, score in hits] for hits in (one, two))
    fused = Fusion(20, method, weight, scaling).run(ranking(CHUNKS, one), ranking(CHUNKS, two))["ranking"]
    expected = fused_by_hand((one, two), method, weight, scaling, 20)
    scores = {row: round(score, 5) for row, score in fused.get_hits(0)}
    assert sorted(rows(fused)) == sorted(expected), whole
    # Scores that differ by rounding alone may stand either way.
    assert [scores[row] for row in expected] == pytest.approx([scores[row] for row in rows(fused)], abs=2e-5)


def all_retrievals(queries: Queries, store: Store) -> dict[str, Rankings]:
    texts = [
        f"{a} {b} {c}" for a in "red green blue".split() for b in "apple sky sea".split() for c in "old new".split()
    ]
    chunks = chunked(*texts)
    vectors, query_vectors = vectors_of(chunks, queries)
    sparse = BM25Indexer(1.2, 0.75, "lucene", None, None).run(chunks)["bm25_index"]
    bm25_ranking = BM25Retriever(12).run(Searches((queries,)), sparse)["bm25_ranking"]
    found = {"bm25": bm25_ranking}
    for name, indexer in (("exact", ExactIndexer()), ("chroma", ChromaIndexer(100, 100, 16))):
        if name == "chroma":
            indexer.use(Resources.from_store(store))
        index = indexer.run(chunks, vectors)["vector_index"]
        found[name] = DenseRetriever(12).run(query_vectors, index)["dense_ranking"]
    for method, scaling in (("weighted", "minmax"), ("weighted", "zscore"), ("rrf", "minmax")):
        fusion = Fusion(6, method, 0.4, scaling)
        found[f"{method} {scaling}"] = fusion.run(bm25_ranking, found["exact"])["ranking"]
    found["mmr"] = MMR(0.3, Hashing(256), 4).run(found["rrf minmax"], query_vectors, vectors)["ranking"]
    return found


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["red", "old sea", "new blue apple", "sky", "zebra", ""]), min_size=2, max_size=5))
def test_a_batch_is_its_queries_one_by_one_for_every_retriever_fusion_and_reranker(tmp_path_factory, texts) -> None:
    store = Store(tmp_path_factory.mktemp("batch"))
    together = all_retrievals(asked(*texts), store)
    for place, text in enumerate(texts):
        for name, alone in all_retrievals(asked(text), store).items():
            mine, its = together[name].get_hits(place), alone.get_hits(0)
            scores = np.array([score for _, score in mine])
            assert scores.tolist() == pytest.approx([score for _, score in its], abs=1e-5), name
            # A matrix product's last bits hang on its size, so chunks that score alike may stand either way.
            for i, score in enumerate(scores):
                tied = (np.abs(scores - score) < 1e-4).sum() > 1 or score - scores[-1] < 1e-4
                assert tied or mine[i][0] == its[i][0], name


def test_a_deeper_ranking_serves_the_shallower_ones() -> None:
    chunks, queries = chunked(*(f"word{i % 7} common" for i in range(30))), asked("word3 common", "common")
    store = Store()
    resources = replace(Resources.from_store(store), deepest=20)
    index = BM25Indexer(1.2, 0.75, "lucene", None, None).run(chunks)["bm25_index"]
    found = {}
    for depth in (5, 12, 20):
        retriever = BM25Retriever(depth)
        retriever.use(resources)
        found[depth] = retriever.run(Searches((queries,)), index)["bm25_ranking"]
    assert (store.misses["rankings"], store.hits["rankings"]) == (1, 2)
    for depth, ranked in found.items():
        assert ranked.get_hits(0) == BM25Retriever(depth).run(Searches((queries,)), index)["bm25_ranking"].get_hits(0)
        assert ranked.rows.shape == (2, depth)


def test_what_two_results_share_is_counted_once() -> None:
    chunks, queries = chunked("red apple", "blue sky"), asked("apple")
    vectors, query_vectors = vectors_of(chunks, queries)
    query_vectors = QueryVectors(query_vectors.searches, (queries,), (Vectors(query_vectors.own, "q", 2.0),))
    index = ExactIndexer().run(chunks, vectors)["vector_index"]
    dense = DenseRetriever(2).run(query_vectors, index)["dense_ranking"]
    reranked = MMR(0.5, Hashing(256)).run(dense, query_vectors, vectors)["ranking"]
    assert 2.0 < sum(reranked.costs.values()) < 3.0
    sparse = ranking(chunks, [(0, 1.0)])
    assert 2.0 < sum(MMR(0.5, Hashing(256)).run(sparse, query_vectors, vectors)["ranking"].costs.values()) < 3.0


def test_reranking_nothing_is_nothing(tmp_path) -> None:
    chunks, queries = chunked("a b", "c d"), asked("a")
    vectors, query_vectors = vectors_of(chunks, queries)
    nothing = Rankings(chunks, np.zeros((1, 0), np.int32), np.zeros((1, 0), np.float32), "k")
    reranker = MMR(0.3, Hashing(256))
    reranker.use(Resources.from_store(Store(tmp_path)))
    assert rows(reranker.run(nothing, query_vectors, vectors)["ranking"]) == []


def test_building_an_index_is_no_part_of_what_a_query_costs(monkeypatch) -> None:
    import time

    from rag_opt.components.retrievers import term_counts

    slow = term_counts.count_terms
    monkeypatch.setattr(term_counts, "count_terms", lambda *given: [time.sleep(0.3), slow(*given)][1])
    index = BM25Indexer(1.2, 0.75, "lucene", None, None)
    index.use(Resources.from_store(Store()))
    made = index.run(chunked("red apple pie", "blue sky"))["bm25_index"]
    assert made.seconds == 0.0
    found = BM25Retriever(2).run(Searches((asked("apple of index time"),)), made)["bm25_ranking"]
    assert sum(found.costs.values()) < 0.1
    assert made.seconds >= 0.3
