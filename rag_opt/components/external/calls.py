"""A pipeline's components, called once for the same inputs: what they gave is kept under their code and parameters.

A pipeline's own instances stand for sockets alone; what works behind them is built when a call is not kept, and lives
on for later trials, so that a model is loaded once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rag_opt.components.document_stores import find_stores, get_identity, open_store, share_stores
from rag_opt.components.external.code import get_codes
from rag_opt.components.external.definition import build
from rag_opt.components.external.values import DICT, UnkeptError, decode, decode_embedding, encode, encode_embedding
from rag_opt.components.external.watch import count_usage, get_watch
from rag_opt.components.resources import Resources
from rag_opt.config.own_pipelines import INIT, TYPE, Definition
from rag_opt.config.trust import import_target
from rag_opt.llm.replies import Reply
from rag_opt.records.keys import compute_key

CHEAP = ("haystack.components.builders.", "haystack.components.joiners.", "haystack.components.routers.")
"""Components that take less time than looking up what they gave."""

WRITTEN = "documents_written"
"""What a component gives that writes into a document store: its effect is no output, so it is never skipped."""

PREFIXED = (
    "haystack.components.retrievers.in_memory.bm25_retriever.InMemoryBM25Retriever",
    "haystack.components.retrievers.in_memory.embedding_retriever.InMemoryEmbeddingRetriever",
)
"""Retrievers that compare all documents: a ranking of 5 is the first half of one of 10."""

DEPTH, TOP_K = 100, 10
"""How deep these are asked for at least, and how deep they rank where nothing is said."""

AGENT = "haystack.components.agents.agent.Agent"
WORKING = 8
"""Components that stay built, of all trials."""


@dataclass(frozen=True)
class Calls:
    """How the components of a pipeline are called: with which store of results, which are run each time."""

    resources: Resources
    trusted: tuple[str, ...]
    uncached: frozenset[str] = frozenset()
    content: str = ""
    """What stands for the content of document stores that their definition does not tell."""

    agent_steps: int | None = None
    stores: dict[str, Any] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    """Documents that are kept."""

    def attach(self, pipeline: Any, definition: Definition) -> None:
        """Have the pipeline's components called this way."""
        for name, node in definition["components"].items():
            instance = pipeline.get_component(name)
            inner = (node.get(INIT) or {}).get("pipeline")
            if isinstance(inner, Mapping) and "components" in inner and hasattr(instance, "pipeline"):
                # Named as one that is run each time: so is all that it is made of.
                all_of = frozenset(inner["components"]) if name in self.uncached or is_uncached(node) else self.uncached
                replace(self, uncached=all_of).attach(instance.pipeline, inner)
                continue
            share_stores(instance, self._open_stores(definition))
            # A pipeline calls the instance's own `run`, so this needs no subclass.
            instance.run = self._make_run(name, node, instance)

    def _open_stores(self, definition: Definition) -> Mapping[str, Any]:
        for node in find_stores(definition):
            store = open_store(node)
            self.stores[get_identity(store)] = store
        return self.stores

    def _make_run(self, name: str, node: Mapping[str, Any], instance: Any) -> Callable[..., Any]:
        kind = str(node[TYPE])
        if self.agent_steps is not None and kind == AGENT:
            node = self._bound_agent(name, node)
        key = compute_key("component", kind, get_codes({"components": {name: node}}), node, self.content)
        kept = not (name in self.uncached or is_uncached(node) or kind.startswith(CHEAP))
        kept = kept and WRITTEN not in instance.__haystack_output__._sockets_dict
        if not kept:
            # What runs each time is this instance, so it has to be bounded itself.
            if kind == AGENT:
                instance.max_agent_steps = node[INIT].get("max_agent_steps", instance.max_agent_steps)
            guard(instance, 0)
            # The class' own: the instance's is about to be replaced.
            unbound = type(instance).run if hasattr(type(instance), "run") else None
            return partial(run_watched, partial(_run_instance, instance, unbound))
        if hasattr(instance, "warm_up"):
            # A model is loaded where a call is not kept, by what then works.
            instance.warm_up = _do_nothing
        if kind in PREFIXED:
            return self._make_deep_run(name, node)
        worker = partial(self._get_worker, key, name, node)
        # A sparse vector stands in another field, which is kept with the whole call.
        dense = ".embedders." in kind and "sparse" not in kind.lower()
        per_document = dense and "documents" in instance.__haystack_input__._sockets_dict
        return partial(self._embed if per_document else self._call, key, worker)

    def _make_deep_run(self, name: str, node: Mapping[str, Any]) -> Callable[..., Any]:
        """A retriever whose shorter rankings begin its deeper ones: it is asked for a deep one, whatever `top_k` is."""
        own = int((node.get(INIT) or {}).get("top_k") or TOP_K)

        def run(top_k: int | None = None, **inputs: Any) -> Mapping[str, Any]:
            wanted = top_k or own
            # 100, 400, 1,600 …: by what is wanted alone, so that the same call has the same key.
            depth = DEPTH
            while depth < wanted:
                depth *= 4
            deep = {**node, INIT: {**(node.get(INIT) or {}), "top_k": depth}}
            kind = str(node[TYPE])
            key = compute_key("component", kind, get_codes({"components": {name: deep}}), deep, self.content)
            found = self._call(key, partial(self._get_worker, key, name, deep), wanted, **inputs)
            return {**found, "documents": found["documents"][:wanted]}

        return run

    def _bound_agent(self, name: str, node: Mapping[str, Any]) -> Mapping[str, Any]:
        given = node.get(INIT) or {}
        # Haystack's own default is 100.
        if int(given.get("max_agent_steps") or 100) <= (self.agent_steps or 0):
            return node
        self.resources.notices.report_once(
            f"{name}: an agent takes {self.agent_steps} steps at most (pipeline.agent_steps), not "
            f"{given.get('max_agent_steps', 100)}"
        )
        return {**node, INIT: {**given, "max_agent_steps": self.agent_steps}}

    def _get_worker(self, key: str, name: str, node: Mapping[str, Any]) -> Any:
        """What does a component's work: built, and its model loaded, once a process."""

        def make() -> Any:
            built = build(name, {"components": {name: node}}, self.trusted).get_component(name)
            share_stores(built, self.stores)
            if callable(warm_up := getattr(built, "warm_up", None)):
                warm_up()
            guard(built, 0)
            return built

        return self.resources.store.get_object("components", key, make, keep=WORKING)

    # By position, since a component may have inputs that are called key, worker or most.
    def _call(
        self, key: str, worker: Callable[[], Any], most: int | None = None, /, **inputs: Any
    ) -> Mapping[str, Any]:
        """What a component gives for these inputs, kept or made; of kept documents the first `most` (None: all)."""
        watch, replies = get_watch(), self.resources.llm.replies
        if watch is not None:
            watch.check()
        try:
            call = compute_key("call", key, encode({name: inputs[name] for name in sorted(inputs)}))
        except UnkeptError:
            made: Mapping[str, Any] = run_watched(partial(_run_worker, worker), **inputs)
            return made
        if (found := self._recall(call, most)) is not None:
            return found
        before = (watch.tokens_in, watch.tokens_out) if watch else (0, 0)
        start = time.perf_counter()
        outputs: Mapping[str, Any] = run_watched(partial(_run_worker, worker), **inputs)
        seconds = time.perf_counter() - start
        spent = (watch.tokens_in - before[0], watch.tokens_out - before[1]) if watch else (0, 0)
        try:
            text = json.dumps(encode(dict(outputs), self._put_document))
        except UnkeptError:
            return outputs
        replies.put(call, Reply(text, *spent, seconds))
        return outputs

    def _recall(self, call: str, most: int | None = None) -> Mapping[str, Any] | None:
        """The kept outputs of a call, its seconds and tokens counted; None where there are none."""
        watch, kept = get_watch(), self.resources.llm.replies.get(call)
        if kept is None or kept.text is None:
            return None
        value = json.loads(kept.text)
        # Cut before it is decoded: no document is read in vain.
        if most is not None:
            value[DICT]["documents"] = value[DICT]["documents"][:most]
        try:
            found: Mapping[str, Any] = decode(value, self._get_document)
        except KeyError:
            # One of its documents is gone, so the call is made again.
            return None
        if watch is not None:
            watch.seconds += kept.seconds
            watch.add_tokens(kept.tokens_in, kept.tokens_out, kept=True)
        return found

    def _put_document(self, key: str, text: str) -> None:
        if key not in self.known:
            self.known.add(key)
            if self.resources.llm.replies.get(key) is None:
                self.resources.llm.replies.put(key, Reply(text))

    def _get_document(self, key: str) -> str:
        kept = self.resources.llm.replies.get(key)
        if kept is None or kept.text is None:
            raise KeyError(key)
        return kept.text

    # As in `_call`.
    def _embed(self, key: str, worker: Callable[[], Any], /, documents: Any, **inputs: Any) -> Mapping[str, Any]:
        """What an embedder of documents gives, each document's embedding kept by itself: whatever is beside it."""
        replies = self.resources.llm.replies
        keys = [compute_key("embedding", key, each.content, each.meta, inputs) for each in documents]
        kept = {each: reply.text for each in dict.fromkeys(keys) if (reply := replies.get(each)) is not None}
        new = [row for row, each in enumerate(keys) if each not in kept]
        meta: Any = {}
        if new:
            outputs = worker().run(documents=[replace(documents[row], embedding=None) for row in new], **inputs)
            meta = outputs.get("meta", {})
            for row, embedded in zip(new, outputs["documents"], strict=True):
                kept[keys[row]] = encode_embedding(embedded.embedding)
                replies.put(keys[row], Reply(kept[keys[row]]))
        found = [
            replace(each, embedding=decode_embedding(kept[name])) for each, name in zip(documents, keys, strict=True)
        ]
        return {"documents": found, "meta": meta}


