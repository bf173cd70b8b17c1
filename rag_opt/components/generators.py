"""Generators: queries and their contexts → answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from haystack import component

from rag_opt.components.stage import Stage, require_whole
from rag_opt.keys import key_of
from rag_opt.records import Answers, Chunks, Ints, Queries, Rankings
from rag_opt.store import Columns, Store
from rag_opt.text import TOKEN, count_tokens, sentences, words

Sentences = list[tuple[str, frozenset[str]]]
"""The sentences of a chunk, each with its words."""

RANK_DISCOUNT = 0.1
"""How fast a sentence's worth falls with the rank r (from 0) of its chunk: 1 / (1 + 0.1 r)."""


@component
class Extractive(Stage):
    """The sentences of the retrieved chunks that share the most telling words with the query, up to `max_tokens`.

    A word tells as much as its inverse document frequency over the chunks. Needs no model: quality varies with what
    was retrieved, which is what a study of retrieval wants to see.
    """

    def __init__(self, max_tokens: int) -> None:
        require_whole("max_tokens", max_tokens)
        self.max_tokens = max_tokens

    @component.output_types(answers=Answers)
    def run(self, queries: Queries, ranking: Rankings) -> dict[str, Answers]:
        key = key_of(self.fingerprint, queries.key, ranking.key)
        table = self.store.table("answers", key, lambda: self._columns(queries, ranking))
        seconds = ranking.seconds + table.seconds / max(1, len(queries.items))
        return {"answers": Answers(tuple(table.columns["text"]), table.columns["tokens"], key, seconds)}

    def _columns(self, queries: Queries, ranking: Rankings) -> Columns:
        chunks = ranking.chunks
        frequency = self.store.live("document frequencies", chunks.key, lambda: _frequencies(chunks.texts))
        read: dict[int, Sentences] = self.store.live("chunk sentences", chunks.key, dict)
        texts = []
        for query, text in enumerate(queries.texts):
            weights = _weights(words(text), frequency, len(chunks))
            contexts = [_read(chunks, row, read) for row, _ in ranking.hits(query)]
            texts.append(within(_by_worth(contexts, weights), self.max_tokens))
        return {"text": texts, "tokens": context_tokens(ranking, queries, self.store)}


def context_tokens(ranking: Rankings, queries: Queries, store: Store) -> Ints:
    """Per query the tokens a reader is given: the question and the chunks found."""
    chunks = ranking.chunks
    # One more place, for row -1: no chunk, no tokens.
    counts = store.live("chunk tokens", chunks.key, lambda: np.array([*map(count_tokens, chunks.texts), 0], np.int32))
    asked = np.array([count_tokens(text) for text in queries.texts], np.int32)
    found: Ints = asked + counts[ranking.rows].sum(axis=1, dtype=np.int32)
    return found


def within(parts: Iterable[str], max_tokens: int) -> str:
    """The parts joined in their order while they fit in `max_tokens`; a first part that does not fit is cut."""
    chosen: list[str] = []
    room = max_tokens
    for part in parts:
        needed = count_tokens(part)
        if needed <= room:
            chosen.append(part)
            room -= needed
        elif not chosen:
            ends = [found.end() for found in TOKEN.finditer(part)]
            return part[: ends[max_tokens - 1]]
    return " ".join(chosen)


def _frequencies(texts: list[str]) -> Counter[str]:
    return Counter(word for text in texts for word in set(words(text)))


def _weights(query: list[str], frequency: Mapping[str, int], total: int) -> dict[str, float]:
    return {word: math.log(1 + total / (1 + frequency.get(word, 0))) for word in query}


def _read(chunks: Chunks, row: int, read: dict[int, Sentences]) -> Sentences:
    if row not in read:
        read[row] = [(sentence, frozenset(words(sentence))) for sentence in sentences(chunks.texts[row])]
    return read[row]


def _by_worth(contexts: list[Sentences], weights: Mapping[str, float]) -> list[str]:
    """The contexts' distinct sentences that share a word with the query, the most telling first."""
    worth: dict[str, float] = {}
    for rank, context in enumerate(contexts):
        for sentence, inside in context:
            shared = sum(weight for word, weight in weights.items() if word in inside)
            worth[sentence] = max(shared / (1 + RANK_DISCOUNT * rank), worth.get(sentence, 0.0))
    told = [sentence for sentence, value in worth.items() if value > 0]
    return sorted(told, key=lambda sentence: -worth[sentence]) or list(worth)[:1]
