"""Pipelines of one's own: found by types, changed by keys, called once, never mixed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from haystack import Document, Pipeline
from haystack.components.embedders import MockDocumentEmbedder
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.document_stores import find_stores
from rag_opt.components.external.found import Found, FoundDocument
from rag_opt.components.external.gold import Corpus, build_rankings, check_gold
from rag_opt.components.external.values import decode, encode
from rag_opt.components.resources import Resources
from rag_opt.config.trial import compose_trial
from rag_opt.errors import ComponentError, ConfigError, RagOptError
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.documents import Document as OurDocument
from rag_opt.records.documents import Documents, Query
from rag_opt.records.scores import Evaluation
from tests.conftest import DOCUMENTS, QUESTIONS
from tests.services import brought
from tests.services.brought import CALLS


@pytest.fixture(autouse=True)
def uncounted() -> None:
    CALLS.clear()


@pytest.fixture
def dataset(animals: list[str]) -> Any:
    from rag_opt.config.compose import compose_config
    from rag_opt.evaluation.evaluator import load_dataset

    return load_dataset(compose_config(animals))


def measure(words: list[str], dataset: Any, store: Store, metric: str = "nDCG@10") -> Evaluation:
    pipeline = build_pipeline(compose_trial(words), Resources.from_store(store))
    return evaluate_pipeline(pipeline, Questions.from_dataset(dataset, 2, 0), [get_metric(metric)])


def shape(name: str, folder: Path, **values: Any) -> list[str]:
    """The words of one of the four shapes, its store filled by the same indexing pipeline."""
    store = InMemoryDocumentStore()
    if name == "hybrid":
        return brought.write(folder, brought.build_hybrid(store, **values), dense_indexing(store))
    built = getattr(brought, f"build_{name}")(store, **values)
    return brought.write(folder, built, brought.build_indexing(store))


def dense_indexing(store: InMemoryDocumentStore) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", MockDocumentEmbedder(dimension=brought.SIZE))
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("embedder", "writer")
    return pipeline


# ---- four shapes


@pytest.mark.parametrize("name", ["classic", "hybrid", "super", "agent"])
def test_each_shape_is_measured(name: str, dataset, store, tmp_path) -> None:
    found = measure([*shape(name, tmp_path), "objective=ndcg"], dataset, store)
    assert 0.5 < found.means["nDCG@10"] <= 1.0
    assert found.coverage["nDCG@10"] == 1.0


def test_the_answer_and_its_documents_are_found_by_type(tmp_path) -> None:
    (part,) = [
        part.component
        for part in build_pipeline(compose_trial(shape("classic", tmp_path)), Resources.from_store(Store())).parts
        if part.name == "own_pipeline"
    ]
    assert part.gives == ("retriever.documents", "answers.answers")
    assert part.feeds == {"retriever.query": "{question}", "prompt.query": "{question}", "answers.query": "{question}"}


def test_answers_are_what_the_pipeline_says(dataset, store, tmp_path) -> None:
    found = measure(shape("classic", tmp_path), dataset, store, "F1")
    # The mock says the prompt again, and the prompt ends in the question.
    asked = {query.id: query.text for query in dataset.queries}
    assert all(answer.endswith(asked[name]) for name, answer in zip(found.query_ids, found.answers, strict=True))


def test_an_agent_takes_no_more_steps_than_it_may(dataset, store, tmp_path, said) -> None:
    measure(shape("agent", tmp_path), dataset, store)
    assert any("an agent takes 20 steps at most (pipeline.agent_steps), not 100" in line for line in said())


def test_a_file_may_say_itself_what_goes_in_and_out_and_needs_no_indexing(dataset, store, tmp_path, said) -> None:
    """As Hayhooks' files do; a store in memory is filled with the documents as they are."""
    (querying,) = [word for word in shape("classic", tmp_path) if word.startswith("pipeline.querying")]
    path = Path(querying.partition("=")[2])
    definition = yaml.safe_load(path.read_text())
    definition["inputs"] = {"question": ["retriever.query", "prompt.query", "answers.query"]}
    definition["outputs"] = {"said": "llm.replies", "documents": "retriever.documents"}
    path.write_text(yaml.safe_dump(definition))
    words = ["pipeline=own", "trusted_modules=[tests]", querying]
    found = measure(words, dataset, store)
    assert found.means["nDCG@10"] > 0.8
    assert any("the documents are written whole" in line for line in said())
    parts = build_pipeline(compose_trial(words), Resources.from_store(store)).parts
    assert parts[-1].component.gives == ("retriever.documents", "llm.replies")


