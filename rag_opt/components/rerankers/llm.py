"""Reranking by a language model: windows of passages put in order, or each passage judged by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.checks import require, require_whole
from rag_opt.components.llm.prompts import Prompt, build_messages, check_prompt, number_texts
from rag_opt.components.llm.reply_text import parse_integer
from rag_opt.components.llm.request import Request, Sampling, check_model
from rag_opt.components.ranking import score_by_rank, split_ranking, stack_rankings
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Ints, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Rankings
from rag_opt.system.haystack import component

if TYPE_CHECKING:
    from rag_opt.components.llm.chat import Chat
    from rag_opt.components.llm.talks import Talk

GREATEST = 10
"""The greatest relevance a single passage is given."""

GRADES = {
    "type": "object",
    "properties": {"relevance": {"type": "integer", "minimum": 0, "maximum": GREATEST}},
    "required": ["relevance"],
    "additionalProperties": False,
}
ORDER = {
    "type": "object",
    "properties": {"ranking": {"type": "array", "items": {"type": "integer"}}},
    "required": ["ranking"],
    "additionalProperties": False,
}


class LLMReranker(Stage):
    """Common to both: a query's chunks in a new order; scores are 1 / rank, since orders have no others."""

    pays_per_query = True
    handing = ("keep",)

    chat: Chat
    keep: int | None

    def _rerank(
        self, queries: Queries, ranking: Rankings, order: Callable[[Talk, str, list[str]], list[int]]
    ) -> Rankings:
        def work(talk: Talk, row: int) -> Ints:
            found = ranking.rows[row][ranking.rows[row] >= 0]
            places = order(talk, queries.texts[row], ranking.get_texts(row)) if len(found) else []
            return np.array(found[places], np.int32)

        talks = self.chat.map_items("reranker", work, range(len(queries.items)))
        rows, scores, rest = split_ranking(
            stack_rankings(map(score_by_rank, talks.results), ranking.rows.shape[1]), self.keep
        )
        # What calls gave is in the key: one that failed now may not fail the next time.
        key = compute_key(self.fingerprint, queries.key, ranking.key, rows.tolist())
        cost, usage = {key: talks.seconds}, {key: talks.usage}
        return Rankings(ranking.chunks, rows, scores, key, cost, usage, rest).add_costs(ranking)


@component
class ListwiseReranker(LLMReranker):
    """RankGPT (Sun et al. 2023, arXiv 2304.09542): windows from the ranking's end to its beginning, each put in order.

    `window` passages at a time; the next window begins `step` places higher, so the best are carried upwards.
    """

    algorithm = "rag_opt.components.llm_rerankers.ListwiseReranker"

    def __init__(self, chat: Chat, model: str, prompt: Prompt, window: int, step: int, keep: int | None = None) -> None:
        require_whole("window", window, 2)
        require_whole("step", step)
        # With a greater step the passages between two windows would never be read.
        require(step <= window, f"step must be at most window = {window}, not {step}")
        if keep is not None:
            require_whole("keep", keep)
        check_model(model)
        check_prompt(prompt, {"user": ("question", "documents", "count")})
        self.chat = chat
        self.model = model
        self.prompt = prompt
        self.window = window
        self.step = step
        self.keep = keep
        # Enough for `window` numbers as a grammar counts them (PER_ITEM and SPARE of components/llm/grammar.py).
        self._sampling = Sampling(max_tokens=8 * window + 32)

    @component.output_types(ranking=Rankings)
    def run(self, queries: Queries, ranking: Rankings) -> dict[str, Rankings]:
        return {"ranking": self._rerank(queries, ranking, self._rank_passages)}

    def _rank_passages(self, talk: Talk, question: str, texts: list[str]) -> list[int]:
        def best_first(places: Sequence[int]) -> list[int]:
            count = len(places)
            asked = build_messages(
                self.prompt,
                question=question,
                documents=number_texts(texts[place] for place in places),
                count=str(count),
            )
            example = str({"ranking": list(range(1, count + 1))}).replace("'", '"')
            request = Request(self.model, asked, self._sampling, ORDER, example=example)
            # Where nothing can be read the window keeps its order.
            found = talk.ask_json(request, lambda said: parse_permutation(said, count)) or range(count)
            return [places[place] for place in found]

        return slide_windows(len(texts), self.window, self.step, best_first)


def slide_windows(count: int, window: int, step: int, order: Callable[[Sequence[int]], list[int]]) -> list[int]:
    """Places 0 … count - 1 after `order` has put each window of them in order, from the last window to the first."""
    places = list(range(count))
    end = count
    while True:
        start = max(0, end - window)
        if end - start > 1:
            places[start:end] = order(places[start:end])
        if start == 0:
            return places
        end -= step


def parse_permutation(said: Any, count: int) -> list[int] | None:
    """Places 0 … count - 1 as {"ranking": [1, …, count]} has them; None when it names no passage at all.

    What it repeats or invents is left out, what it leaves out follows in its old order, as in RankGPT.
    """
    found = said.get("ranking") if isinstance(said, dict) else None
    if not isinstance(found, list):
        return None
    numbers = [number for each in found if (number := parse_integer(each)) is not None]
    known = dict.fromkeys(number - 1 for number in numbers if 1 <= number <= count)
    return [*known, *(place for place in range(count) if place not in known)] if known else None


@component
class PointwiseReranker(LLMReranker):
    """Each passage judged by itself, from 0 to 10; equal ones keep their order. One call a passage."""

    algorithm = "rag_opt.components.llm_rerankers.PointwiseReranker"

    def __init__(self, chat: Chat, model: str, prompt: Prompt, keep: int | None = None) -> None:
        if keep is not None:
            require_whole("keep", keep)
        check_model(model)
        check_prompt(prompt, {"user": ("question", "document")})
        self.chat = chat
        self.model = model
        self.prompt = prompt
        self.keep = keep
        self._sampling = Sampling(max_tokens=32)

    @component.output_types(ranking=Rankings)
    def run(self, queries: Queries, ranking: Rankings) -> dict[str, Rankings]:
        return {"ranking": self._rerank(queries, ranking, self._rank_passages)}

    def _rank_passages(self, talk: Talk, question: str, texts: list[str]) -> list[int]:
        grades = [self._grade(talk, question, text) for text in texts]
        return sorted(range(len(texts)), key=lambda place: -grades[place])

    def _grade(self, talk: Talk, question: str, text: str) -> int:
        asked = build_messages(self.prompt, question=question, document=text)
        request = Request(self.model, asked, self._sampling, GRADES, example='{"relevance": 5}')
        # A passage that could not be judged stands behind those that were.
        found = talk.ask_json(request, parse_grade)
        return -1 if found is None else found


def parse_grade(said: Any) -> int | None:
    """The relevance of {"relevance": 0 … 10}; None where it is anything else."""
    found = parse_integer(said.get("relevance")) if isinstance(said, dict) else None
    return found if found is not None and 0 <= found <= GREATEST else None