def is_uncached(node: Mapping[str, Any]) -> bool:
    """Whether a component says, by its definition or its class, that it is run each time."""
    return node.get("cache", getattr(import_target(str(node[TYPE])), "cache", True)) is False


def _do_nothing() -> None:
    """In place of a warm-up."""


def _run_worker(worker: Callable[[], Any], /, **inputs: Any) -> Any:
    return _run_instance(worker(), None, **inputs)


def _run_instance(instance: Any, unbound: Callable[..., Any] | None, /, **inputs: Any) -> Any:
    """What a component gives; one that is only asynchronous is waited for."""
    if unbound is not None:
        return unbound(instance, **inputs)
    if hasattr(instance, "run"):
        return instance.run(**inputs)
    return asyncio.run(instance.run_async(**inputs))


def run_watched(run: Callable[..., Any], /, **inputs: Any) -> Any:
    """What a component gives, its seconds and tokens counted."""
    watch = get_watch()
    if watch is None:
        return run(**inputs)
    watch.check()
    before = watch.tokens_in + watch.tokens_out
    start = time.perf_counter()
    outputs = run(**inputs)
    watch.seconds += time.perf_counter() - start
    # What it is made of has counted already, if it is made of others.
    if isinstance(outputs, Mapping) and watch.tokens_in + watch.tokens_out == before:
        watch.add_tokens(*count_usage(outputs))
    return outputs


def guard(component: Any, depth: int) -> None:
    """Have what a component is made of, such as an agent's generator, watched at each of its calls."""
    for value in list(getattr(component, "__dict__", {}).values()) if depth < 3 else ():
        if hasattr(value, "__haystack_input__") and hasattr(value, "run"):
            guard(value, depth + 1)
            value.run = partial(_run_guarded, value.run)


def _run_guarded(run: Callable[..., Any], /, **inputs: Any) -> Any:
    watch = get_watch()
    if watch is None:
        return run(**inputs)
    watch.check()
    before = watch.tokens_in + watch.tokens_out
    # Not timed: this is part of the seconds of the component around it.
    outputs = run(**inputs)
    if isinstance(outputs, Mapping) and watch.tokens_in + watch.tokens_out == before:
        watch.add_tokens(*count_usage(outputs))
    return outputs