def test_a_class_that_makes_its_pipeline_in_setup_is_taken_as_it_lies(dataset, store) -> None:
    words = ["pipeline=own", "trusted_modules=[tests]", "pipeline.querying=tests.services.brought.Wrapper"]
    found = measure([*words, "querying.retriever.top_k=2"], dataset, store)
    assert found.means["nDCG@10"] > 0.8
    with pytest.raises(ConfigError, match="tests is not trusted"):
        compose_trial(["pipeline=own", "pipeline.querying=tests.services.brought.Wrapper"])
    with pytest.raises(ConfigError, match="it gives no Haystack pipeline"):
        compose_trial(["pipeline=own", "trusted_modules=[tests]", "pipeline.querying=tests.services.brought.answer"])


def test_an_agent_that_is_made_in_setup_is_a_pipeline_of_one(dataset, store) -> None:
    words = ["pipeline=own", "trusted_modules=[tests]", "pipeline.querying=tests.services.brought.AgentWrapper"]
    words = [*words, "querying.agent.system_prompt=Say it."]
    found = measure(words, dataset, store, "F1")
    asked = {query.id: query.text for query in dataset.queries}
    assert dict(zip(found.query_ids, found.answers, strict=True)) == asked


def test_a_store_within_a_component_can_be_another(dataset, store, tmp_path) -> None:
    """What the file sets for the one class is no parameter of the other."""
    elsewhere = "haystack_integrations.document_stores.chroma.document_store.ChromaDocumentStore"
    words = shape("classic", tmp_path)
    given_ = compose_trial([*words, f"querying.retriever.document_store.type={elsewhere}"])
    from rag_opt.config.own_pipelines import change_component

    node = given_.components["own_pipeline"]["definition"]["components"]["retriever"]
    changed = change_component(node, given_.components["own_pipeline"]["values"]["retriever"])
    assert changed["init_parameters"]["document_store"] == {"type": elsewhere, "init_parameters": {}}


# ---- keys


def test_a_parameter_is_a_key_and_changes_what_runs(dataset, store, tmp_path) -> None:
    words = shape("classic", tmp_path)
    few = measure([*words, "querying.retriever.top_k=1"], dataset, store)
    assert {len(each) for each in few.retrieved} == {1}
    many = measure([*words, "querying.retriever.top_k=4"], dataset, store)
    assert {len(each) for each in many.retrieved} > {1}


def test_a_component_is_left_out_where_what_came_in_can_go_on(dataset, store, tmp_path) -> None:
    words = shape("super", tmp_path)
    inner = "querying.search.top_k=3"
    ranked = measure([*words, inner], dataset, store).retrieved
    plain = measure([*words, inner, "querying.ranker.type=none"], dataset, store).retrieved
    assert ranked != plain
    assert [set(each) for each in ranked] == [set(each) for each in plain]


def test_a_component_that_takes_from_several_is_not_left_out(dataset, store, tmp_path) -> None:
    with pytest.raises(ComponentError, match=r"querying\.joiner\.type=none: it takes from several components"):
        measure([*shape("hybrid", tmp_path), "querying.joiner.type=none"], dataset, store)


