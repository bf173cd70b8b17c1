"""The pipeline of one's own that answers questions, question by question, its components' calls kept."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rag_opt.components.checks import require_whole
from rag_opt.components.document_stores import (
    LOOKED_AT,
    check_one_store,
    count_documents,
    find_name,
    find_stores,
    name_stores,
    open_store,
)
from rag_opt.components.external.asking import STAGE, answer_queries, run_within
from rag_opt.components.external.calls import Calls, is_uncached
from rag_opt.components.external.code import get_codes
from rag_opt.components.external.definition import build
from rag_opt.components.external.found import Found, FoundDocument, QuestionError, format_pipeline_error
from rag_opt.components.external.indexing import OwnIndex, resolve_definitions
from rag_opt.components.external.settings import check_asking
from rag_opt.components.external.sockets import MARK, find_inputs, find_outputs, make_input, read_answer, read_declared
from rag_opt.components.external.watch import Watch, watching
from rag_opt.components.stage import Stage
from rag_opt.config.own_pipelines import INIT, NONE, TYPE, Definition, iterate_objects
from rag_opt.config.own_trust import is_class
from rag_opt.errors import ComponentError, RagOptError
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.llm.replies import Reply
from rag_opt.records.documents import Documents, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Answers, Rankings
from rag_opt.system.haystack import Pipeline, component

NAMED = "pipeline.querying"
PAID = (".generators.", ".agents.", ".query.")
"""Where components live that ask a language model."""


@component
class OwnPipeline(Stage):
    """Asks a Haystack pipeline each question, `at_once` at a time; its retrieved documents are the ranking.

    What takes the question and what gives documents and the answer is found by type and name, or said in `inputs` and
    `outputs`; `gold` is the field of a document's meta that holds the gold document's id. Limits are of one question:
    `timeout` seconds, `max_tokens` tokens, `agent_steps` of an agent. Raises ComponentError for what can't be.
    """

    algorithm = "rag_opt.external.OwnPipeline"

    def __init__(
        self,
        definition: Mapping[str, Any] | None,
        values: Mapping[str, Any],
        factory: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        trusted: Sequence[str] = (),
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        gold: str | None = None,
        uncached: Sequence[str] = (),
        at_once: int = 1,
        timeout: float = 120,
        max_tokens: int | None = None,
        agent_steps: int = 20,
        version: str = "",
    ) -> None:
        check_asking(at_once, timeout)
        require_whole("pipeline.agent_steps", agent_steps)
        if max_tokens is not None:
            require_whole("pipeline.max_tokens", max_tokens)
        self.definition = definition
        self.values = dict(values)
        self.factory = factory
        self.parameters = dict(parameters or {})
        self.trusted = tuple(trusted)
        self.inputs = dict(inputs or {})
        self.outputs = dict(outputs or {})
        self.gold = gold
        self.uncached = tuple(uncached)
        self.at_once = at_once
        self.timeout = timeout
        self.max_tokens = max_tokens
        self.agent_steps = agent_steps
        self.version = version
        changed = resolve_definitions("querying", definition, values, factory, self.parameters, self.trusted)
        if changed is None:
            raise ComponentError(
                "pipeline=own needs the pipeline that answers questions: pipeline.querying=query.yaml, or "
                "pipeline.factory=my_package.build"
            )
        self._changed = changed
        built = build("querying", name_stores(changed, LOOKED_AT), self.trusted)
        declared, outputs = read_declared(changed)
        self._inputs = find_inputs(NAMED, built, {**declared, **self.inputs})
        self._documents, self._answer = find_outputs(NAMED, built, {**outputs, **self._find_outputs_left()})
        component.set_output_types(self, ranking=Rankings, **({"answers": Answers} if self._answer else {}))
        self._types = {
            place: built.graph.nodes[place.component]["input_sockets"][place.name].type for place in self._inputs
        }

    @property
    def pays_per_query(self) -> bool:  # type: ignore[override]
        """Whether any of its components asks a language model."""
        kinds = [str(node[TYPE]) for _, node in iterate_objects(self._changed["components"])]
        return any(part in kind for kind in kinds for part in PAID)

    @property
    def fingerprint(self) -> str:
        """The hash of the pipeline, its code, and what it is fed and asked for; not of its stores' names."""
        # Not the timeout: a question that it ends is missing, and kept by nobody.
        limits = [self.max_tokens, self.agent_steps]
        asked = [self.inputs, self.outputs, self.gold, sorted(self.uncached), limits, self.version]
        return compute_key(self.algorithm, name_stores(self._changed, None), get_codes(self._changed), *asked)

    @property
    def plain(self) -> Definition:
        """The pipeline as Haystack's own, with a trial's values: its stores under the names that its author gave."""
        return self._changed

    @property
    def feeds(self) -> dict[str, str]:
        """By open input, as component.socket, the text that it takes, with {question} in it."""
        return {str(place): text for place, text in self._inputs.items()}

    @property
    def gives(self) -> tuple[str | None, str | None]:
        """(documents, answer): the outputs that are the result, as component.socket."""
        return tuple(None if place is None else str(place) for place in (self._documents, self._answer))  # type: ignore[return-value]

    def run(self, queries: Queries, documents: Documents, own_index: OwnIndex) -> dict[str, Any]:
        """The ranking of each query's retrieved documents, and the answers where the pipeline gives any."""
        definition = name_stores(self._changed, own_index.name) if own_index.name else self._changed
        content = self._describe_content(definition, own_index)
        key = compute_key(self.fingerprint, own_index.key, content)
        made: list[Pipeline] = []

        def ask(question: str) -> tuple[Found, float, tuple[int, int]]:
            # Built when the first question is not known yet.
            made.extend([] if made else [self._build(definition, content)])
            return self._ask(made[0], question)

        # What draws at random is asked anew, so its result is nobody else's.
        ranking, answers = answer_queries(
            self.resources,
            NAMED,
            key,
            queries,
            documents,
            ask,
            at_once=self.at_once,
            gold=self.gold,
            keep=not self._draws,
        )
        return {"ranking": ranking, "answers": answers} if self._answer else {"ranking": ranking}

    def _find_outputs_left(self) -> dict[str, Any]:
        """The outputs that are named, less those of components that a trial has left out: these are found anew."""
        dropped = {
            name for name, values in self.values.items() if isinstance(values, Mapping) and values.get(TYPE) == NONE
        }
        return {key: place for key, place in self.outputs.items() if str(place).partition(".")[0] not in dropped}

    @property
    def _draws(self) -> bool:
        """Whether a component is to run each time, so that no question's result may be kept."""
        nodes = [node for _, node in iterate_objects(self._changed["components"]) if is_class(str(node[TYPE]))]
        return bool(self.uncached) or any(is_uncached(node) for node in nodes)

    def _describe_content(self, definition: Definition, index: OwnIndex) -> str:
        """What stands for the content of document stores; raises ComponentError where one is empty or incomplete."""
        if index.name:
            check_one_store(NAMED, self._changed)
        stores = [(node, open_store(node)) for node in find_stores(definition)]
        counts = [count_documents(store) for _, store in stores]
        for (node, _), count in zip(stores, counts, strict=True):
            kind = str(node[TYPE]).rpartition(".")[2]
            if index.name and count != index.count:
                raise ComponentError(
                    f"{NAMED}: its {kind} holds {count} documents, and the indexing pipeline wrote {index.count}: both "
                    "have to name the same store, with the same parameters"
                )
            if not count:
                raise ComponentError(
                    f"{NAMED}: its {kind} is empty ({_describe_name(node)}); fill it, or name the pipeline that does: "
                    "pipeline.indexing=index.yaml"
                )
        # Of a store that is filled already the name says which one it is.
        return "" if index.name else compute_key(definition, counts, self.version)

    def _build(self, definition: Definition, content: str) -> Pipeline:
        pipeline = build("querying", definition, self.trusted)
        calls = Calls(self.resources, self.trusted, frozenset(self.uncached), content, self.agent_steps)
        calls.attach(pipeline, definition)
        return pipeline

    def _ask(self, pipeline: Pipeline, question: str) -> tuple[Found, float, tuple[int, int]]:
        given: dict[str, dict[str, Any]] = {}
        for place, text in self._inputs.items():
            value = make_input(self._types[place], text.replace(MARK, question))
            given.setdefault(place.component, {})[place.name] = value
        # Outputs that another component takes are given only where they are asked for.
        wanted = {place.component for place in (self._documents, self._answer) if place is not None}
        # The watch ends a question between two components, `run_within` in the midst of one.
        watch = Watch(time.monotonic() + self.timeout, self.timeout, self.max_tokens or float("inf"))

        def work() -> dict[str, Any]:
            with watching(watch):
                return dict(pipeline.run(given, include_outputs_from=wanted))

        try:
            out, _ = run_within(work, self.timeout)
            # Each component is checked before it runs; this is the check behind the last.
            watch.check()
        except (BudgetSpentError, RagOptError, MemoryError, QuestionError):
            raise
        except Exception as error:
            # Haystack wraps what a component raises.
            if isinstance(error.__cause__, QuestionError | BudgetSpentError | RagOptError):
                raise error.__cause__ from error
            raise QuestionError(format_pipeline_error(error)) from error
        finally:
            # Also of a question that ends early: what it has asked is paid.
            if any(watch.paid):
                self.llm.record_payment(STAGE, Reply(None, *watch.paid, watch.seconds), math.nan, 0)
        found = out.get(self._documents.component, {}).get(self._documents.name) if self._documents else None
        answer = out.get(self._answer.component, {}).get(self._answer.name) if self._answer else None
        documents = None if self._documents is None else tuple(_read_document(each) for each in found or ())
        said = (read_answer(answer) or "") if self._answer else None
        # No tokens for the caller to enter: what was paid is entered above.
        return Found(documents, said, watch.tokens_in, watch.tokens_out), watch.seconds, (0, 0)


def _describe_name(node: Mapping[str, Any]) -> str:
    field = find_name(node)
    return f"{field}={(node.get(INIT) or {}).get(field)}"


def _read_document(found: Any) -> FoundDocument:
    meta = {key: value for key, value in found.meta.items() if isinstance(value, str | int | float | bool)}
    score = None
    with suppress(TypeError, ValueError):
        score = float(found.score)
    return FoundDocument(found.id, found.content, score, meta)
