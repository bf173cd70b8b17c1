"""Haystack's own components, and others that know nothing of this program's records, as stages of a pipeline.

What a stage's file lists becomes one small Haystack pipeline: its components are connected in their order, by type;
what is left open is fed with the question, with what was retrieved and with the query's vector, question by question.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rag_opt.components.document_stores import (
    LOOKED_AT,
    complete_index,
    compute_index_name,
    find_stores,
    name_stores,
    open_store,
)
from rag_opt.components.external.calls import Calls
from rag_opt.components.external.code import get_codes
from rag_opt.components.external.connections import READ, VECTOR, connect_in_order, find_feeds, find_results
from rag_opt.components.external.definition import build
from rag_opt.components.external.found import format_pipeline_error, format_reason
from rag_opt.components.external.gold import make_hit
from rag_opt.components.external.sockets import (
    MARK,
    Socket,
    list_sockets,
    make_input,
    read_answer,
)
from rag_opt.components.external.watch import Watch, watching
from rag_opt.components.own_documents import Pair
from rag_opt.components.ranking import score_by_rank, stack_rankings
from rag_opt.components.socket_types import format_type
from rag_opt.components.stage import Stage
from rag_opt.config.own_pipelines import Definition
from rag_opt.config.own_trust import check_allowed
from rag_opt.errors import ComponentError, RagOptError
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.llm.replies import Reply
from rag_opt.records.documents import Queries, Query
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Answers, Chunks, QueryVectors, Rankings, Searches, Usage, Vectors, sum_tokens
from rag_opt.system import signals
from rag_opt.system.haystack import Pipeline, component

TIMEOUT = 600.0
"""Seconds of one question in one stage: what waits longer for a service has lost it."""

GIVES = {"query": "a text, or texts, to search for", "generator": "an answer: a text, messages or answers"}
DOCUMENTS = "retrieved documents, list[Document]"


@component
class StockStage(Stage):
    """The components of one stage (query, retriever, reranker, context, generator) as this program's own.

    Raises ComponentError where they take what nothing gives, or give nothing that the stage is there for.
    """

    algorithm = "rag_opt.external.StockStage"

    def __init__(self, stage: str, definition: Definition, trusted: Sequence[str] = ()) -> None:
        self.stage = stage
        self.trusted = tuple(trusted)
        check_allowed(stage, definition, self.trusted)
        self.definition = connect_in_order(stage, definition, self.trusted)
        built = build(stage, name_stores(self.definition, LOOKED_AT), self.trusted)
        self._feeds, self._types = find_feeds(stage, built)
        documents, answer = find_results(stage, built)
        self._documents = documents if stage not in GIVES else None
        self._answer = answer if stage in GIVES else None
        if (self._answer if stage in GIVES else self._documents) is None:
            gives = ", ".join(f"{place} ({format_type(kind)})" for place, kind in list_sockets(built, "output_sockets"))
            names = " and ".join(definition["components"])
            raise ComponentError(
                f"{stage}: what serves there gives {GIVES.get(stage, DOCUMENTS)}; {names} gives {gives}"
            )
        self._declare()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the components that it is made of."""
        return tuple(self.definition["components"])

    @property
    def pays_per_query(self) -> bool:  # type: ignore[override]
        """Whether any of its components asks a language model."""
        kinds = [str(node["type"]) for node in self.definition["components"].values()]
        return any(".generators." in kind or ".agents." in kind for kind in kinds)

    def _declare(self) -> None:
        """Its sockets, by its stage and by what its components take."""
        takes: dict[str, Any] = {"queries": Queries}
        if self.stage in READ:
            takes[READ[self.stage]] = Rankings
        if self.stage == "retriever":
            takes["chunks"] = Chunks
            if VECTOR in self._feeds.values():
                takes |= {"vectors": Vectors, "query_vectors": QueryVectors}
        component.set_input_types(self, **takes)
        gives: dict[str, Any] = {"ranking": Rankings}
        if self.stage == "query":
            gives = {f"{way}_queries": Searches for way in ("bm25", "dense", "web")}
        elif self.stage != "retriever":
            gives = {"reranker": {"ranking": Rankings}, "context": {"context": Rankings}}.get(
                self.stage, {"answers": Answers}
            )
        component.set_output_types(self, **gives)

    @property
    def fingerprint(self) -> str:
        """The hash of the components, their code and how they are connected."""
        return compute_key(self.algorithm, name_stores(self.definition, None), get_codes(self.definition))

    def run(self, queries: Queries, **given: Any) -> dict[str, Any]:
        """What the stage gives for these queries."""
        read = given.get(READ.get(self.stage, ""))
        chunks: Any = given.get("chunks") if read is None else read.chunks
        definition = self.definition
        if find_stores(definition):
            definition = self._index(chunks, given.get("vectors"))
        made: list[Pipeline] = []

        def get_pipeline() -> Pipeline:
            made.extend([] if made else [self._build(definition)])
            return made[0]

        vectors = given["query_vectors"].own if "query_vectors" in given else None
        watches, outs = [], []
        for row, text in enumerate(queries.texts):
            documents = [] if read is None else [make_hit(chunks, *hit) for hit in read.get_hits(row)]
            watch = Watch(time.monotonic() + TIMEOUT, TIMEOUT, float("inf"))
            watches.append(watch)
            outs.append(self._ask(get_pipeline, watch, text, documents, None if vectors is None else vectors[row]))
        failed = np.array([isinstance(out, str) for out in outs], np.bool_)
        self._report_failed([out for out in outs if isinstance(out, str)], len(outs))
        keys = [each.key for each in given.values() if hasattr(each, "key")]
        key = compute_key(self.fingerprint, queries.key, *keys)
        causes = [
            each for each in (read, given["query_vectors"].searches if "query_vectors" in given else None) if each
        ]
        return self._collect(key, queries, chunks, outs, watches, failed, causes)

    def _build(self, definition: Definition) -> Pipeline:
        pipeline = build(self.stage, definition, self.trusted)
        Calls(self.resources, self.trusted).attach(pipeline, definition)
        return pipeline

    def _index(self, chunks: Chunks, vectors: Vectors | None) -> Definition:
        """The definition with the chunks written into its document stores."""
        key = compute_key(chunks.key, vectors.key if vectors is not None else None)
        name = compute_index_name({"components": find_stores(self.definition)}, key, get_codes(self.definition))
        definition = name_stores(self.definition, name)
        for node in find_stores(definition):
            store = open_store(node)

            # Bound here: a closure would read the loop's last store.
            def write(store: Any = store) -> int:
                values = None if vectors is None else vectors.values
                documents = [make_hit(chunks, row, None, values) for row in range(len(chunks))]
                return int(store.write_documents(documents))

            complete_index(self.store, name, node, store, write)
        return definition  # type: ignore[no-any-return]

    def _ask(
        self, get_pipeline: Callable[[], Pipeline], watch: Watch, text: str, documents: list[Any], vector: Any
    ) -> dict[str, Any] | str:
        """What the components give for a question; the reason where they fail."""
        self.llm.check_budget()
        signals.check_ending()
        given: dict[str, dict[str, Any]] = {}
        for place, what in self._feeds.items():
            value = documents if what == "documents" else vector.tolist() if what == VECTOR else None
            if what == MARK:
                value = make_input(self._types[place], text)
            given.setdefault(place.component, {})[place.name] = value
        # Outputs that another component takes are given only where they are asked for.
        wanted = {place.component for place in (self._documents, self._answer) if place is not None}
        try:
            with watching(watch):
                return dict(get_pipeline().run(given, include_outputs_from=wanted))
        except (BudgetSpentError, RagOptError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error.__cause__, BudgetSpentError | RagOptError | MemoryError):
                raise error.__cause__ from error
            # A component, its model or its service may fail in any way.
            return format_pipeline_error(error) or format_reason(error)
        finally:
            # Also of a question that ends early: what it has asked is paid.
            if any(watch.paid):
                self.llm.record_payment(self.stage, Reply(None, *watch.paid, watch.seconds), math.nan, 0)

    def _report_failed(self, reasons: Sequence[str], count: int) -> None:
        if reasons and len(reasons) == count:
            raise ComponentError(f"{self.stage}: every question failed ({count}): {reasons[0]}")
        if reasons:
            then = "are searched as they were asked" if self.stage == "query" else "are missing"
            told = f"{self.stage}: {len(reasons)} of {count} questions failed and {then}: {reasons[0]}"
            self.notices.report_once(told)

    def _collect(
        self,
        key: str,
        queries: Queries,
        chunks: Chunks,
        outs: Sequence[dict[str, Any] | str],
        watches: Sequence[Watch],
        failed: Any,
        causes: Sequence[Any],
    ) -> dict[str, Any]:
        costs, usage = (
            {key: float(np.median([watch.seconds for watch in watches]))},
            _sum_usage(key, self.stage, watches),
        )
        if self.stage == "query":
            texts = [_read_texts(out, self._answer) for out in outs]
            return dict.fromkeys(
                [f"{way}_queries" for way in ("bm25", "dense", "web")], _make_searches(queries, texts, costs, usage)
            )
        if self.stage == "generator":
            # To say nothing is an answer: only what failed is missing.
            answers = tuple(
                None if isinstance(out, str) else read_answer(_read(out, self._answer)) or "" for out in outs
            )
            key = compute_key(key, answers)
            known = {**causes[0].usage, **usage}
            return {"answers": Answers(answers, sum_tokens(known, len(outs)), key, {**causes[0].costs, **costs}, known)}
        own = [query.own for query in queries.items]
        pairs = [_drop_own(_read_hits(out, self._documents), chunks, mine) for out, mine in zip(outs, own, strict=True)]
        columns = stack_rankings(pairs, max([1, *(len(rows) for rows, _ in pairs)]))
        # By what came, too: a question that failed is asked again.
        key = compute_key(key, columns["rows"].tolist(), failed.tolist())
        found = Rankings(
            chunks, columns["rows"], columns["scores"], key, costs, usage, failed=failed if failed.any() else None
        )
        return {READ.get(self.stage, "ranking"): found.add_costs(*causes)}


