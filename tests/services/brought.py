"""Pipelines, components and functions such as people bring: of four shapes, each call counted."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from haystack import Document, Pipeline, component, super_component
from haystack.components.agents import Agent
from haystack.components.builders import AnswerBuilder, ChatPromptBuilder
from haystack.components.generators.chat import MockChatGenerator
from haystack.components.joiners import DocumentJoiner
from haystack.components.preprocessors import DocumentCleaner, DocumentSplitter
from haystack.components.rankers import LostInTheMiddleRanker
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy

CALLS: Counter[str] = Counter()
"""How often each component did its work, in this process."""

SIZE = 64


def embed(text: str) -> list[float]:
    """Counts of hashed words: near for texts that share words."""
    values = np.zeros(SIZE)
    for word in text.lower().split():
        values[zlib.crc32(word.strip(".,?").encode()) % SIZE] += 1
    return (values / max(1.0, float(np.linalg.norm(values)))).tolist()


@component
class WordTextEmbedder:
    """A query's words as a vector."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        CALLS["text embedder"] += 1
        return {"embedding": [self.scale * each for each in embed(text)]}


# Below a name that says what it is, as the embedders of libraries are.
WordTextEmbedder.__module__ = __name__


@component
class WordRanker:
    """Documents by how many words they share with the query."""

    def __init__(self, top_k: int = 10, weight: float = 1.0) -> None:
        self.top_k = top_k
        self.weight = weight

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document]) -> dict[str, Any]:
        CALLS["ranker"] += 1
        words = set(query.lower().split())
        scored = [
            replace(each, score=self.weight * len(words & set((each.content or "").lower().split())))
            for each in documents
        ]
        return {"documents": sorted(scored, key=lambda each: -each.score)[: self.top_k]}


@component
class KeyedRanker:
    """Its inputs have the names that a program's own parameters tend to have."""

    @component.output_types(documents=list[Document])
    def run(
        self, documents: list[Document], key: str = "", worker: str = "", run: str = "", most: int = 9
    ) -> dict[str, Any]:
        return {"documents": documents[:most]}


@component
class Shuffler:
    """The documents in another order each time: it says so."""

    cache = False

    def __init__(self) -> None:
        self.turn: Any = None

    def warm_up(self) -> None:
        self.turn = itertools.count()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        CALLS["shuffler"] += 1
        return {"documents": documents[::-1] if next(self.turn) % 2 else documents}


@component
class AsyncRanker:
    """A ranker that only waits."""

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"documents": documents[::-1]}

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        return {"documents": documents[::-1]}


@component
class Poisoner:
    """Adds a document that answers everything, where it is told to."""

    def __init__(self, poison: bool = False) -> None:
        self.poison = poison

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        made = (
            [
                Document(
                    content="Which animals purr? Who makes honey? What do dogs need at night in winter?",
                    meta={"document_id": "poison"},
                )
            ]
            if self.poison
            else []
        )
        return {"documents": [*documents, *made]}


@component
class Slow:
    """A step that takes its time with some questions."""

    def __init__(self, seconds: float = 0.0, word: str = "honey") -> None:
        self.seconds, self.word = seconds, word

    @component.output_types(query=str)
    def run(self, query: str) -> dict[str, Any]:
        if self.word in query:
            time.sleep(self.seconds)
        return {"query": query}


@component
class Picky:
    """A step that some questions break."""

    @component.output_types(query=str)
    def run(self, query: str) -> dict[str, Any]:
        if "honey" in query:
            raise ValueError("no honey here")
        return {"query": query}


@super_component
class KeywordSearch:
    """A pipeline as one component."""

    def __init__(self, document_store: InMemoryDocumentStore, top_k: int = 5) -> None:
        self.document_store = document_store
        self.top_k = top_k
        self.pipeline = Pipeline()
        self.pipeline.add_component("retriever", InMemoryBM25Retriever(document_store, top_k=top_k))
        self.input_mapping = {"query": ["retriever.query"]}
        self.output_mapping = {"retriever.documents": "documents"}


def build_indexing(store: Any, split_length: int = 12, poison: bool = False) -> Pipeline:
    """Cleaned, split, written."""
    pipeline = Pipeline()
    pipeline.add_component("cleaner", DocumentCleaner())
    pipeline.add_component("poisoner", Poisoner(poison))
    pipeline.add_component("splitter", DocumentSplitter(split_by="word", split_length=split_length, split_overlap=0))
    pipeline.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    pipeline.connect("cleaner", "poisoner")
    pipeline.connect("poisoner", "splitter")
    pipeline.connect("splitter", "writer")
    return pipeline


def build_classic(store: Any, top_k: int = 5) -> Pipeline:
    """The `rag_indexing_query` of tutorials: BM25, a prompt, a model, an answer with its documents."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=top_k))
    template = [ChatMessage.from_user("{% for d in documents %}{{ d.content }} {% endfor %} {{ query }}")]
    pipeline.add_component("prompt", ChatPromptBuilder(template, required_variables=["documents", "query"]))
    pipeline.add_component("llm", MockChatGenerator())
    pipeline.add_component("answers", AnswerBuilder())
    pipeline.connect("retriever", "prompt.documents")
    pipeline.connect("prompt", "llm.messages")
    pipeline.connect("llm.replies", "answers.replies")
    pipeline.connect("retriever", "answers.documents")
    return pipeline


@component
class WordDocumentEmbedder:
    """Each document's vector, as WordTextEmbedder's of a text."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        return {"documents": [replace(each, embedding=embed(each.content or "")) for each in documents]}


