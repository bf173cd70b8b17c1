"""Questions, from any number of threads, to the components that a study measured; nothing is kept of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.cache.passing import PassingStore
from rag_opt.cache.store import Store
from rag_opt.components.generators.synthesis import show_pieces
from rag_opt.components.llm.chat import Chat
from rag_opt.components.resources import Resources
from rag_opt.components.stage import Stage, get_parameter_names
from rag_opt.config.stages import WHOLE
from rag_opt.console.notices import Notices
from rag_opt.errors import ComponentError
from rag_opt.evaluation.pipelines import Products, RagPipeline, Step, build_pipeline
from rag_opt.llm.client import LLMClient
from rag_opt.llm.replies import NoReplies
from rag_opt.production.bundle import Bundle
from rag_opt.production.requirements import CODE, explain_lacking, report_other_code, use_code
from rag_opt.records.documents import Documents, Queries, Query
from rag_opt.records.products import Rankings, Usages, sum_by_stage

if TYPE_CHECKING:
    from rag_opt.config.trial import TrialConfig

GENERATOR = "generator"


@dataclass(frozen=True)
class Source:
    """A chunk that was read: its document, where its characters stand in that, and what else is known of it."""

    document_id: str
    text: str
    score: float
    start: int
    end: int
    about: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What its document is called: its title, else its id; with the page, where one is known."""
        title = str(self.about.get("title") or self.document_id)
        return f"{title}, page {self.about['page']}" if "page" in self.about else title

    def to_dict(self) -> dict[str, Any]:
        """As plain containers; what is known beside stands among them: title, page, headings."""
        place = {"score": self.score, "start": self.start, "end": self.end}
        return {"id": self.document_id, "text": self.text, **place, **self.about}


@dataclass(frozen=True)
class Spent:
    """What the models that were asked have read and written; `usd` is nan where a price is not known."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a question gave: `text` is "" without a generator, `sources` the best first, `seconds` by part."""

    text: str
    sources: tuple[Source, ...]
    seconds: Mapping[str, float]
    total: float
    spent: Spent

    @property
    def cited(self) -> list[Source]:
        """Of each document that was read the best chunk, in their order."""
        first: dict[str, Source] = {}
        for source in self.sources:
            first.setdefault(source.document_id, source)
        return list(first.values())


NOTHING = Answer("", (), {}, 0.0, Spent())