def _read(out: Mapping[str, Any], place: Socket | None) -> Any:
    return None if place is None else out.get(place.component, {}).get(place.name)


def _read_hits(out: dict[str, Any] | str, place: Socket | None) -> Pair:
    """The rows of the chunks that came, in their order; scores where these are in that order."""
    found = [] if isinstance(out, str) else _read(out, place) or []
    # What is no number was made by a component itself and is no chunk. Of one that comes twice the first score counts.
    # (isdecimal: by isdigit ² is a number, too, which int refuses.)
    known = {int(each.id): each.score for each in reversed(found) if each.id.isdecimal()}
    rows = np.array(list(dict.fromkeys(int(each.id) for each in found if each.id.isdecimal())), np.int32)
    scores = [known[row] for row in rows.tolist()]
    if any(score is None for score in scores) or scores != sorted(scores, reverse=True):
        return score_by_rank(rows)
    return rows, np.array(scores, np.float32)


def _drop_own(pair: Pair, chunks: Chunks, own: str) -> Pair:
    """The hits less those of the document that the query is itself."""
    rows, scores = pair
    kept = np.array([not own or chunks.document_ids[row] != own for row in rows.tolist()], np.bool_)
    return rows[kept], scores[kept]


def _read_texts(out: dict[str, Any] | str, place: Socket | None) -> list[str]:
    value = None if isinstance(out, str) else _read(out, place)
    texts = value if isinstance(value, list) and all(isinstance(each, str) for each in value) else [read_answer(value)]
    return [text for text in texts if text]


def _make_searches(queries: Queries, texts: Sequence[Sequence[str]], costs: Any, usage: Any) -> Searches:
    """As many variants as the longest list has texts; a query with fewer repeats its first, or itself."""
    count = max([1, *map(len, texts)])
    variants = []
    for place in range(count):
        items = tuple(
            Query(item.id, (row[place] if place < len(row) else row[0]) if row else item.text, own=item.own)
            for item, row in zip(queries.items, texts, strict=True)
        )
        variants.append(Queries.from_items(items))
    return Searches(tuple(variants), costs=costs, usage=usage)


def _sum_usage(key: str, stage: str, watches: Sequence[Watch]) -> dict[str, Usage]:
    tokens_in, tokens_out = (np.array([getattr(w, n) for w in watches], np.int32) for n in ("tokens_in", "tokens_out"))
    spent = tokens_in + tokens_out > 0
    if not spent.any():
        return {}
    usd, none = np.where(spent, np.nan, 0.0), np.zeros(len(watches), np.int32)
    return {key: Usage(stage, spent.astype(np.int32), tokens_in, tokens_out, usd, none)}