def test_the_output_of_one_that_is_left_out_is_found_anew(dataset, store, tmp_path) -> None:
    words = [*shape("super", tmp_path), "pipeline.outputs.documents=ranker.documents", "querying.search.top_k=3"]
    ranked = measure(words, dataset, store).retrieved
    plain = measure([*words, "querying.ranker.type=none"], dataset, store).retrieved
    assert [set(each) for each in ranked] == [set(each) for each in plain]


def test_another_class_keeps_what_it_takes_too(tmp_path) -> None:
    """A retriever of another kind needs the store of the one that the file names."""
    kind = "haystack.components.retrievers.filter_retriever.FilterRetriever"
    trial = compose_trial([*shape("classic", tmp_path), f"querying.retriever.type={kind}"])
    values = trial.components["own_pipeline"]["values"]["retriever"]
    assert "document_store" in values
    assert "top_k" not in values


def test_a_component_of_another_type_has_its_own_parameters(dataset, store, tmp_path) -> None:
    words = shape("super", tmp_path)
    other = "querying.ranker.type=tests.services.brought.WordRanker"
    with pytest.raises(ComponentError, match=r"WordRanker has no parameter 'word_count_threshold'"):
        measure([*words, other, "querying.ranker.word_count_threshold=3"], dataset, store)
    # It takes the query, which the one before did not.
    found = measure([*words, other, "querying.ranker.top_k=2"], dataset, store)
    assert {len(each) for each in found.retrieved} <= {1, 2}


def test_a_factory_is_asked_with_its_keywords(dataset, store) -> None:
    words = ["pipeline=own", "pipeline.factory=tests.services.brought.factory", "trusted_modules=[tests]"]
    assert compose_trial(words).parameters["pipeline"]["factory"] == "tests.services.brought.factory"
    found = measure([*words, "parameters.top_k=2"], dataset, store)
    assert {len(each) for each in found.retrieved} <= {1, 2}
    parts = {p.name: p.component for p in build_pipeline(compose_trial(words), Resources.from_store(store)).parts}
    stores = [find_stores(parts[name].plain) for name in ("own_index", "own_pipeline")]
    # What an export writes is one store, not two of two names.
    assert stores[0] == stores[1]


def test_the_file_is_what_counts_and_not_where_it_lies(dataset, store, tmp_path) -> None:
    from rag_opt.config.compose import compose_config
    from rag_opt.config.trial import compute_fingerprint

    words = shape("classic", tmp_path)
    place = tmp_path / "elsewhere"
    place.mkdir()
    moved = []
    for word in words:
        key, _, value = word.partition("=")
        if value.endswith(".yaml"):
            (place / Path(value).name).write_bytes(Path(value).read_bytes())
            word = f"{key}={place / Path(value).name}"
        moved.append(word)
    assert compute_fingerprint(compose_config(words)) == compute_fingerprint(compose_config(moved))
    changed = yaml.safe_load(Path(words[2].partition("=")[2]).read_text())
    changed["max_runs_per_component"] = 7
    Path(words[2].partition("=")[2]).write_text(yaml.safe_dump(changed))
    assert compute_fingerprint(compose_config(words)) != compute_fingerprint(compose_config(moved))


# ---- called once


def test_a_trial_that_changes_one_stage_runs_no_other_again(dataset, store, tmp_path) -> None:
    words, asked = shape("hybrid", tmp_path), len(dataset.queries)
    measure(words, dataset, store)
    assert {"text embedder": asked, "ranker": asked} == CALLS
    measure([*words, "querying.ranker.weight=2.0"], dataset, store)
    assert {"text embedder": asked, "ranker": 2 * asked} == CALLS
    measure([*words, "querying.dense.top_k=3"], dataset, store)
    assert CALLS["text embedder"] == asked
    CALLS.clear()
    # Another process finds it all.
    measure([*words, "querying.ranker.weight=2.0"], dataset, Store(store.root))
    assert not CALLS


