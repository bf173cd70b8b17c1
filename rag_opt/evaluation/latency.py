"""What a question really costs: a configuration timed one question at a time, nothing cached."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.components.stage import Stage
from rag_opt.console.screens import mute_screen
from rag_opt.records.documents import Documents, Queries, Query
from rag_opt.records.scores import Latency

if TYPE_CHECKING:
    from rag_opt.evaluation.evaluate import Questions
    from rag_opt.evaluation.pipelines import Products, RagPipeline

MOST = 50
FIRST, MORE, FEW = 20, 10, 5
"""Questions that are timed before it is looked whether they are enough, and between such looks.

The last where one question takes so long that the first ones would take more than LONG by far: a language model's.
"""

NARROW = 0.1
"""The reach of the median's interval, as a share of it, at which no more questions are timed for a report."""

LONG = 5.0
"""Seconds of timing after which a report takes what there is: on a busy machine no interval gets narrow."""


def time_pipeline(pipeline: RagPipeline, questions: Questions, narrow: float = 0.0) -> Latency:
    """The latency over the first questions, at most 50; the pipeline is of no other use afterwards.

    Where `narrow` is given fewer will do, from 20 on, or from 5 on where one takes a second: once the median's 95 %
    interval reaches no further than `narrow` times the median, or 5 seconds have passed.

    Indexes come from the pipeline's store, as they would be there when it is served; everything that depends on a
    question is computed anew.
    """
    index = pipeline.index_documents(questions.documents)
    # What the store has kept must not fake a latency.
    empty = Resources.from_store(Store())
    for part in pipeline.parts:
        if part.name in pipeline.querying.graph.nodes and isinstance(part.component, Stage):
            # Not those nested in it: an encoder keeps its loaded model.
            part.component.resources = empty
    # Each text once: a repeated one would be found in memory.
    asked = list({query.text: query for query in questions.queries.items}.values())[:MOST]
    # What there is to say of questions was said of all of them.
    with mute_screen():
        seconds = _time_queries(pipeline, questions.documents, asked, index, narrow)
    p50, p95 = np.percentile(seconds, [50, 95])
    return Latency(float(p50), float(p95), len(seconds))


def _time_queries(
    pipeline: RagPipeline, documents: Documents, asked: Sequence[Query], index: Products, narrow: float
) -> list[float]:
    """The seconds of each query, asked by itself, once it and those beside it were asked."""

    def warm_up(query: Query) -> float:
        # The first ones load models and touch indexes, and each length compiles kernels of its own. Another text, so
        # that nothing is known of the question when it is timed.
        start = time.perf_counter()
        pipeline.ask(Queries.from_items((replace(query, text=f"{query.text} "),)), documents, index)
        return time.perf_counter() - start

    seconds: list[float] = []
    while len(seconds) < len(asked) and not _is_enough(seconds, narrow):
        block = asked[len(seconds) :][: MORE if seconds else FIRST]
        # The lesser of two, since the first question also loads what it needs.
        if narrow and not seconds and min(map(warm_up, block[:2])) * FEW >= LONG:
            block = block[:FEW]
        for query in block:
            warm_up(query)
        seconds += [_time_query(pipeline, documents, query, index) for query in block]
    return seconds


def _time_query(pipeline: RagPipeline, documents: Documents, query: Query, index: Products) -> float:
    # Before the clock: warming up has left words and vectors in memory that no new question would find.
    for part in pipeline.parts:
        if isinstance(part.component, Stage):
            part.component.forget()
    start = time.perf_counter()
    pipeline.ask(Queries.from_items((query,)), documents, index)
    return time.perf_counter() - start


def _is_enough(seconds: Sequence[float], narrow: float) -> bool:
    """Whether the median's 95 % interval, from one observation to another (Conover 1999, 3.2), is within `narrow`."""
    if not seconds or not narrow:
        return False
    if sum(seconds) >= LONG:
        return True
    # How many lie below the median is binomial, its standard deviation √n / 2; 1.96 of these are 0.98 √n.
    count, reach = len(seconds), 0.98 * math.sqrt(len(seconds))
    low, high = np.sort(seconds)[[max(0, math.floor(count / 2 - reach)), min(count - 1, math.ceil(count / 2 + reach))]]
    middle = float(np.median(seconds))
    return bool(max(middle - low, high - middle) <= narrow * middle)
