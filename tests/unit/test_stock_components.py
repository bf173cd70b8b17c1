"""Haystack's own components in any stage: fed by type, called once, refused with the sockets on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.trial import compose_trial
from rag_opt.errors import ComponentError, RagOptError
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.scores import Evaluation
from tests.services.brought import CALLS

HAYSTACK = "haystack.components"
STORE = {"_target_": "haystack.document_stores.in_memory.InMemoryDocumentStore"}
OWN = "tests.services.brought"


@pytest.fixture(autouse=True)
def uncounted() -> None:
    CALLS.clear()


def choose(folder: Path, **stages: dict[str, Any]) -> list[str]:
    """The words that choose files of one's own, one a stage, each of these components."""
    words = [f"hydra.searchpath=[file://{folder}/conf]", "trusted_modules=[tests]"]
    for stage, components in stages.items():
        place = folder / "conf" / stage
        place.mkdir(parents=True, exist_ok=True)
        (place / "mine.yaml").write_text(yaml.safe_dump({"top_k": 3, "components": components}), "utf-8")
        words.append(f"{stage}=mine")
    return words


def measure(words: list[str], animals: list[str], store: Store, *metrics: str) -> Evaluation:
    from rag_opt.config.compose import compose_config
    from rag_opt.evaluation.evaluator import load_dataset

    base = [word for word in animals if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    base = [word for word in base if not (word.startswith("retriever.") and "retriever=mine" in words)]
    pipeline = build_pipeline(compose_trial([*base, *words]), Resources.from_store(store))
    questions = Questions.from_dataset(load_dataset(compose_config(animals)), 2, 0)
    return evaluate_pipeline(pipeline, questions, [get_metric(name) for name in metrics or ("nDCG@10",)])


BM25 = {"_target_": f"{HAYSTACK}.retrievers.in_memory.InMemoryBM25Retriever", "document_store": STORE, "top_k": 4}
DENSE = {"_target_": f"{HAYSTACK}.retrievers.in_memory.InMemoryEmbeddingRetriever", "document_store": STORE, "top_k": 4}
RANKER = {"_target_": f"{HAYSTACK}.rankers.LostInTheMiddleRanker", "top_k": 3}
SPLITTER = {
    "_target_": f"{HAYSTACK}.preprocessors.DocumentSplitter",
    "split_by": "word",
    "split_length": 8,
    "split_overlap": 0,
}
CLEANER = {"_target_": f"{HAYSTACK}.preprocessors.DocumentCleaner"}
TEMPLATE = (
    """{% message role="user" %}{% for d in documents %}{{ d.content }} {% endfor %}Q: {{ query }}{% endmessage %}"""
)
ANSWERING = {
    "prompt": {
        "_target_": f"{HAYSTACK}.builders.ChatPromptBuilder",
        "template": TEMPLATE,
        "required_variables": ["documents", "query"],
    },
    "llm": {"_target_": f"{HAYSTACK}.generators.chat.MockChatGenerator"},
    "said": {"_target_": f"{HAYSTACK}.builders.AnswerBuilder"},
}
SERVING: dict[str, dict[str, dict[str, Any]]] = {
    "a ranker": {"reranker": {"mine": RANKER}},
    "a joiner": {"reranker": {"mine": {"_target_": f"{HAYSTACK}.joiners.DocumentJoiner", "top_k": 3}}},
    "a sampler": {"reranker": {"mine": {"_target_": f"{HAYSTACK}.samplers.TopPSampler", "top_p": 0.9}}},
    "a class of one's own": {"reranker": {"mine": {"_target_": f"{OWN}.WordRanker", "top_k": 3}}},
    "one that waits": {"reranker": {"mine": {"_target_": f"{OWN}.AsyncRanker"}}},
    "two one after the other": {"reranker": {"one": {"_target_": f"{OWN}.WordRanker"}, "two": RANKER}},
    "a ranker as context": {"context": {"mine": RANKER}},
    "a cleaner and a splitter": {"splitter": {"cleaner": CLEANER, "splitter": SPLITTER}},
    "a converter": {
        "splitter": {"converter": {"_target_": f"{HAYSTACK}.converters.TextFileToDocument"}, "s": SPLITTER}
    },
    "a retriever": {"retriever": {"mine": BM25}},
    "a retriever of vectors": {"retriever": {"mine": DENSE}},
    "a SuperComponent": {"retriever": {"mine": {"_target_": f"{OWN}.KeywordSearch", "document_store": STORE}}},
    "embedders": {
        "embedder": {
            "documents": {"_target_": f"{HAYSTACK}.embedders.MockDocumentEmbedder", "dimension": 16},
            "texts": {"_target_": f"{HAYSTACK}.embedders.MockTextEmbedder", "dimension": 16},
        }
    },
    "a prompt, a model, an answer": {"generator": ANSWERING},
    "a router": {
        "reranker": {
            "router": {
                "_target_": f"{HAYSTACK}.routers.MetadataRouter",
                "rules": {"found": {"field": "meta.document_id", "operator": "!=", "value": "nobody"}},
            }
        }
    },
}


@pytest.mark.parametrize("name", SERVING)
def test_a_stock_component_works_in_its_stage(name: str, animals, store, tmp_path) -> None:
    words = choose(tmp_path, **SERVING[name])
    if "embedder" in SERVING[name]:
        words.append("retriever=dense")
    found = measure(words, animals, store)
    # Vectors of a mock say nothing; the rest finds what is there.
    assert found.means["nDCG@10"] > {"embedders": 0.1, "one that waits": 0.3}.get(name, 0.5)
    assert found.coverage["nDCG@10"] == 1.0


def test_what_a_ranker_gives_is_handed_on(animals, store, tmp_path) -> None:
    plain = measure(["retriever=bm25", "retriever.top_k=4"], animals, store, "nDCG@10", "tokens")
    words = [*choose(tmp_path, reranker={"mine": {**RANKER, "top_k": 1}}), "retriever=bm25", "retriever.top_k=4"]
    few = measure(words, animals, store, "nDCG@10", "tokens")
    assert few.means["tokens"] < plain.means["tokens"]


def test_an_answer_is_what_the_components_say(animals, store, tmp_path) -> None:
    found = measure([*choose(tmp_path, generator=ANSWERING), "retriever=bm25"], animals, store, "F1", "nDCG@10")
    assert all("Q: " in answer for answer in found.answers)
    assert found.coverage["F1"] == 1.0


def test_spans_survive_a_stock_splitter(animals, store, tmp_path) -> None:
    from rag_opt.config.compose import compose_config
    from rag_opt.datasets.checks import get_corpus
    from rag_opt.evaluation.evaluator import load_dataset

    words = [*animals, *choose(tmp_path, splitter={"splitter": SPLITTER})]
    pipeline = build_pipeline(
        compose_trial([each for each in words if each != "splitter=none"]), Resources.from_store(store)
    )
    documents = get_corpus(load_dataset(compose_config(animals)))
    (chunks,) = [each for each in pipeline.index_documents(documents).values() if hasattr(each, "document_rows")]
    assert len(chunks) > len(documents.items)
    texts = {each.id: each.text for each in documents.items}
    assert all(text in texts[name] for text, name in zip(chunks.texts, chunks.document_ids, strict=True))


def test_a_trial_that_changes_another_stage_runs_it_no_more(animals, store, tmp_path) -> None:
    words = [*choose(tmp_path, reranker={"mine": {"_target_": f"{OWN}.WordRanker", "top_k": 3}}), "retriever=bm25"]
    measure(words, animals, store)
    count = CALLS["ranker"]
    assert count > 0
    measure([*words, "generator=none"], animals, store)
    measure(words, animals, Store(store.root))
    assert CALLS["ranker"] == count


def test_one_that_says_so_runs_each_time(animals, store, tmp_path) -> None:
    mine = {"_target_": f"{OWN}.WordRanker", "top_k": 3, "cache": False}
    words = [*choose(tmp_path, reranker={"mine": mine}), "retriever=bm25"]
    measure(words, animals, store)
    count = CALLS["ranker"]
    measure(words, animals, store)
    assert CALLS["ranker"] == 2 * count


def test_a_parameter_of_a_stock_component_is_searched(animals, store, tmp_path) -> None:
    from rag_opt.study.plan import build_plan
    from tests.conftest import own_space

    mine = {**RANKER, "_target_": f"{OWN}.WordRanker", "top_k": "${reranker.top_k}"}
    words = [*choose(tmp_path, reranker={"mine": mine}), "retriever=bm25", f"studies_dir={tmp_path}/studies"]
    base = [word for word in animals if not word.startswith("search_space")]
    space = own_space(tmp_path, {"reranker.top_k": "range(1, 5)"})[1:]
    plan = build_plan([*base, *words, *space, f"store.path={store.root}"])
    assert [parameter.name for parameter in plan.space.parameters] == ["reranker.top_k"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a ranker that should answer": (
        {"generator": {"mine": RANKER}},
        r"generator: what serves there gives an answer.*mine gives mine.documents \(list",
    ),
    "a prompt that should retrieve": (
        {"retriever": {"mine": {"_target_": f"{HAYSTACK}.builders.PromptBuilder", "template": "{{ query }}"}}},
        r"retriever: what serves there gives retrieved documents, list\[Document\]; mine gives mine.prompt \(builtins.str\)",
    ),
    "one that takes what nothing gives": (
        {"reranker": {"mine": {"_target_": f"{HAYSTACK}.preprocessors.TextCleaner"}}},
        r"reranker: what serves there gives retrieved documents",
    ),
    "a writer that should rank": (
        {"reranker": {"mine": {"_target_": f"{HAYSTACK}.writers.DocumentWriter", "document_store": STORE}}},
        r"gives mine.documents_written",
    ),
    "an embedder of nothing": ({"embedder": {"mine": RANKER}}, "takes documents|an embedder takes|every|documents"),
    "a store as an index": ({"index": {"mine": STORE}}, "index=pgvector"),
    "a parameter that is unknown": ({"reranker": {"mine": {**RANKER, "topk": 3}}}, "did you mean 'top_k'"),
    "a class that is not there": ({"reranker": {"mine": {"_target_": f"{HAYSTACK}.rankers.Nothing"}}}, "Nothing"),
    "a fetcher": (
        {"reranker": {"mine": {"_target_": f"{HAYSTACK}.fetchers.LinkContentFetcher"}}},
        "it fetches addresses",
    ),
    "templates that run code": (
        {"generator": {"mine": {"_target_": f"{HAYSTACK}.converters.OutputAdapter", "unsafe": True}}},
        "templates run code",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_fits_nowhere_is_refused(name: str, animals, store, tmp_path) -> None:
    stages, message = REFUSED[name]
    words = choose(tmp_path, **stages)
    words += ["retriever=dense"] if {"index", "embedder"} & set(stages) else []
    with pytest.raises(RagOptError, match=message):
        measure(words, animals, store)


def test_a_question_that_fails_in_one_stage_is_missing_whatever_comes_behind(animals, store, tmp_path) -> None:
    import numpy as np

    words = choose(tmp_path, retriever={"picky": {"_target_": f"{OWN}.Picky"}, "mine": BM25})
    found = measure([*words, "reranker=mmr", "embedder=hashing"], animals, store)
    assert np.isnan(found.per_query["nDCG@10"]).sum() == 1


def test_where_every_question_fails_that_is_the_reason(animals, store, tmp_path) -> None:
    climbing = {
        "p": {"_target_": f"{HAYSTACK}.builders.PromptBuilder", "template": "{{ ''.__class__.__mro__ }} {{ query }}"}
    }
    words = choose(
        tmp_path, generator={**climbing, "llm": {"_target_": f"{HAYSTACK}.generators.chat.MockChatGenerator"}}
    )
    with pytest.raises(ComponentError, match="generator"):
        measure(words, animals, store)
