"""Queries that are documents: no hit of their own, no rank of theirs, whatever searches and however deep."""

from __future__ import annotations

from dataclasses import replace

import ir_measures
import numpy as np
import pytest

from rag_opt.cache.store import Store
from rag_opt.components.own_documents import exclude_own
from rag_opt.components.resources import Resources
from rag_opt.config.trial import compose_trial
from rag_opt.datasets import beir, jsonl
from rag_opt.datasets.checks import exclude_identical
from rag_opt.datasets.duplicates import format_repeats
from rag_opt.errors import DatasetError
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.documents import Dataset, Document, Documents, Queries, Query
from rag_opt.records.products import Chunks
from tests.conftest import write_jsonl

SUBJECTS = ["apples", "bees", "cats", "dogs", "eels", "figs"]


def arguments() -> Dataset:
    """Six arguments and a counter-argument to each; the arguments are the queries, under the ids of the documents."""
    texts = {f"{each}-pro": f"Many people say that {each} are good for all of us. " * 4 for each in SUBJECTS}
    texts |= {f"{each}-con": f"No people say for sure that {each} are bad, say people. " * 3 for each in SUBJECTS}
    queries = tuple(Query(f"{each}-pro", texts[f"{each}-pro"]) for each in SUBJECTS)
    qrels = {f"{each}-pro": {f"{each}-con": 1} for each in SUBJECTS}
    return Dataset("arguments", tuple(Document(key, text) for key, text in texts.items()), queries, qrels)


def retrieved(dataset: Dataset, store: Store, *words: str) -> tuple[list[tuple[str, ...]], float]:
    """The documents by query, in the dataset's order of queries, and nDCG@10."""
    given = ["generator=none", "embedder=hashing", "splitter=word", "splitter.chunk_size=10", *words]
    pipeline = build_pipeline(compose_trial(given), Resources.from_store(store))
    found = evaluate_pipeline(pipeline, Questions.from_dataset(dataset, 1, 0), [get_metric("nDCG@10")])
    by_id = dict(zip(found.query_ids, found.retrieved, strict=True))
    return [by_id[query.id] for query in dataset.queries], found.means["nDCG@10"]


CONFIGURATIONS = [
    ("retriever=bm25",),
    ("retriever=dense",),
    ("retriever=hybrid", "retriever.fusion=rrf"),
    ("retriever=bm25", "retriever.top_k=2", "retriever.depth=3"),
    ("retriever=bm25", "query=rm3"),
    ("retriever=dense", "reranker=mmr"),
]


@pytest.mark.parametrize("words", CONFIGURATIONS, ids=" ".join)
def test_a_query_is_no_hit_of_its_own_and_loses_no_rank(store: Store, words: tuple[str, ...]) -> None:
    dataset = arguments()
    ours, score = retrieved(exclude_identical(dataset), store, *words)
    for query, found in zip(dataset.queries, ours, strict=True):
        assert query.id not in found
        assert len(found) == 10
    # As BEIR has it: what has the query's own id is dropped from a run before it is measured.
    run = {
        q.id: {d: -float(rank) for rank, d in enumerate(found)} for q, found in zip(dataset.queries, ours, strict=True)
    }
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], dataset.qrels, run)[ir_measures.nDCG @ 10]
    assert score == pytest.approx(expected)


def test_bm25_ranks_the_others_as_before(store: Store) -> None:
    dataset = arguments()
    ours, score = retrieved(exclude_identical(dataset), store, "retriever=bm25")
    theirs, with_themselves = retrieved(dataset, store, "retriever=bm25", "retriever.depth=48")
    for query, own, whole in zip(dataset.queries, ours, theirs, strict=True):
        assert whole[0] == query.id
        assert [each for each in whole if each != query.id] == list(own)[: len(whole) - 1]
    assert score > with_themselves


def test_the_search_goes_as_much_deeper_as_the_own_document_has_chunks() -> None:
    documents = Documents((Document("a", "x"), Document("b", "y"), Document("c", "z")), "three")
    of = np.array([0, 1, 0, 2, 0, 1], np.int32)
    chunks = Chunks(documents, of, np.zeros(6, np.int32), np.ones(6, np.int32), "six")
    asked: list[int] = []

    def search(rows, depth):
        asked.append(depth)
        return [(np.arange(6, dtype=np.int32)[:depth], -np.arange(6, dtype=np.float32)[:depth]) for _ in rows]

    queries = Queries.from_items((Query("a", "x", own="a"), Query("q", "?"), Query("gone", "?", own="gone")))
    found = exclude_own(search, queries, chunks)(np.arange(3, dtype=np.int32), 3)
    assert asked == [6]
    assert [rows.tolist() for rows, _ in found] == [[1, 3, 5], [0, 1, 2], [0, 1, 2]]
    assert found[0][1].tolist() == [-1, -3, -5]
    assert exclude_own(search, Queries.from_items((Query("q", "?"),)), chunks) is search


def folder(tmp_path, ids: tuple[str, ...] = ("a", "q")) -> str:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": key, "text": f"text {key}"} for key in "abc"])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": key, "text": f"text {key}"} for key in ids])
    (tmp_path / "qrels.tsv").write_text("".join(f"{key}\tb\t1\n" for key in ids))
    return str(tmp_path)


def test_beir_leaves_identical_ids_out_and_says_so(tmp_path) -> None:
    dataset = beir.load(folder(tmp_path))
    assert [query.own for query in dataset.queries] == ["a", ""]
    assert format_repeats(dataset)[0] == (
        "1 of 2 questions have a document of their own id: it is no hit of theirs, as BEIR counts "
        "(dataset.ignore_identical_ids=false: it is)"
    )
    plain = beir.load(folder(tmp_path), ignore_identical_ids=False)
    assert [query.own for query in plain.queries] == ["", ""]
    assert plain.fingerprint != dataset.fingerprint
    assert format_repeats(plain)[0].startswith("1 of 2 questions find themselves first: they are documents")
    with pytest.raises(DatasetError, match="dataset.ignore_identical_ids=1: true or false"):
        beir.load(folder(tmp_path), ignore_identical_ids=1)


def test_a_document_that_is_relevant_is_a_hit_whatever_its_id(tmp_path) -> None:
    """Ids that count from 1 in both files are no sign that a query is a document."""
    assert [query.own for query in beir.load(folder(tmp_path, ("b", "c"))).queries] == ["", "c"]


def test_other_formats_say_that_questions_find_themselves(tmp_path) -> None:
    documents = write_jsonl(tmp_path / "d.jsonl", [{"id": "a", "text": "Who  purrs?"}, {"id": "b", "text": "Cats."}])
    questions = write_jsonl(tmp_path / "q.jsonl", [{"id": "a", "question": "who purrs?", "relevant": "b"}])
    dataset = jsonl.load(str(documents), str(questions))
    assert format_repeats(dataset)[0].startswith("1 of 1 questions find themselves first")
    assert jsonl.load(str(documents), str(questions), ignore_identical_ids=True).queries[0].own == "a"


def test_queries_that_are_no_documents_have_the_key_that_they_had() -> None:
    queries = (Query("a", "x"), Query("b", "y"))
    assert Queries.from_items(queries).key == Queries.from_items((Query("c", "x"), Query("d", "y"))).key
    assert Queries.from_items(queries).key != Queries.from_items((replace(queries[0], own="a"), queries[1])).key
