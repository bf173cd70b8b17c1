"""Components as people write them: they know nothing of what is ranked behind what is handed on, and misspell."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from haystack import component

from rag_opt.components.stage import Stage
from rag_opt.records.documents import Queries
from rag_opt.records.products import Answers, Rankings


@component
class Shallow(Stage):
    """The two best chunks by BM25, and nothing behind them."""

    @component.output_types(ranking=Rankings)
    def run(self, bm25_ranking: Rankings) -> dict[str, Rankings]:
        rows, scores = bm25_ranking.rows[:, :2], bm25_ranking.scores[:, :2]
        return {"ranking": Rankings(bm25_ranking.chunks, rows, scores, f"shallow {bm25_ranking.key}")}


@component
class Limited(Stage):
    """As many of the best chunks by BM25 as it is told, and nothing behind them."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    @component.output_types(ranking=Rankings)
    def run(self, bm25_ranking: Rankings) -> dict[str, Rankings]:
        rows, scores = bm25_ranking.rows[:, : self.top_k], bm25_ranking.scores[:, : self.top_k]
        return {"ranking": Rankings(bm25_ranking.chunks, rows, scores, f"{self.top_k} {bm25_ranking.key}")}


@component
class Backwards(Stage):
    """The last three of the chunks that it is given, the last one first."""

    seen: ClassVar[list[int]] = []

    @component.output_types(ranking=Rankings)
    def run(self, ranking: Rankings) -> dict[str, Rankings]:
        self.seen.append(ranking.rows.shape[1])
        rows = np.ascontiguousarray(ranking.rows[:, ::-1][:, :3])
        scores = np.tile(np.array([3, 2, 1], np.float32), (len(rows), 1))
        return {"ranking": Rankings(ranking.chunks, rows, scores, f"backwards {ranking.key}")}


@component
class StartsSlowly(Stage):
    """An answerer that pays for each question and takes nine seconds for the first batch, a hundredth for others."""

    pays_per_query = True
    started: ClassVar[list[bool]] = []

    @component.output_types(answers=Answers)
    def run(self, queries: Queries, context: Rankings) -> dict[str, Answers]:
        seconds = 0.01 if self.started else 9.0
        self.started.append(True)
        count = len(queries.items)
        return {"answers": Answers(("yes",) * count, np.ones(count, np.int32), context.key, {context.key: seconds})}


@component
class ReordersSlowlyOnce(Stage):
    """The chunks as they are; the first call moves `clock` by `start` seconds, each other one by a fiftieth."""

    start: ClassVar[float] = 5.0
    clock: ClassVar[list[float]] = [0.0]
    started: ClassVar[list[bool]] = []
    pays_per_query = False

    @component.output_types(ranking=Rankings)
    def run(self, ranking: Rankings) -> dict[str, Rankings]:
        self.clock[0] += 0.02 if self.started else self.start
        self.started.append(True)
        return {"ranking": ranking}


# ---- with a mistake each


@component
class Misnamed(Stage):
    """The chunks as they are, which it takes and gives under names that it is told."""

    def __init__(self, takes: str, gives: str) -> None:
        self.takes, self.gives = takes, gives
        component.set_input_type(self, takes, Rankings)
        component.set_output_types(self, **{gives: Rankings})

    def run(self, **given: Rankings) -> dict[str, Rankings]:
        return {self.gives: given[self.takes]}


@component
class MisspeltOutput(Stage):
    @component.output_types(rankings=Rankings)
    def run(self, ranking: Rankings) -> dict[str, Rankings]:
        return {"rankings": ranking}


@component
class MisspeltInput(Stage):
    @component.output_types(ranking=Rankings)
    def run(self, rankings: Rankings) -> dict[str, Rankings]:
        return {"ranking": rankings}


@component
class MisspeltOption(Stage):
    @component.output_types(ranking=Rankings)
    def run(self, chunks: Any, rankings: Rankings | None = None) -> dict[str, Any]:
        return {"ranking": rankings}


@component
class ReadsAnything(Stage):
    @component.output_types(context=Rankings)
    def run(self, documents: Any, ranking: Rankings) -> dict[str, Any]:
        return {"context": ranking}


@component
class GivesTexts(Stage):
    @component.output_types(ranking=list[str])
    def run(self, ranking: Rankings) -> dict[str, Any]:
        return {"ranking": ranking}


@component
class Whitening(Stage):
    @component.output_types(vektors=Any)
    def run(self, vectors: Any) -> dict[str, Any]:
        return {"vektors": vectors}
