"""What a question really costs: a configuration timed one question at a time, nothing cached."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.components.stage import Stage
from rag_opt.console.progress import hushed
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.pipelines import Products, RagPipeline
from rag_opt.records.documents import Documents, Queries, Query
from rag_opt.records.measured import Latency

MOST = 50


def timed(pipeline: RagPipeline, questions: Questions, most: int = MOST) -> Latency:
    """The latency over the first `most` questions; the pipeline is of no other use afterwards.

    Indexes come from the pipeline's store, as they would be there when it is served; everything that depends on a
    question is computed anew.
    """
    index = pipeline.index(questions.documents)
    empty = Resources.of(Store())
    for part in pipeline.parts:
        if part.name in pipeline.querying.graph.nodes and isinstance(part.component, Stage):
            # Not those nested in it: an encoder keeps its loaded model.
            part.component.resources = empty
    # Each text once: a repeated one would be found in memory.
    asked = list({query.text: query for query in questions.queries.items}.values())[:most]
    # What there is to say of questions was said of all of them.
    with hushed():
        seconds = _asked(pipeline, questions.documents, asked, index)
    p50, p95 = np.percentile(seconds, [50, 95])
    return Latency(float(p50), float(p95), len(seconds))


def _asked(pipeline: RagPipeline, documents: Documents, asked: Sequence[Query], index: Products) -> list[float]:
    """The seconds of each query, asked by itself, once all of them were asked."""
    for query in asked:
        # The first ones load models and touch indexes, and each length compiles kernels of its own. Another text, so
        # that nothing is known of the question when it is timed.
        pipeline.ask(Queries.of((replace(query, text=f"{query.text} "),)), documents, index)
    seconds = []
    for query in asked:
        for part in pipeline.parts:
            if isinstance(part.component, Stage):
                part.component.forget()
        start = time.perf_counter()
        pipeline.ask(Queries.of((query,)), documents, index)
        seconds.append(time.perf_counter() - start)
    return seconds