@settings(max_examples=6)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["concatenate", "reciprocal_rank_fusion"])),
        min_size=1,
        max_size=4,
    )
)
def test_kept_calls_give_what_fresh_ones_give_in_any_order(rows: list[tuple[int, int, str]]) -> None:
    """To the bit, over components, parameters, and the order of trials."""
    import tempfile

    dataset = animals_dataset()
    with tempfile.TemporaryDirectory() as folder:
        words, kept = shape("hybrid", Path(folder)), Store(Path(folder, "store"))
        for dense, bm25, join in rows:
            given_ = [
                *words,
                f"querying.dense.top_k={dense}",
                f"querying.bm25.top_k={bm25}",
                f"querying.joiner.join_mode={join}",
            ]
            warm, fresh = measure(given_, dataset, kept), measure(given_, dataset, Store())
            assert warm.retrieved == fresh.retrieved
            assert np.array_equal(warm.per_query["nDCG@10"], fresh.per_query["nDCG@10"])


def animals_dataset() -> Any:
    from rag_opt.records.documents import Dataset

    documents = tuple(OurDocument(each["id"], each["text"], each.get("title", "")) for each in DOCUMENTS)
    queries = tuple(Query(each["id"], each["question"]) for each in QUESTIONS)
    qrels = {
        each["id"]: each["relevant"] if isinstance(each["relevant"], dict) else dict.fromkeys(each["relevant"], 1)
        for each in QUESTIONS
    }
    return Dataset("animals", documents, queries, qrels)


def test_what_says_that_it_draws_at_random_runs_each_time(dataset, store, tmp_path) -> None:
    words = shape("super", tmp_path)
    random = [*words, "querying.ranker.type=tests.services.brought.Shuffler"]
    for turn in (1, 2):
        measure(random, dataset, store)
        assert CALLS["shuffler"] == turn * len(dataset.queries)


def test_only_new_tokens_are_paid(dataset, store, tmp_path) -> None:
    from dataclasses import replace

    from rag_opt.llm.budget import Budget

    def spend(*more: str) -> float:
        resources = Resources.from_store(Store(store.root))
        budget = Budget.from_limits("study", resources.llm.replies, None, None)
        resources = replace(resources, llm=replace(resources.llm, budget=budget))
        pipeline = build_pipeline(compose_trial([*shape("classic", tmp_path), *more]), resources)
        found = evaluate_pipeline(pipeline, Questions.from_dataset(dataset, 2, 0), [get_metric("tokens")])
        assert found.means["tokens"] > 0
        return resources.llm.replies.get_spent("study").tokens

    first = spend()
    assert first > 0
    # What is written is said again as it was; only the answers' form is new.
    assert spend("querying.answers.last_message_only=true") == first


def test_tokens_of_a_question_that_ends_early_are_paid(dataset, store, tmp_path) -> None:
    from dataclasses import replace

    from rag_opt.llm.budget import Budget

    resources = Resources.from_store(store)
    budget = Budget.from_limits("study", resources.llm.replies, None, None)
    resources = replace(resources, llm=replace(resources.llm, budget=budget))
    pipeline = build_pipeline(compose_trial([*shape("classic", tmp_path), "pipeline.max_tokens=1"]), resources)
    with pytest.raises(ComponentError, match=r"more than pipeline\.max_tokens=1"):
        evaluate_pipeline(pipeline, Questions.from_dataset(dataset, 2, 0), [get_metric("tokens")])
    assert resources.llm.replies.get_spent("study").tokens > 0


def test_one_named_as_uncached_runs_in_each_trial(dataset, store, tmp_path) -> None:
    words = [*shape("hybrid", tmp_path), "pipeline.uncached=[ranker]"]
    measure(words, dataset, store)
    measure(words, dataset, store)
    assert {"text embedder": len(dataset.queries), "ranker": 2 * len(dataset.queries)} == CALLS


