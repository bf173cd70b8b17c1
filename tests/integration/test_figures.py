"""Retrieval on real collections against published or independent figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag_opt.cache.store import Store
from rag_opt.components.embedders.embed import ChunkEmbedder, QueryEmbedder
from rag_opt.components.embedders.encoders import MiniLM
from rag_opt.components.resources import Resources
from rag_opt.components.retrievers.dense import ChromaIndexer, DenseRetriever, ExactIndexer
from rag_opt.components.splitters.chunkers import NoSplitter
from rag_opt.config.trial import compose_trial
from rag_opt.datasets import beir, msmarco
from rag_opt.datasets.checks import get_corpus
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.documents import Queries
from rag_opt.records.products import Searches

pytestmark = pytest.mark.integration


def test_bm25_on_nfcorpus_is_the_published_figure(data: Path, store: Store) -> None:
    """BEIR's BM25 (Lucene, stemmed, multi-field aside) has nDCG@10 0.32 on NFCorpus: 0.325 (Thakur et al. 2021)."""
    questions = Questions.from_dataset(beir.load(str(data / "nfcorpus")), 1, 0)
    pipeline = build_pipeline(
        compose_trial(["splitter=none", "retriever=bm25", "generator=none"]), Resources.from_store(store)
    )
    scores = evaluate_pipeline(pipeline, questions, [get_metric("nDCG@10")]).means
    assert scores["nDCG@10"] == pytest.approx(0.32, abs=0.01)


@pytest.mark.long
def test_dense_exact_equals_chroma_up_to_its_recall_on_real_text(data: Path, store: Store) -> None:
    dataset = msmarco.load(str(data / "msmarco_qa"), num_documents=400, num_queries=80)
    documents, queries = get_corpus(dataset), Queries.from_items(dataset.queries)
    encoder = MiniLM()
    encoder.use(Resources.from_store(store))
    chunks = NoSplitter().run(documents)["chunks"]
    vectors = ChunkEmbedder(encoder).run(chunks)["vectors"]
    asked = QueryEmbedder(encoder).run(Searches((queries,)))["query_vectors"]
    chroma = ChromaIndexer(200, 200, 32)
    chroma.use(Resources.from_store(store))
    rankings = {}
    for name, indexer in (("exact", ExactIndexer()), ("chroma", chroma)):
        index = indexer.run(chunks, vectors)["vector_index"]
        rankings[name] = DenseRetriever(20).run(asked, index)["dense_ranking"]
    similar = asked.own @ vectors.values.T
    for query in range(len(queries.items)):
        by_hand = np.argsort(-similar[query], kind="stable")[:20]
        assert [row for row, _ in rankings["exact"].get_hits(query)] == by_hand.tolist()
        for row, score in rankings["chroma"].get_hits(query):
            assert score == pytest.approx(similar[query][row], abs=1e-4)
    overlap = [
        len({r for r, _ in rankings["exact"].get_hits(q)} & {r for r, _ in rankings["chroma"].get_hits(q)}) / 20
        for q in range(len(queries.items))
    ]
    assert np.mean(overlap) > 0.98


def test_dense_beats_bm25_and_both_beat_chance_on_msmarco(data: Path, store: Store) -> None:
    """The sign of the scores: sorted the wrong way round, dense retrieval scores about 0.002."""
    dataset = msmarco.load(str(data / "msmarco_qa"), num_documents=400, num_queries=80)
    questions = Questions.from_dataset(dataset, 4, 0)
    scores = {}
    for words in (["retriever=bm25"], ["retriever=dense"], ["retriever=dense", "index=chroma"], ["retriever=hybrid"]):
        pipeline = build_pipeline(compose_trial(["splitter=none", *words]), Resources.from_store(store))
        scores[" ".join(words)] = evaluate_pipeline(pipeline, questions, [get_metric("nDCG@10")]).means["nDCG@10"]
    assert scores["retriever=dense"] > 0.85
    assert scores["retriever=dense index=chroma"] == pytest.approx(scores["retriever=dense"], abs=0.01)
    assert scores["retriever=hybrid"] > scores["retriever=bm25"] > 0.7


def test_a_warm_store_gives_the_same_bits(data: Path, tmp_path: Path) -> None:
    dataset = msmarco.load(str(data / "msmarco_qa"), num_documents=100, num_queries=20)
    questions = Questions.from_dataset(dataset, 4, 0)
    names = ["nDCG@10", "AP@10", "F1", "similarity", "tokens"]
    words = ["splitter=sentence", "splitter.chunk_size=30", "reranker=mmr"]
    found = []
    for _ in range(2):
        store = Store(tmp_path / "store")
        found.append(
            evaluate_pipeline(
                build_pipeline(compose_trial(words), Resources.from_store(store)),
                questions,
                [get_metric(name) for name in names],
            )
        )
    for name in names:
        assert np.array_equal(found[0].per_query[name], found[1].per_query[name], equal_nan=True)
    assert found[0].answers == found[1].answers
    assert found[0].retrieved == found[1].retrieved
