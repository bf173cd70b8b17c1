"""A ranking is measured as deep as its metrics read, whatever of it is handed on."""

from __future__ import annotations

from dataclasses import replace

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.embedders.embed import ChunkEmbedder, QueryEmbedder
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.ranking import stack_rankings
from rag_opt.components.resources import Resources
from rag_opt.components.retrievers.bm25 import BM25Indexer, BM25Retriever
from rag_opt.components.retrievers.dense import ChromaIndexer, DenseRetriever, ExactIndexer
from rag_opt.components.retrievers.fusion import Fusion
from rag_opt.components.splitters.chunkers import WordSplitter
from rag_opt.config.trial import compose_trial
from rag_opt.errors import MetricError
from rag_opt.evaluation.depth import rank_documents
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.metrics.retrieval import score_rankings
from rag_opt.records.documents import Dataset, Document, Documents, Queries, Query
from rag_opt.records.products import Chunks, Rankings, Searches

OF_CHUNK = (0, 0, 1, 0, 1, 2, 0, 1, 2, 2)
"""Ten chunks: the number of each one's document."""


def chunks(of_chunk: tuple[int, ...] = OF_CHUNK) -> Chunks:
    documents = Documents(tuple(Document(f"d{row}", "text") for row in range(1 + max(of_chunk))), repr(of_chunk))
    count = len(of_chunk)
    starts, ends = np.zeros(count, np.int32), np.full(count, 4, np.int32)
    return Chunks(documents, np.array(of_chunk, np.int32), starts, ends, repr(of_chunk))


def ranking(of: Chunks, *lists: list[int]) -> Rankings:
    pairs = [(np.array(each, np.int32), -np.arange(len(each), dtype=np.float32)) for each in lists]
    columns = stack_rankings(pairs, max(map(len, lists)))
    return Rankings(of, columns["rows"], columns["scores"], repr(lists))


def test_ten_chunks_of_three_documents_by_hand() -> None:
    """Chunks 9, 5, 2, 0, … of documents 2, 2, 1, 0: the ranking is d2, d1, d0, however few chunks are handed on."""
    found = Fusion(2).run(bm25_ranking=ranking(chunks(), [9, 5, 2, 0, 1, 3, 4, 6, 7, 8]))["ranking"]
    assert found.rows.tolist() == [[9, 5]]
    assert rank_documents([found], 3) == [["d2", "d1", "d0"]]
    assert rank_documents([found], 0) == [["d2"]]
    values = score_rankings(["nDCG@10", "RR@10"], {"q": {"d0": 1}}, ["q"], rank_documents([found], 10))
    assert values["RR@10"].tolist() == [pytest.approx(1 / 3)]
    assert values["nDCG@10"].tolist() == [pytest.approx(1 / np.log2(4))]


def test_what_a_reranker_was_not_given_or_left_out_follows_in_the_retrievers_order() -> None:
    of = chunks(tuple(range(8)))
    first = Fusion(4).run(bm25_ranking=ranking(of, [3, 1, 4, 0, 5, 2, 6]))["ranking"]
    own = ranking(of, [0, 4])
    assert rank_documents([own, first], 10) == [["d0", "d4", "d3", "d1", "d5", "d2", "d6"]]
    assert rank_documents([own, first], 3) == [["d0", "d4", "d3"]]


orders = st.permutations(range(12)).flatmap(lambda order: st.integers(1, 12).map(lambda count: list(order)[:count]))
MEASURES = ["nDCG@10", "RR@10", "R@10", "P@3", "AP@10", "AP"]


@given(
    st.lists(orders, min_size=1, max_size=3),
    st.data(),
    st.lists(st.integers(0, 5), min_size=12, max_size=12),
    st.sampled_from(["one", "weighted", "rrf"]),
)
@settings(max_examples=60)
def test_ranks_are_the_same_for_every_top_k_and_agree_with_ir_measures(lists, data, of_chunk, fused: str) -> None:
    of = chunks(tuple(of_chunk))
    others = [data.draw(orders) for _ in lists]
    given_rankings = {"bm25_ranking": ranking(of, *lists)}
    if fused != "one":
        given_rankings["dense_ranking"] = ranking(of, *others)
    ids = [f"q{row}" for row in range(len(lists))]
    qrels = {query: {"d0": 1, "d1": 2} for query in ids}
    method = "rrf" if fused == "rrf" else "weighted"
    found = []
    for top_k in (1, 3, 5, 12):
        handed = Fusion(top_k, method, 0.3).run(**given_rankings)["ranking"]
        assert handed.rows.shape[1] <= top_k
        found.append(score_rankings(MEASURES, qrels, ids, rank_documents([handed], 100)))
    for name in MEASURES:
        assert all(np.array_equal(found[0][name], other[name]) for other in found), name
    whole = Fusion(100, method, 0.3).run(**given_rankings)["ranking"]
    run = {}
    for row, query in enumerate(ids):
        best: dict[str, float] = {}
        for place, chunk in enumerate(chunk for chunk in whole.rows[row].tolist() if chunk >= 0):
            best.setdefault(of.document_ids[chunk], -float(place))
        run[query] = best
    for each in ir_measures.iter_calc([ir_measures.nDCG @ 10, ir_measures.AP], qrels, run):
        assert found[0][str(each.measure)][ids.index(each.query_id)] == each.value