@pytest.mark.parametrize("edited", ["stemming", "tooling"])
def test_code_within_a_component_is_in_its_key(edited: str, tmp_path, monkeypatch) -> None:
    """A class that a parameter is of, or a function that a tool calls."""
    from rag_opt.components.external import code

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{edited}_first.py").write_text("class Stemmer: ...\ndef look(text): return text\n")
    (tmp_path / f"{edited}_other.py").write_text("class Stemmer: ...\ndef look(text): return text\n")
    node = {"type": "haystack.components.rankers.lost_in_the_middle.LostInTheMiddleRanker"}
    within = {
        "stemming": {"stemmer": {"type": f"{edited}_first.Stemmer", "init_parameters": {}}},
        "tooling": {"tools": [{"type": "haystack.tools.tool.Tool", "data": {"function": f"{edited}_first.look"}}]},
    }
    definition = {"components": {"c": {**node, "init_parameters": within[edited]}}}

    def digest() -> str:
        code.digest_code.cache_clear()
        code.get_code.cache_clear()
        return code.get_codes(definition)

    before = digest()
    (tmp_path / f"{edited}_other.py").write_text("class Stemmer: ...\n")
    assert digest() == before
    (tmp_path / f"{edited}_first.py").write_text("class Stemmer: ...\ndef look(text): return text[::-1]\n")
    assert digest() != before


def test_an_input_may_have_any_name(dataset, store, tmp_path) -> None:
    """Also one of a parameter of ours."""
    words = shape("super", tmp_path)
    found = measure([*words, "querying.ranker.type=tests.services.brought.KeyedRanker"], dataset, store)
    assert found.coverage["nDCG@10"] == 1.0


def test_kept_work_does_not_look_fast(dataset, store, tmp_path) -> None:
    words = [*shape("hybrid", tmp_path), "querying.slow.seconds=0.1", "querying.slow.word=''"]
    cold = measure(words, dataset, store, "latency")
    warm = measure([*words, "querying.ranker.weight=3.0"], dataset, store, "latency")
    # A sleep is never shorter, however busy the machine is.
    assert cold.means["latency"] >= 0.1
    assert warm.means["latency"] >= 0.1


# ---- indexes


def test_two_configurations_never_share_documents(dataset, store, tmp_path) -> None:
    words = shape("classic", tmp_path)
    for _ in range(2):
        poisoned = measure([*words, "indexing.poisoner.poison=true"], dataset, store)
        clean = measure(words, dataset, store)
        assert not any("poison" in each for row in clean.retrieved for each in row)
        assert any("poison" in each for row in poisoned.retrieved for each in row)
        assert poisoned.means["nDCG@10"] <= clean.means["nDCG@10"]


def test_what_is_half_written_is_written_anew(dataset, store, tmp_path) -> None:
    words = shape("classic", tmp_path)
    whole = measure(words, dataset, store).retrieved
    from haystack.document_stores.in_memory import document_store as memory

    (name,) = [each for each in memory._STORAGES if each.startswith("rag_opt_") and each != "rag_opt_unused"][-1:]
    gone = next(iter(memory._STORAGES[name]))
    InMemoryDocumentStore(index=name).delete_documents([gone])
    assert measure([*words, "querying.retriever.top_k=5"], dataset, Store(store.root)).retrieved == whole


def test_an_index_that_is_there_is_not_made_again(dataset, store, tmp_path, monkeypatch) -> None:
    from rag_opt.components.external import indexing

    words = shape("classic", tmp_path)
    measure(words, dataset, store)
    monkeypatch.setattr(indexing.OwnIndexing, "_write", lambda *_: pytest.fail("written again"))
    measure([*words, "querying.retriever.top_k=2"], dataset, store)


# ---- what is found, and whose it is


CORPUS = Documents(
    (OurDocument("a", "Cats purr. Dogs bark."), OurDocument("b", "Bees hum."), OurDocument("7", "Owls hunt.")), "k"
)


