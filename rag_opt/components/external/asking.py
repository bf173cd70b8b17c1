"""Questions put to something of one's own, each once: what it gave is kept, what failed is missing, with the reason."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rag_opt.components.external.found import Found, QuestionError, dump_found, format_reason, load_found
from rag_opt.components.external.gold import Corpus, build_rankings, check_gold
from rag_opt.components.generators.extractive import count_context_tokens
from rag_opt.components.resources import Resources
from rag_opt.errors import ComponentError, RagOptError
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.llm.replies import Reply
from rag_opt.records.documents import Documents, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Answers, Rankings, Usage, Usages, sum_tokens
from rag_opt.system import deadlines, signals

STAGE = "pipeline"
Ask = Callable[[str], tuple[Found, float, tuple[int, int]]]
"""What a question gave, the seconds that it took, and the tokens to enter as paid; it raises whatever went wrong."""


@dataclass(frozen=True)
class Asked:
    """A question's result, None where it failed, with the reason."""

    found: Found | None
    seconds: float
    reason: str = ""


def answer_queries(
    resources: Resources,
    named: str,
    key: str,
    queries: Queries,
    documents: Documents,
    ask: Ask,
    *,
    at_once: int = 1,
    gold: str | None = None,
    keep: bool = True,
) -> tuple[Rankings, Answers]:
    """The rankings and answers of these queries, `at_once` asked at a time.

    `key` stands for what is asked, with all of its parameters; what it gives is kept, unless `keep` is false. Raises
    ComponentError where every question failed, or where nothing that is found is of the corpus.
    """

    def work(text: str) -> Asked:
        return _ask_once(resources, compute_key("external", key, text), text, ask, keep=keep)

    if at_once == 1:
        asked = [work(text) for text in queries.texts]
    else:
        with ThreadPoolExecutor(at_once) as pool:
            asked = list(pool.map(work, queries.texts))
    _report_failed(resources, named, asked)
    corpus = _get_corpus(resources, documents, gold)
    found = [_drop_own(each.found, corpus, query.own) for each, query in zip(asked, queries.items, strict=True)]
    check_gold(found, corpus, [each.id for each in documents.items], named)
    if all(each is None or each.documents is None for each in found):
        resources.notices.report_once(f"{named} gives no documents: what measures a ranking is 0 for each question")
    # By what came, too: a question that failed is asked again, and what draws at random gives something else.
    came = [None if each is None else dump_found(each) for each in found]
    made = compute_key("external", key, queries.key, documents.key, came)
    costs, usage = {made: _compute_median(asked)}, _sum_usage(made, found)
    rankings = replace(build_rankings(found, corpus, made), costs=costs, usage=usage)
    # Where nothing ever answers there is nothing to measure; where something does, silence is an answer.
    answers = any(each is not None and each.answer is not None for each in found)
    texts = tuple((each.answer or "") if each is not None and answers else None for each in found)
    # Where it does not say what a model has read, what it hands on counts, as of any pipeline.
    tokens = sum_tokens(usage, len(found)) if usage else count_context_tokens(rankings, queries, resources.store)
    return rankings, Answers(texts, tokens, made, costs, usage)


def _drop_own(found: Found | None, corpus: Corpus, own: str) -> Found | None:
    """The result less the document that the query is itself, which is no hit."""
    if found is None or not own or not found.documents:
        return found
    if (row := corpus.rows.get(own)) is None:
        return found
    return replace(found, documents=tuple(each for each in found.documents if corpus.find_row(each) != row))


def _ask_once(resources: Resources, key: str, text: str, ask: Ask, *, keep: bool) -> Asked:
    """The kept result of a question, else a new one; a failure is not kept, since another try may succeed."""
    replies = resources.llm.replies
    kept = replies.get(key) if keep else None
    if kept is not None and kept.text is not None:
        return Asked(load_found(kept.text), kept.seconds)
    resources.llm.check_budget()
    signals.check_ending()
    try:
        found, seconds, paid = ask(text)
    except (BudgetSpentError, RagOptError, MemoryError):
        # None of these is the question's own fault, and the next one would meet it as well.
        raise
    except Exception as error:
        # It is not ours, and may fail in any way.
        return Asked(None, 0.0, format_reason(error))
    reply = Reply(dump_found(found), found.tokens_in, found.tokens_out, seconds)
    if keep:
        replies.put(key, reply)
    if any(paid):
        # Less than it counts, where calls of its components were kept.
        # Which model it has asked is not known, so neither is the price.
        resources.llm.record_payment(STAGE, Reply(None, *paid, seconds), math.nan, 0)
    return Asked(found, seconds)


def _report_failed(resources: Resources, named: str, asked: Sequence[Asked]) -> None:
    reasons = Counter(each.reason for each in asked if each.found is None)
    if not reasons:
        return
    reason, _ = reasons.most_common(1)[0]
    count = sum(reasons.values())
    if count == len(asked):
        raise ComponentError(f"{named}: every question failed ({count}): {reason}")
    resources.notices.report_once(f"{named}: {count} of {len(asked)} questions failed and are missing: {reason}")


def _get_corpus(resources: Resources, documents: Documents, gold: str | None) -> Corpus:
    key = compute_key(documents.key, gold)
    return resources.store.get_object("corpus", key, lambda: Corpus(documents, gold), keep=2)


def _compute_median(asked: Sequence[Asked]) -> float:
    seconds = [each.seconds for each in asked if each.found is not None]
    return float(np.median(seconds)) if seconds else 0.0


def _sum_usage(key: str, found: Sequence[Found | None]) -> Usages:
    """What its own calls to models cost, as far as it says so; {} where it says nothing."""
    tokens_in, tokens_out = (
        np.array([getattr(each, name, 0) for each in found], np.int32) for name in ("tokens_in", "tokens_out")
    )
    count, spent = len(found), tokens_in + tokens_out > 0
    usd = np.where(spent, np.nan, 0.0)
    if not spent.any():
        return {}
    return {key: Usage(STAGE, spent.astype(np.int32), tokens_in, tokens_out, usd, np.zeros(count, np.int32))}


def run_within(work: Callable[[], Any], seconds: float) -> tuple[Any, float]:
    """What `work()` gives, and how long it took; raises QuestionError where that is longer than `seconds`."""
    start = time.perf_counter()
    try:
        value = deadlines.run_within(seconds, work)
    except deadlines.OverdueError:
        raise QuestionError(f"it took longer than pipeline.timeout={seconds:g} seconds") from None
    return value, time.perf_counter() - start