class Answerer:
    """A configuration at work on its documents.

    `base` is what indexes and models come from and stay in; what depends on a question passes through a store of its
    own, which keeps none of it.
    """

    def __init__(self, config: TrialConfig, documents: Documents, base: Resources) -> None:
        self.config, self.documents = config, documents
        # Notices are for a study's report, and a model at work writes none.
        self.base = replace(base, notices=Notices(reporting=False))
        self._passing = replace(self.base, store=PassingStore())
        self.pipeline = build_pipeline(config, self.base)
        self.index: Products = self.pipeline.index_documents(documents)
        self._pass_through(self.pipeline)
        self._searched = self._build_search()

    @property
    def has_generator(self) -> bool:
        """Whether it writes answers; without, it gives sources alone."""
        return self.pipeline.has_generator

    @property
    def pays_to_search(self) -> bool:
        """Whether finding sources alone has to be paid for."""
        return self._searched.pays_per_query

    def ask(self, question: str, show: Callable[[str], None] | None = None) -> Answer:
        """The answer to a question and what it was made from; `show` is given its pieces as they come.

        Raises ComponentError where a model gave none.
        """
        with show_pieces(show) if show is not None else nullcontext():
            found = self._run(self.pipeline, question)
        # Without a chat (extractive, say) nothing has been shown on the way.
        if show is not None and not self._streams and found.text:
            show(found.text)
        return found

    def search(self, question: str) -> Answer:
        """What would be read to answer a question: no answer is made."""
        return self._run(self._searched, question)

    def search_together(self, questions: Sequence[str]) -> list[Answer]:
        """What would be read to answer each of these questions; what one of them takes is not known (nan)."""
        if not questions:
            return []
        steps = self._run_steps(self._searched, questions)
        context = _find_context(steps, self._searched)
        return [
            replace(NOTHING, sources=tuple(_list_sources(context, row)), total=math.nan)
            for row in range(len(questions))
        ]

    @property
    def _streams(self) -> bool:
        return any(part.stage == GENERATOR and "chat" in vars(part.component) for part in self.pipeline.parts)

    def _run(self, pipeline: RagPipeline, question: str) -> Answer:
        start = time.perf_counter()
        steps = self._run_steps(pipeline, [question])
        total = time.perf_counter() - start
        context = _find_context(steps, pipeline)
        # None without a generator; of one that failed the text within is None.
        answers = _find_output(steps, pipeline, "answers")
        if answers is not None and answers.texts[0] is None:
            trouble = self.base.llm.troubles.get(GENERATOR, "nothing could be read")
            raise ComponentError(f"the model gave no answer: {trouble}"[:300])
        usage = answers.usage if answers is not None else context.usage
        text = (answers.texts[0] or "") if answers is not None else ""
        seconds = {step.part.name: step.seconds for step in steps}
        return Answer(text, tuple(_list_sources(context, 0)), seconds, total, _sum_usage(usage))

    def _run_steps(self, pipeline: RagPipeline, questions: Sequence[str]) -> list[Step]:
        asked = Queries.from_items(tuple(Query(f"question {row}", text.strip()) for row, text in enumerate(questions)))
        try:
            return pipeline.run_steps(asked, self.documents, self.index)
        except ComponentError:
            self._revive(pipeline)
            raise

    def _pass_through(self, pipeline: RagPipeline) -> None:
        for part in pipeline.parts:
            if part.name in pipeline.querying.graph.nodes and isinstance(part.component, Stage):
                # Not those nested in it: an encoder and a chat keep their loaded models in the base.
                part.component.resources = self._passing

    def _build_search(self) -> RagPipeline:
        # A pipeline that was brought whole can't be cut before its generator: it runs to its end.
        if WHOLE in self.config.stages or not self.has_generator:
            return self.pipeline
        stages = {name: stage for name, stage in self.config.stages.items() if name != GENERATOR}
        found = build_pipeline(replace(self.config, stages=stages), self.base)
        self._pass_through(found)
        return found

    def _revive(self, pipeline: RagPipeline) -> None:
        """Have models that were given up asked again: a study ends there, a server outlives an outage."""
        for part in pipeline.parts:
            for name in get_parameter_names(type(part.component)) if isinstance(part.component, Stage) else ():
                if isinstance(chat := getattr(part.component, name), Chat):
                    setattr(part.component, name, chat.clone())


def open_bundle(bundle: Bundle) -> Answerer:
    """The bundle's configuration at work; nothing is written. Raises a RagOptError where it can't be."""
    base, code = Resources(Store(sealed=bundle.artifacts), LLMClient(NoReplies())), bundle.folder / CODE
    with explain_lacking(code):
        answerer = Answerer(bundle.config, bundle.read_documents(), base)
    # Only now: it compares the modules that building the pipeline has imported.
    report_other_code(code)
    return answerer


def open_folder(folder: Path, *, code: bool = False) -> Answerer:
    """The bundle of a folder at work, with the `code` in it if told so; raises ModelError where there is none."""
    if code:
        use_code(folder / CODE)
    return open_bundle(Bundle.read(folder))


def _find_context(steps: list[Step], pipeline: RagPipeline) -> Rankings:
    found: Rankings = _find_output(steps, pipeline, "context" if "context" in pipeline.results else "ranking")
    return found


def _find_output(steps: list[Step], pipeline: RagPipeline, socket: str) -> Any:
    """What the pipeline gives by that name; None where it gives nothing such."""
    part = pipeline.results.get(socket)
    return next((step.outputs[socket] for step in steps if step.part.name == part), None)


def _list_sources(context: Rankings, query: int) -> list[Source]:
    chunks = context.chunks
    readings = chunks.readings
    return [
        Source(
            chunks.document_ids[row],
            readings[row],
            score,
            int(chunks.starts[row]),
            int(chunks.ends[row]),
            {key: value for key, value in chunks.get_metadata(row).items() if key != "document_id"},
        )
        for row, score in context.get_hits(query)
    ]


def _sum_usage(usage: Usages) -> Spent:
    stages = sum_by_stage(usage.values()).values()
    calls, tokens_in, tokens_out = (
        sum(int(getattr(each, name)[0]) for each in stages) for name in ("calls", "tokens_in", "tokens_out")
    )
    return Spent(calls, tokens_in, tokens_out, math.fsum(float(each.usd[0]) for each in stages))