@pytest.mark.parametrize(
    ("found", "where"),
    [
        (FoundDocument("a"), ("a", 0, 21)),
        (FoundDocument("x", "Dogs bark.", meta={"source_id": "a", "split_idx_start": 11}), ("a", 11, 21)),
        (FoundDocument("x", "Dogs bark.", meta={"document_id": "a"}), ("a", 11, 21)),
        (FoundDocument("x", "Owls hunt.", meta={"page": 7}), ("7", 0, 10)),
        (FoundDocument(None, "Bees hum."), ("b", 0, 9)),
        (FoundDocument(None, "Dogs bark."), ("a", 11, 21)),
    ],
)
def test_where_a_document_stands(found: FoundDocument, where: tuple[str, int, int]) -> None:
    rankings = build_rankings([Found((found,))], Corpus(CORPUS), "k")
    chunks = rankings.chunks
    assert (chunks.document_ids[0], int(chunks.starts[0]), int(chunks.ends[0])) == where


def test_a_number_that_is_an_id_by_chance_is_none() -> None:
    """LangChain's pages, Haystack's split numbers."""
    corpus = Documents(tuple(OurDocument(str(i), f"Text of {i}. And more.") for i in range(5)), "k")
    for meta in ({"page": 2}, {"page": "2"}, {"split_id": 0, "page_number": 1}):
        assert Corpus(corpus).find_row(FoundDocument(None, "Text of 4.", meta=meta)) == 4
    assert Corpus(corpus, gold="page").find_row(FoundDocument(None, "Text of 4.", meta={"page": 2})) == 2


def test_what_failed_once_and_came_later_has_another_key(store, dataset) -> None:
    from rag_opt.components.external.asking import answer_queries
    from rag_opt.datasets.checks import get_corpus
    from rag_opt.records.documents import Queries

    documents, queries, broken = get_corpus(dataset), Queries.from_items(dataset.queries[:3]), [True]

    def ask(question: str) -> Any:
        if question == queries.texts[0] and broken:
            raise RuntimeError
        return Found((FoundDocument(documents.items[queries.texts.index(question)].id),)), 0.0, (0, 0)

    first, _ = answer_queries(Resources.from_store(store), "f", "k", queries, documents, ask)
    broken.clear()
    second, _ = answer_queries(Resources.from_store(store), "f", "k", queries, documents, ask)
    assert first.failed is not None
    assert second.failed is None
    assert first.key != second.key


def test_a_forgotten_connection_is_said_and_not_fed_with_the_question(dataset, store, tmp_path) -> None:
    words = shape("classic", tmp_path)
    (path,) = [Path(word.partition("=")[2]) for word in words if word.startswith("pipeline.querying")]
    definition = yaml.safe_load(path.read_text())
    definition["connections"] = [each for each in definition["connections"] if each["receiver"] != "prompt.documents"]
    path.write_text(yaml.safe_dump(definition))
    with pytest.raises(ComponentError, match=r"nothing feeds prompt\.documents"):
        measure(words, dataset, store)


def test_two_stores_in_one_pipeline_are_refused(dataset, store, tmp_path) -> None:
    words = shape("hybrid", tmp_path)
    (path,) = [Path(word.partition("=")[2]) for word in words if word.startswith("pipeline.querying")]
    definition = yaml.safe_load(path.read_text())
    definition["components"]["bm25"]["init_parameters"]["document_store"]["init_parameters"]["index"] = "another"
    path.write_text(yaml.safe_dump(definition))
    with pytest.raises(ComponentError, match="it has 2 document stores"):
        measure(words, dataset, store)


def test_a_filled_collection_is_known_by_its_name() -> None:
    from rag_opt.config.fingerprints import normalize_for_key

    def key(kind: str, name: str) -> Any:
        return normalize_for_key({"type": kind, "init_parameters": {"index": name}})

    elsewhere = "haystack_integrations.document_stores.qdrant.document_store.QdrantDocumentStore"
    assert key(elsewhere, "docs_a") != key(elsewhere, "docs_b")
    memory = "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore"
    assert key(memory, "one-uuid") == key(memory, "another")


