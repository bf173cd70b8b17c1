"""A configuration as a Haystack pipeline that one asks: a question in, documents and an answer out."""

from __future__ import annotations

from typing import Any

from rag_opt.config.compose import Words, compose_config
from rag_opt.config.trial import build_trial_config
from rag_opt.datasets.checks import get_corpus
from rag_opt.evaluation.evaluator import build_resources, load_dataset
from rag_opt.evaluation.pipelines import Products, RagPipeline, build_pipeline
from rag_opt.records.documents import Documents, Queries, Query
from rag_opt.system.haystack import Document as HaystackDocument
from rag_opt.system.haystack import Pipeline, component


@component
class Asked:
    """Asks a RagPipeline one question: the same components, on a batch of one, that a study measured."""

    def __init__(self, pipeline: RagPipeline, documents: Documents, index: Products) -> None:
        self.pipeline = pipeline
        self.documents = documents
        self.index = index

    @component.output_types(documents=list[HaystackDocument], answer=str | None)
    def run(self, query: str) -> dict[str, Any]:
        """The chunks that are read, best first, as Haystack documents, and the answer (None without a generator)."""
        asked = Queries.from_items((Query("question", query.strip()),))
        found = self.pipeline.ask(asked, self.documents, self.index)
        chunks, answers = found["context"].chunks, found.get("answers")
        read = [
            HaystackDocument(content=chunks.texts[row], score=float(score), meta=chunks.get_metadata(row))
            for row, score in found["context"].get_hits(0)
        ]
        return {"documents": read, "answer": answers.texts[0] if answers is not None else None}


def build_query_pipeline(words: Words) -> Pipeline:
    """A Haystack pipeline of the configuration of these overrides, its documents indexed.

    `pipeline.run({"query": "…"})` gives {"rag": {"documents": […], "answer": …}}. Raises a RagOptError.
    """
    config = compose_config(words)
    built = build_pipeline(build_trial_config(config, words), build_resources(config))
    documents = get_corpus(load_dataset(config))
    pipeline = Pipeline()
    pipeline.add_component("rag", Asked(built, documents, built.index_documents(documents)))
    return pipeline
