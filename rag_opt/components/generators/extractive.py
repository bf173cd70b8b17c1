"""Generators: queries and their contexts → answers."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from haystack import component

from rag_opt.components.stage import Stage, require_whole
from rag_opt.records.documents import Ints, Queries
from rag_opt.records.keys import key_of
from rag_opt.records.products import Answers, Chunks, Rankings, total_tokens
from rag_opt.text.words import count_tokens, sentences, token_spans, words

if TYPE_CHECKING:
    from rag_opt.cache.artifacts import Columns
    from rag_opt.cache.store import Store


@dataclass(frozen=True)
class Sentence:
    """A sentence of a chunk, its distinct words, and how many tokens it has."""

    text: str
    words: frozenset[str]
    tokens: int

    @classmethod
    def of(cls, text: str) -> Sentence:
        return cls(text, frozenset(words(text)), count_tokens(text))


RANK_DISCOUNT = 0.1
"""How fast a sentence's worth falls with the rank r (from 0) of its chunk: 1 / (1 + 0.1 r)."""

REMEMBERED = 200_000
"""Pairs of query and chunk whose sentences' worth a Reader remembers; some 300 bytes each."""


@component
class Extractive(Stage):
    """The sentences of the retrieved chunks that share the most telling words with the query, up to `max_tokens`.

    A word tells as much as its inverse document frequency over the chunks. Needs no model: quality varies with what
    was retrieved, which is what a study of retrieval wants to see.
    """

    algorithm = "rag_opt.components.generators.Extractive"

    def __init__(self, max_tokens: int) -> None:
        require_whole("max_tokens", max_tokens)
        self.max_tokens = max_tokens

    @component.output_types(answers=Answers)
    def run(self, queries: Queries, context: Rankings, chunks: Chunks) -> dict[str, Answers]:
        key = key_of(self.fingerprint, queries.key, context.key)
        table = self.store.table("answers", key, lambda: self._columns(queries, context, chunks))
        costs = {**context.costs, key: float(table.columns["seconds"].mean()) if queries.items else 0.0}
        texts = tuple(table.columns["text"])
        tokens = table.columns["tokens"] + total_tokens(context.usage, len(texts))
        return {"answers": Answers(texts, tokens, key, costs, context.usage)}

    def _columns(self, queries: Queries, context: Rankings, chunks: Chunks) -> Columns:
        reader = self.store.live("reader", chunks.key, lambda: Reader(chunks), keep=2)
        texts, seconds = [], np.zeros(len(queries.items))
        for query, text in enumerate(queries.texts):
            read = context.texts_of(query)
            # Whoever answers for long has read the chunks.
            reader.read(read)
            start, spared = time.perf_counter(), reader.spared
            told = reader.by_worth(text, read)
            texts.append(within(told, self.max_tokens))
            # What was remembered counts as if it had been read now.
            seconds[query] = time.perf_counter() - start + reader.spared - spared
        return {"text": texts, "tokens": context_tokens(context, queries, self.store), "seconds": seconds}


class Reader:
    """Sentences of chunks by what they tell about a query; remembers what it has read, and the seconds `spared` so."""

    def __init__(self, chunks: Chunks) -> None:
        self.total = len(chunks)
        self.frequency = Counter(word for text in chunks.texts for word in set(words(text)))
        self._sentences: dict[str, list[Sentence]] = {}
        self._shared: OrderedDict[tuple[str, str], tuple[list[float], float]] = OrderedDict()
        self.spared = 0.0

    def by_worth(self, query: str, texts: list[str]) -> list[Sentence]:
        """The distinct sentences of these chunks that share a word with the query, the most telling first.

        When none does: the first sentence of the first chunk.
        """
        worth: dict[str, float] = {}
        first: dict[str, Sentence] = {}
        for rank, text in enumerate(texts):
            for sentence, shared in zip(self._read(text), self._telling(query, text), strict=True):
                first.setdefault(sentence.text, sentence)
                worth[sentence.text] = max(shared / (1 + RANK_DISCOUNT * rank), worth.get(sentence.text, 0.0))
        told = [text for text, value in worth.items() if value > 0]
        return [first[text] for text in sorted(told, key=lambda text: -worth[text]) or list(worth)[:1]]

    def read(self, texts: list[str]) -> None:
        """Cut these texts into sentences, and remember them."""
        for text in texts:
            self._read(text)

    def _read(self, text: str) -> list[Sentence]:
        if text not in self._sentences:
            self._sentences[text] = [Sentence.of(part) for part in sentences(text)]
        return self._sentences[text]

    def _telling(self, query: str, text: str) -> list[float]:
        """Per sentence of a chunk the summed weight of the query's words in it."""
        if (query, text) in self._shared:
            values, seconds = self._shared[query, text]
            self.spared += seconds
            return values
        start = time.perf_counter()
        weights = {word: math.log(1 + self.total / (1 + self.frequency[word])) for word in words(query)}
        values = [sum(weight for word, weight in weights.items() if word in each.words) for each in self._read(text)]
        self._shared[query, text] = values, time.perf_counter() - start
        if len(self._shared) > REMEMBERED:
            self._shared.popitem(last=False)
        return values


def context_tokens(ranking: Rankings, queries: Queries, store: Store) -> Ints:
    """Per query the tokens a reader is given: the question and the chunks found."""
    counts = _token_counts(ranking.chunks, store)
    asked = np.array([count_tokens(text) for text in queries.texts], np.int32)
    found: Ints = asked + counts[ranking.rows].sum(axis=1, dtype=np.int32)
    return found


def _token_counts(chunks: Chunks, store: Store) -> Ints:
    """The tokens of each chunk, and one more place for row -1: no chunk, no tokens."""

    def counted() -> Ints:
        known = _token_counts(chunks.base, store)[:-1] if chunks.base else np.zeros(0, np.int32)
        return np.array([*known, *map(count_tokens, chunks.texts[len(known) :]), 0], np.int32)

    return store.live("chunk tokens", chunks.key, counted)


def within(parts: Iterable[Sentence], max_tokens: int) -> str:
    """The parts joined in their order while they fit in `max_tokens`; a first part that does not fit is cut."""
    chosen: list[str] = []
    room = max_tokens
    for part in parts:
        if part.tokens <= room:
            chosen.append(part.text)
            room -= part.tokens
        elif not chosen:
            return part.text[: token_spans(part.text)[max_tokens - 1][1]]
    return " ".join(chosen)