# ---- as deep as documents need, not chunks

LONG = ["red " * 40 + "apple", "red sky over red sea", "a red fish", "blue red bird", "green tree", "red"]


def searched(kind: str, depth: int, resources: Resources) -> tuple[Rankings, Chunks]:
    documents = Documents(tuple(Document(f"d{row}", text) for row, text in enumerate(LONG)), repr(LONG))
    cut = WordSplitter(2).run(documents)["chunks"]
    queries = Queries.from_items((Query("q", "red red"), Query("r", "tree")))
    if kind == "bm25":
        index = BM25Indexer(1.2, 0.75, "lucene", None, None).run(cut)["bm25_index"]
        retriever = BM25Retriever(depth)
        retriever.use(resources)
        return retriever.run(Searches((queries,)), index)["bm25_ranking"], cut
    encoder = Hashing(64)
    vectors = ChunkEmbedder(encoder).run(cut)["vectors"]
    asked = QueryEmbedder(encoder).run(Searches((queries,)))["query_vectors"]
    indexer = ChromaIndexer(200, 200, 32) if kind == "chroma" else ExactIndexer()
    retriever = DenseRetriever(depth)
    retriever.use(resources)
    return retriever.run(asked, indexer.run(cut, vectors)["vector_index"])["dense_ranking"], cut


@pytest.mark.parametrize("kind", ["bm25", "dense", "chroma"])
def test_documents_behind_one_with_many_chunks_are_ranked_as_deep_as_metrics_read(kind: str, store: Store) -> None:
    """Twenty chunks of one document come first: three chunks deep, a ranking of five documents would hold one."""
    resources = Resources.from_store(store)
    shallow, cut = searched(kind, 3, replace(resources, reach=5))
    assert shallow.rows.shape == (2, 3)
    whole, _ = searched(kind, len(cut), Resources.from_store(Store()))
    wanted = [ids[:5] for ids in rank_documents([whole], len(LONG))]
    if kind == "chroma":
        # Equal vectors, which a word repeated makes, come in any order.
        assert [len(ids) for ids in rank_documents([shallow], 5)] == [5, 5]
    else:
        assert rank_documents([shallow], 5) == wanted
    handed = rank_documents([searched(kind, 3, resources)[0]], 0)[0]
    # The last document is "red" alone, whose vector is that of "red red".
    assert handed == ["d0"] or (kind == "chroma" and {*handed} == {"d0", "d5"})


def test_what_is_ranked_to_be_measured_costs_the_pipeline_nothing(store: Store) -> None:
    found = [searched("bm25", 3, replace(Resources.from_store(store), reach=reach))[0] for reach in (0, 5)]
    assert found[0].costs == found[1].costs
    assert found[0].key == found[1].key


# ---- whole pipelines


def books() -> Questions:
    """Documents of several chunks each, and questions on them."""
    subjects = ["cat", "dog", "owl", "bee", "oak", "fox", "ant", "elk", "cow", "hen", "rat", "bat", "cod"]
    documents = tuple(
        Document(f"{name}", " ".join(f"the {name} sees the {other} by day {day}" for day, other in enumerate(subjects)))
        for name in subjects
    )
    queries = tuple(Query(name, f"which {name} by day", answers=(name,)) for name in subjects)
    qrels = {name: {name: 2, subjects[(row + 1) % len(subjects)]: 1} for row, name in enumerate(subjects)}
    return Questions.from_dataset(Dataset("books", documents, queries, qrels), 3, 0)


NAMES = ["nDCG@10", "RR@10", "AP", "context.nDCG@10", "context.SetR", "tokens"]


def scores(store: Store, *words: str, names: list[str] = NAMES):
    whole = "splitter=none" in words
    base = [*([] if whole else ["splitter=word", "splitter.chunk_size=8"]), "embedder=hashing", "generator=none"]
    return evaluate_pipeline(
        build_pipeline(compose_trial([*base, *words]), Resources.from_store(store)),
        books(),
        [get_metric(name) for name in names],
    )