def test_an_agents_state_is_no_class_to_be_trusted(tmp_path) -> None:
    words = shape("agent", tmp_path)
    (path,) = [Path(word.partition("=")[2]) for word in words if word.startswith("pipeline.querying")]
    definition = yaml.safe_load(path.read_text())
    agent = definition["components"]["agent"]["init_parameters"]
    agent["state_schema"] = {"documents": {"type": "list[haystack.dataclasses.document.Document]", "handler": None}}
    path.write_text(yaml.safe_dump(definition))
    given_ = [*words, "pipeline.outputs.documents=retriever.documents"]
    build_pipeline(compose_trial(given_), Resources.from_store(Store()))


def test_a_rewritten_text_is_its_documents_and_no_evidence() -> None:
    found = FoundDocument("x", "dogs BARK", meta={"document_id": "a"})
    chunks = build_rankings([Found((found,))], Corpus(CORPUS), "k").chunks
    assert (chunks.document_ids, chunks.texts) == (["a"], ["dogs BARK"])
    assert int(chunks.starts[0]) == len(CORPUS.items[0].text)


def test_what_is_of_no_document_is_a_hit_of_none() -> None:
    found = [Found((FoundDocument("z", "Rain falls."), FoundDocument("a")))]
    rankings = build_rankings(found, Corpus(CORPUS), "k")
    assert rankings.chunks.document_ids == ["not in the corpus: z", "a"]


def test_where_nothing_fits_three_of_both_are_shown() -> None:
    found = [Found(tuple(FoundDocument(f"x{i}", "no", meta={"url": f"u{i}"}) for i in range(9)))]
    with pytest.raises(ComponentError, match=r"id 'x2', meta.url 'u2'\n.*'a', 'b', '7'") as error:
        check_gold(found, Corpus(CORPUS), ["a", "b", "7"], "pipeline.querying")
    assert "x3" not in str(error.value)


def test_the_document_that_a_query_is_itself_is_no_hit(dataset, store) -> None:
    from dataclasses import replace

    words = ["pipeline=function", "pipeline.function=tests.services.brought.answer", "trusted_modules=[tests]"]
    plain = measure(words, dataset, store)
    first = {name: row[0] for name, row in zip(plain.query_ids, plain.retrieved, strict=True)}
    own = replace(dataset, queries=tuple(replace(each, own=first[each.id]) for each in dataset.queries))
    found = measure(words, own, store)
    assert [row[1:] for row in plain.retrieved] == list(found.retrieved)


def test_a_failed_question_is_missing_and_not_zero(dataset, store) -> None:
    words = ["pipeline=function", "pipeline.function=tests.services.brought.fail", "trusted_modules=[tests]"]
    found = measure(words, dataset, store)
    missing = [name for name, value in zip(found.query_ids, found.per_query["nDCG@10"], strict=True) if np.isnan(value)]
    assert missing == [query.id for query in dataset.queries if "honey" in query.text]
    assert found.coverage["nDCG@10"] < 1


def test_where_every_question_fails_that_is_the_reason(dataset, store) -> None:
    words = ["pipeline=function", "pipeline.function=tests.services.brought.fail", "trusted_modules=[tests]"]
    with pytest.raises(ComponentError, match=r"every question failed \(\d+\): RuntimeError: no answer"):
        measure([*words, "parameters.often=' '"], dataset, store)


def test_a_question_that_takes_too_long_is_missing_with_the_reason(dataset, store, tmp_path, said) -> None:
    words = [*shape("hybrid", tmp_path), "querying.slow.seconds=3", "pipeline.timeout=0.5"]
    found = measure(words, dataset, store)
    assert np.isnan(found.per_query["nDCG@10"]).sum() == 1
    assert any("longer than pipeline.timeout=0.5 seconds" in line for line in said())


# ---- functions