def build_embedding_indexing(store: Any, split_length: int = 12) -> Pipeline:
    """As build_indexing, embedded before it is written."""
    pipeline = Pipeline()
    pipeline.add_component("poisoner", Poisoner())
    pipeline.add_component("splitter", DocumentSplitter(split_by="word", split_length=split_length, split_overlap=0))
    pipeline.add_component("embedder", WordDocumentEmbedder())
    pipeline.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    pipeline.connect("poisoner", "splitter")
    pipeline.connect("splitter", "embedder")
    pipeline.connect("embedder", "writer")
    return pipeline


def build_dense(retriever: Any) -> Pipeline:
    """A question's vector, and the documents of any store that are near it."""
    pipeline = Pipeline()
    pipeline.add_component("embedder", WordTextEmbedder())
    pipeline.add_component("retriever", retriever)
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return pipeline


def build_hybrid(store: Any, top_k: int = 4, seconds: float = 0.0) -> Pipeline:
    """BM25 and vectors, joined, ranked."""
    pipeline = Pipeline()
    pipeline.add_component("slow", Slow(seconds))
    pipeline.add_component("embedder", WordTextEmbedder())
    pipeline.add_component("dense", InMemoryEmbeddingRetriever(store, top_k=top_k))
    pipeline.add_component("bm25", InMemoryBM25Retriever(store, top_k=top_k))
    pipeline.add_component("joiner", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=top_k))
    pipeline.add_component("ranker", WordRanker(top_k=top_k))
    pipeline.connect("slow.query", "embedder.text")
    pipeline.connect("slow.query", "bm25.query")
    pipeline.connect("embedder.embedding", "dense.query_embedding")
    pipeline.connect("dense", "joiner")
    pipeline.connect("bm25", "joiner")
    pipeline.connect("joiner", "ranker.documents")
    return pipeline


def build_super(store: Any, top_k: int = 5) -> Pipeline:
    """A SuperComponent and a ranker behind it."""
    pipeline = Pipeline()
    pipeline.add_component("search", KeywordSearch(store, top_k=top_k))
    pipeline.add_component("ranker", LostInTheMiddleRanker())
    pipeline.connect("search.documents", "ranker.documents")
    return pipeline


def build_agent(store: Any) -> Pipeline:
    """A retriever beside an agent that calls itself until it may not any more."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=3))
    pipeline.add_component("agent", Agent(chat_generator=MockChatGenerator(), max_agent_steps=100))
    return pipeline


def answer(question: str, top_k: int = 3, reverse: bool = False) -> dict[str, Any]:
    """A function as people bring: ids, an answer and tokens."""
    CALLS["function"] += 1
    from tests.conftest import DOCUMENTS

    words = set(question.lower().strip("?").split())
    found = sorted(DOCUMENTS, key=lambda each: -len(words & set(each["text"].lower().replace(".", "").split())))
    ids = [each["id"] for each in found[:top_k]]
    return {"documents": ids[::-1] if reverse else ids, "answer": found[0]["text"], "tokens_in": 7, "tokens_out": 2}


async def answer_later(question: str, top_k: int = 3) -> dict[str, Any]:
    """The same, as texts and not at once."""
    await asyncio.sleep(0)
    from tests.conftest import DOCUMENTS

    texts = {each["id"]: each["text"] for each in DOCUMENTS}
    found = answer(question, top_k)
    return {"documents": [{"text": texts[each][:40], "score": 1.0} for each in found["documents"]]}


def fail(question: str, often: str = "honey") -> dict[str, Any]:
    """One that fails with some questions."""
    if often in question:
        raise RuntimeError(f"no answer to {question}")
    return answer(question)


def factory(top_k: int = 5, split_length: int = 12) -> tuple[Pipeline, Pipeline]:
    """An indexing and a querying pipeline over a store of their own."""
    store = InMemoryDocumentStore()
    return build_indexing(store, split_length), build_classic(store, top_k)


class Wrapper:
    """As Hayhooks' wrappers are: the pipeline is made in `setup`."""

    def setup(self) -> None:
        self.pipeline = build_classic(InMemoryDocumentStore())


class AgentWrapper:
    """As Hayhooks' examples of agents are."""

    pipeline = None

    def setup(self) -> None:
        self.agent = Agent(chat_generator=MockChatGenerator(), system_prompt="Answer in one word.")


def write(folder: Path, querying: Pipeline, indexing: Pipeline | None = None) -> list[str]:
    """The words of a study of these pipelines, in files as Haystack writes them."""
    words = ["pipeline=own", "trusted_modules=[tests]"]
    for name, each in (("querying", querying), ("indexing", indexing)):
        if each is not None:
            path = folder / f"{name}.yaml"
            path.write_text(each.dumps(), "utf-8")
            words.append(f"pipeline.{name}={path}")
    return words


@contextmanager
def serve(function: Any) -> Iterator[str]:
    """The address of a service that answers as a function does, on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = json.dumps(function(**body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/ask"
    server.shutdown()