@pytest.mark.parametrize("words", [["retriever=bm25"], ["retriever=dense"], ["retriever=hybrid"], ["splitter=none"]])
def test_the_baseline_scores_the_same_with_another_top_k_to_the_bit(words: list[str], store: Store) -> None:
    few, many = (scores(store, *words, f"retriever.top_k={count}") for count in (3, 11))
    for name in ("nDCG@10", "RR@10", "AP"):
        assert np.array_equal(few.per_query[name], many.per_query[name])
    assert few.means["tokens"] < many.means["tokens"]
    assert few.means["context.SetR"] <= many.means["context.SetR"]
    assert few.means["context.nDCG@10"] <= few.means["nDCG@10"]
    assert all(len(ids) >= 10 for ids in few.retrieved)


@pytest.mark.parametrize("reranker", ["mmr", "none"])
def test_how_much_is_kept_changes_what_is_handed_on_and_no_rank(reranker: str, store: Store) -> None:
    keeps = [[f"reranker={reranker}"], ["reranker=mmr", "reranker.keep=2"]] if reranker == "mmr" else [[], []]
    whole, kept = (scores(store, *words, "retriever.top_k=6") for words in keeps)
    assert np.array_equal(whole.per_query["nDCG@10"], kept.per_query["nDCG@10"])
    if reranker == "mmr":
        assert kept.means["tokens"] < whole.means["tokens"]
        assert kept.means["context.SetR"] < whole.means["context.SetR"]


def test_context_measures_are_of_the_documents_that_are_handed_on_in_the_rankings_order(store: Store) -> None:
    found = scores(store, "retriever=bm25", "retriever.top_k=4", "context=assembled", "context.order=ends")
    plain = scores(store, "retriever=bm25", "retriever.top_k=4")
    for name in ("context.nDCG@10", "context.SetR", "nDCG@10"):
        assert np.array_equal(found.per_query[name], plain.per_query[name])
    questions = books()
    qrels = questions.dataset.qrels
    handed = scores(store, "retriever=bm25", "retriever.top_k=4", names=["tokens"]).retrieved
    for query, documents, value in zip(
        questions.queries.items, handed, plain.per_query["context.SetR"].tolist(), strict=True
    ):
        assert value == pytest.approx(len(set(documents) & set(qrels[query.id])) / 2)


def test_a_measure_of_sets_says_nothing_of_a_ranking() -> None:
    with pytest.raises(MetricError, match=r"SetR asks what is there.*write context\.SetR"):
        get_metric("SetR")
    assert get_metric("context.SetR(rel=2)").name == "context.SetR(rel=2)"
    with pytest.raises(MetricError, match=r"'context\.nDGC@10' is no metric; did you mean 'context\.nDCG@10'"):
        get_metric("context.nDGC@10")


def test_a_measure_without_a_cutoff_reads_as_many_documents_of_every_ranking() -> None:
    deep = [f"d{row}" for row in range(200)]
    qrels = {"q": {"d0": 1, "d150": 1}}
    values = [score_rankings(["AP"], qrels, ["q"], [ids])["AP"].tolist() for ids in (deep, deep[:100])]
    assert values[0] == values[1] == [0.5]
    assert score_rankings(["AP"], qrels, ["q"], [deep], whole=True)["AP"].tolist() == [pytest.approx((1 + 2 / 151) / 2)]


def test_a_retriever_of_ones_own_that_ranks_too_little_is_said(store: Store, capsys: pytest.CaptureFixture) -> None:
    from rag_opt.console.progress import Screen

    words = ["~retriever.components.fusion", "+retriever.components.own._target_=tests.unit.ranking_parts.Shallow"]
    with Screen():
        scores(store, "retriever=bm25", *words, "trusted_modules=[tests]")
    assert "13 of 13 questions are measured on fewer than 13 documents: the retriever ranks only 2 chunks" in (
        capsys.readouterr().err
    )


def test_an_own_reranker_is_given_the_candidates_alone_and_the_rest_follows(store: Store) -> None:
    from tests.unit.ranking_parts import Backwards

    Backwards.seen.clear()
    words = ["+reranker.components.own._target_=tests.unit.ranking_parts.Backwards", "trusted_modules=[tests]"]
    found = scores(store, "splitter=none", "retriever=dense", "retriever.top_k=5", *words)
    plain = scores(store, "splitter=none", "retriever=dense", "retriever.top_k=5")
    assert Backwards.seen == [5]
    for own, before in zip(found.retrieved, plain.retrieved, strict=True):
        assert own == (*before[4:1:-1], *before[:2], *before[5:])