def test_a_function_is_asked_once_for_each_question_and_parameters(dataset, store) -> None:
    words = ["pipeline=function", "pipeline.function=tests.services.brought.answer", "trusted_modules=[tests]"]
    first = measure(words, dataset, store)
    again = measure(words, dataset, Store(store.root))
    assert first.retrieved == again.retrieved
    assert CALLS["function"] == len(dataset.queries)
    measure([*words, "parameters.reverse=true"], dataset, store)
    assert CALLS["function"] == 2 * len(dataset.queries)


@pytest.mark.parametrize("at_once", [1, 4])
def test_texts_of_an_async_function_are_found_in_the_corpus(dataset, store, at_once: int) -> None:
    words = ["pipeline=function", "pipeline.function=tests.services.brought.answer_later", "trusted_modules=[tests]"]
    plain = ["pipeline=function", "pipeline.function=tests.services.brought.answer", "trusted_modules=[tests]"]
    found = measure([*words, f"pipeline.at_once={at_once}"], dataset, store)
    assert found.retrieved == measure(plain, dataset, store).retrieved


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("pipeline.function=os.system", "os is not trusted"),
        ("pipeline.function=tests.services.brought.nothing", "nothing"),
        ("pipeline.function=tests.services.brought.Path", "which is not trusted"),
        ("pipeline.function=tests.services.brought._private", "private"),
        ("pipeline.function=answer", "dotted name"),
        ("parameters.topk=3", "did you mean 'top_k'"),
        ("pipeline.timeout=0", "a number of seconds above 0"),
        ("pipeline.at_once=0", "a whole number of at least 1"),
    ],
)
def test_a_function_that_can_not_be_asked_is_refused(word: str, message: str) -> None:
    words = ["pipeline=function", "pipeline.function=tests.services.brought.answer", "trusted_modules=[tests]"]
    kept = [each for each in words if each.partition("=")[0] != word.partition("=")[0]]
    with pytest.raises(RagOptError, match=message):
        build_pipeline(compose_trial([*kept, word]), Resources.from_store(Store()))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("pipeline.url=http://example.org/ask", "an https address is expected"),
        ("pipeline.key=sk-0123456789", "what looks like a secret key"),
        ("pipeline.key=KEY_THAT_NOBODY_HAS_SET", "this environment variable is not set"),
    ],
)
def test_a_service_that_can_not_be_asked_is_refused(word: str, message: str) -> None:
    words = ["pipeline=http", "pipeline.url=https://example.org/ask"]
    with pytest.raises(RagOptError, match=message):
        build_pipeline(compose_trial([*words, word]), Resources.from_store(Store()))


# ---- values


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert decode(json.loads(json.dumps(encode(value))), lambda _: "") == value


@given(st.text(), st.lists(st.floats(-1, 1), max_size=4), st.none() | st.floats(allow_nan=False))
def test_documents_come_back_as_they_were(content: str, embedding: list[float], score: float | None) -> None:
    kept: dict[str, str] = {}
    document = Document(content=content, meta={"a": [1, "b"]}, embedding=embedding or None, score=score)
    given_ = encode([document], kept.__setitem__)
    assert decode(json.loads(json.dumps(given_)), kept.__getitem__) == [document]


# ---- proposed spaces


def test_a_space_is_proposed_that_can_be_searched(tmp_path, monkeypatch, capsys) -> None:
    from rag_opt.config.compose import compose_config
    from rag_opt.config.own_space import propose_space
    from rag_opt.config.sweep_grammar import parse_space
    from rag_opt.study.seeds import build_search_space, build_seeds

    words = shape("hybrid", tmp_path)
    text = propose_space(compose_config(words))
    rows = yaml.safe_load(text)
    assert rows["querying.ranker.top_k"] == "range(2, 9, 1)"
    assert rows["querying.ranker.weight"] == "interval(0.0, 1.0)"
    assert "querying.dense.scale_score" not in rows
    assert parse_space(rows).parameters
    from tests.conftest import own_space

    given_ = [*words, *own_space(tmp_path, rows)]
    config = compose_config(given_)
    assert build_seeds(config, build_search_space(config, given_), given_)
