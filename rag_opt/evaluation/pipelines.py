"""A configuration → two Haystack pipelines: indexing (what needs no question) and querying.

Each stage's file under conf/ lists its components; the stages follow each other as the data flows: parser, splitter,
query, embedder, index, retriever, reranker, context, generator. How they are connected says wiring.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_opt.components.stage import Stage, is_optional
from rag_opt.config.stages import PARSER
from rag_opt.config.trust import build
from rag_opt.errors import ComponentError, RagOptError
from rag_opt.evaluation.stock import adapt_stage, is_stock, knows_records
from rag_opt.evaluation.wiring import (
    GIVEN,
    SEARCHES,
    Part,
    find_results,
    find_upstream,
    get_outputs,
    order_components,
    select_needed,
    wire_components,
)
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.records.products import Costs, QueryVectors, Searches
from rag_opt.system.haystack import Pipeline, PipelineConnectError, PipelineRuntimeError

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.config.trial import TrialConfig
    from rag_opt.records.documents import Documents, Queries

PARTS = ("encoder", "chat", "scorer", "service")
"""Parameters of our components that are objects themselves."""


Products = Mapping[tuple[str | None, str], Any]
"""Values by where they come from: (part, socket), part None for what is given from outside."""


@dataclass(frozen=True)
class Step:
    """What a part gave, by socket, and the seconds a query that it took, whenever that was done."""

    part: Part
    outputs: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class RagPipeline:
    """Both pipelines of one configuration, which parts give the results, and what our components work with."""

    indexing: Pipeline
    querying: Pipeline
    parts: tuple[Part, ...]
    results: Mapping[str, str]
    resources: Resources

    @property
    def has_generator(self) -> bool:
        return "answers" in self.results

    def use_resources(self, resources: Resources) -> RagPipeline:
        """This pipeline with its components at work with these resources from now on."""
        for part in self.parts:
            if isinstance(part.component, Stage):
                part.component.use(resources)
        return replace(self, resources=resources)

    def get_upstream(self, names: Iterable[str]) -> set[str]:
        """These parts, and all whose products reach them."""
        return find_upstream(self.parts, names)

    @property
    def pays_per_query(self) -> bool:
        """Whether a query costs so much that a trial should be stopped as early as it can be."""
        asked = (part.component for part in self.parts if part.name in self.querying.graph.nodes)
        # Of a component that is not ours nothing is known.
        return any(getattr(each, "pays_per_query", True) for each in asked)

    def index_documents(self, documents: Documents) -> Products:
        """All that is computed from the documents alone."""
        names = set(self.indexing.graph.nodes)
        out = _run_pipeline(self.indexing, self._build_inputs(names, {(None, "documents"): documents}), names)
        return {(name, socket): value for name, values in out.items() for socket, value in values.items()}

    def find_documents(self, documents: Documents, index: Products) -> Documents:
        """The texts that are indexed: the documents themselves, or what a parser made of them."""
        found: Documents = next((index[part.name, "documents"] for part in self._parsers), documents)
        return found

    def parse_documents(self, documents: Documents) -> Documents:
        """The texts that would be indexed; nothing else is done."""
        for part in self._parsers:
            documents = part.component.run(documents=documents)["documents"]
        return documents

    @property
    def _parsers(self) -> list[Part]:
        return [part for part in self.parts if part.stage == PARSER]

    def ask(self, queries: Queries, documents: Documents, index: Products) -> dict[str, Any]:
        """Of a batch of queries the final "ranking", the "context" that is read, and "answers" from a generator.

        "rankings" are all that led to the final one, which is the first of them: what a reranker was not given, or
        left out, stands in an earlier one.
        """
        ranking = [part.name for part in self.parts if "ranking" in get_outputs(part.component)]
        out = _run_pipeline(
            self.querying,
            self._build_inputs(set(self.querying.graph.nodes), _collect_given(queries, documents, index)),
            {*self.results.values(), *ranking},
        )
        found = {socket: out[part][socket] for socket, part in self.results.items()}
        return {"context": found["ranking"], **found, "rankings": [out[part]["ranking"] for part in reversed(ranking)]}

    def get_stage_seconds(self, queries: Queries, documents: Documents, index: Products) -> dict[str, float]:
        """Seconds by part: what indexing took in all, and what asking takes per query, whenever that was done."""
        spent = {f"indexing: {part}": 0.0 for part, _ in index if part is not None}
        for (source, _), product in index.items():
            spent[f"indexing: {source}"] += getattr(product, "seconds", 0.0)
        return spent | {step.part.name: step.seconds for step in self.run_steps(queries, documents, index)}

    def run_steps(self, queries: Queries, documents: Documents, index: Products) -> list[Step]:
        """What each part that is asked gives for these queries, and the seconds it adds to a query, in their order."""
        names = set(self.querying.graph.nodes)
        out = _run_pipeline(self.querying, self._build_inputs(names, _collect_given(queries, documents, index)), names)
        found = []
        for part in self.parts:
            if part.name in names:
                # Costs travel with products and add up on the way; a part's own are those that none of its inputs had.
                before = [_get_costs(out.get(maker or "", {}).get(socket)) for maker, socket in part.inputs.values()]
                known = {key for costs in before for key in costs}
                after = {key: cost for value in out[part.name].values() for key, cost in _get_costs(value).items()}
                added = sum(cost for key, cost in after.items() if key not in known)
                found.append(Step(part, out[part.name], added))
        return found

    def _build_inputs(self, names: set[str], given: Products) -> dict[str, dict[str, Any]]:
        return {
            part.name: {socket: given[source] for socket, source in part.inputs.items() if source in given}
            for part in self.parts
            if part.name in names
        }

    def to_mermaid(self) -> str:
        """The whole pipeline as a Mermaid flow chart."""
        lines = ["flowchart LR"]
        for part in self.parts:
            lines.append(f'    {part.name}["{part.name}<br><i>{type(part.component).__name__}</i>"]')
            for socket, (sender, _) in part.inputs.items():
                lines.append(f"    {sender or socket}([{socket}])" if sender is None else "")
                lines.append(f"    {sender or socket} -- {socket} --> {part.name}")
        # What comes from outside is drawn once, though several parts may take it.
        return "\n".join(dict.fromkeys(line for line in lines if line)) + "\n"


def _run_pipeline(pipeline: Pipeline, inputs: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """What these parts give; an error that says itself what is wrong comes out as it is."""
    try:
        # Haystack gives back only what no other component takes, unless its giver is named.
        return dict(pipeline.run(inputs, include_outputs_from=names))
    except PipelineRuntimeError as error:
        if isinstance(error.__cause__, RagOptError | BudgetSpentError):
            # What was behind it says whose failure it is.
            raise error.__cause__ from error.__cause__.__cause__
        raise


def _collect_given(queries: Queries, documents: Documents, index: Products) -> Products:
    asked: Products = {(None, socket): Searches((queries,)) for socket in SEARCHES}
    return {(None, "queries"): queries, (None, "documents"): documents, **asked, **index}


def _get_costs(product: Any) -> Costs:
    """What a query has cost so far, by piece of work."""
    if isinstance(product, QueryVectors):
        return {**product.searches.costs, **{vectors.key: vectors.seconds for vectors in product.vectors}}
    return getattr(product, "costs", {})


def build_pipeline(config: TrialConfig, resources: Resources) -> RagPipeline:
    """The pipelines of a configuration, at work with these resources.

    Raises ConfigError where a component refuses its parameters, ComponentError where an input has no source, or a
    component serves nothing.
    """
    parts = select_needed(wire_components(_build_components(config)))
    asked = _find_query_parts(parts)
    indexing = _assemble_pipeline([part for part in parts if part.name not in asked])
    querying = _assemble_pipeline([part for part in parts if part.name in asked])
    return RagPipeline(indexing, querying, tuple(parts), find_results(parts), resources).use_resources(resources)


def _build_components(config: TrialConfig) -> Iterator[tuple[str, str, Any]]:
    """(stage, name, component), as data flows."""
    for name_of_stage, stage in config.stages.items():
        nodes, found = dict(stage.components), dict[str, Any]()
        stock = [name for name, node in nodes.items() if is_stock(str(node.get("_target_")))]
        for name in [each for each in nodes if each not in stock]:
            # `cache` says whether a component's results are kept; its class has no such parameter.
            made = build({key: value for key, value in nodes[name].items() if key != "cache"}, config.trusted)
            _check_component(name, made)
            if isinstance(made, Stage) or knows_records(made):
                found[name] = made
            else:
                stock.append(name)
        # In the order of their file: one that takes and gives documents could stand anywhere.
        foreign = {name: node for name, node in nodes.items() if name in stock}
        if foreign:
            yield from ((name_of_stage, *pair) for pair in adapt_stage(name_of_stage, foreign, config.trusted))
        yield from ((name_of_stage, name, component) for name, component in order_components(found))


def _check_component(name: str, component: Any) -> None:
    """Raise ComponentError for what is no component of Haystack's, or lacks a part that it works with."""
    if not hasattr(component, "__haystack_input__"):
        raise ComponentError(f"{name}: {type(component).__name__} is no Haystack component; name one as its _target_")
    # What others' components call by these names is their own affair.
    for part in PARTS if isinstance(component, Stage) else ():
        # The component itself stands for a part that its class does not know; None is a part that was left out.
        given = getattr(component, part, component)
        lacks = given is None and not is_optional(type(component), part)
        if lacks or isinstance(given, str | int | float | list | dict):
            raise ComponentError(f"{name}: its {part} is {given!r}: a _target_ with its parameters is expected"[:300])


def _find_query_parts(parts: Iterable[Part]) -> set[str]:
    """The names of the parts that depend on the queries."""
    found: set[str] = set()
    given = {(None, socket) for socket in GIVEN if socket != "documents"}
    for part in parts:
        # One pass is enough: parts stand behind all that they take from.
        if any(source[0] in found or source in given for source in part.inputs.values()):
            found.add(part.name)
    return found


def _connect(pipeline: Pipeline, giver: str, taker: str) -> None:
    try:
        pipeline.connect(giver, taker)
    except PipelineConnectError as error:
        raise ComponentError(
            f"{taker}: {' '.join(str(error).split())}; declare what it takes, or leave it Any"
        ) from error


def _assemble_pipeline(parts: list[Part]) -> Pipeline:
    pipeline = Pipeline()
    for part in parts:
        pipeline.add_component(part.name, part.component)
    names = {part.name for part in parts}
    for part in parts:
        for socket, (sender, output) in part.inputs.items():
            # What the other pipeline makes is no connection here: it comes in as an input.
            if sender in names:
                _connect(pipeline, f"{sender}.{output}", f"{part.name}.{socket}")
    return pipeline
