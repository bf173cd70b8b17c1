"""Generators: queries and their contexts → answers."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.components.checks import require_whole
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Ints, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Answers, Chunks, Rankings, sum_tokens
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import count_tokens, find_token_spans, split_sentences, split_words

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns
    from rag_opt.cache.store import Store


@dataclass(frozen=True)
class Sentence:
    """A sentence of a chunk, its distinct words, and how many tokens it has."""

    text: str
    words: frozenset[str]
    tokens: int

    @classmethod
    def from_text(cls, text: str) -> Sentence:
        return cls(text, frozenset(split_words(text)), count_tokens(text))


RANK_DISCOUNT = 0.1
"""How fast a sentence's worth falls with the rank r (from 0) of its chunk: 1 / (1 + 0.1 r)."""

COUNTED = 16
"""Sets of chunks whose tokens are remembered."""

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
        key = compute_key(self.fingerprint, queries.key, context.key)
        table = self.store.get_table("answers", key, lambda: self._extract_answers(queries, context, chunks))
        costs = {**context.costs, key: float(table.columns["seconds"].mean()) if queries.items else 0.0}
        texts = tuple(table.columns["text"])
        tokens = table.columns["tokens"] + sum_tokens(context.usage, len(texts))
        return {"answers": Answers(texts, tokens, key, costs, context.usage)}

    def _extract_answers(self, queries: Queries, context: Rankings, chunks: Chunks) -> Columns:
        # A server keeps nothing of its questions, so nothing is remembered here.
        remembered = 0 if self.store.passing else REMEMBERED
        reader = self.store.get_object("reader", chunks.key, lambda: Reader(chunks, remembered), keep=2)
        texts, seconds = [], np.zeros(len(queries.items))
        for query, text in enumerate(queries.texts):
            read = context.get_texts(query)
            # Whoever answers for long has read the chunks.
            reader.split_texts(read)
            start, spared = time.perf_counter(), reader.spared
            told = reader.rank_sentences(text, read)
            texts.append(join_sentences(told, self.max_tokens))
            # What was remembered counts as if it had been read now.
            seconds[query] = time.perf_counter() - start + reader.spared - spared
        return {"text": texts, "tokens": count_context_tokens(context, queries, self.store), "seconds": seconds}


class Reader:
    """Sentences of chunks by what they tell about a query; remembers what it has read, and the seconds `spared` so."""

    def __init__(self, chunks: Chunks, remembered: int = REMEMBERED) -> None:
        self.remembered = remembered
        self.total = len(chunks)
        self.frequency = Counter(word for text in chunks.texts for word in set(split_words(text)))
        self._sentences: dict[str, list[Sentence]] = {}
        self._shared: OrderedDict[tuple[str, str], tuple[list[float], float]] = OrderedDict()
        self.spared = 0.0

    def rank_sentences(self, query: str, texts: list[str]) -> list[Sentence]:
        """The distinct sentences of these chunks that share a word with the query, the most telling first.

        When none does: the first sentence of the first chunk.
        """
        worth: dict[str, float] = {}
        first: dict[str, Sentence] = {}
        for rank, text in enumerate(texts):
            for sentence, shared in zip(self._split(text), self._score_sentences(query, text), strict=True):
                first.setdefault(sentence.text, sentence)
                worth[sentence.text] = max(shared / (1 + RANK_DISCOUNT * rank), worth.get(sentence.text, 0.0))
        told = [text for text, value in worth.items() if value > 0]
        # The sort is stable: of equals the one that was retrieved first comes first.
        return [first[text] for text in sorted(told, key=lambda text: -worth[text]) or list(worth)[:1]]

    def split_texts(self, texts: list[str]) -> None:
        """Cut these texts into sentences, and remember them."""
        for text in texts:
            self._split(text)

    def _split(self, text: str) -> list[Sentence]:
        if text not in self._sentences:
            self._sentences[text] = [Sentence.from_text(part) for part in split_sentences(text)]
        return self._sentences[text]

    def _score_sentences(self, query: str, text: str) -> list[float]:
        """Per sentence of a chunk the summed weight of the query's words in it."""
        if (query, text) in self._shared:
            values, seconds = self._shared[query, text]
            self.spared += seconds
            return values
        start = time.perf_counter()
        # Above 0 also for a word that every chunk has.
        weights = {word: math.log(1 + self.total / (1 + self.frequency[word])) for word in split_words(query)}
        values = [sum(weight for word, weight in weights.items() if word in each.words) for each in self._split(text)]
        self._shared[query, text] = values, time.perf_counter() - start
        if len(self._shared) > self.remembered:
            self._shared.popitem(last=False)
        return values


def count_context_tokens(ranking: Rankings, queries: Queries, store: Store) -> Ints:
    """Per query the tokens a reader is given, int32 [queries]: those of the question and of the chunks found."""
    counts = _count_chunk_tokens(ranking.chunks, store)
    asked = np.array([count_tokens(text) for text in queries.texts], np.int32)
    # Row -1, no chunk, reads the last place: 0.
    found: Ints = asked + counts[ranking.rows].sum(axis=1, dtype=np.int32)
    return found


def _count_chunk_tokens(chunks: Chunks, store: Store) -> Ints:
    """The tokens of each chunk, and one more place for row -1: no chunk, no tokens."""
    if chunks.base is not None:
        # What a question has added is kept by nobody: there would be such a list for each question.
        known = _count_chunk_tokens(chunks.base, store)[:-1]
        added = np.array([*map(count_tokens, chunks.texts[len(known) :]), 0], np.int32)
        return np.concatenate([known, added])
    # Passages put together for a question are chunks of their own, too.
    return store.get_object(
        "chunk tokens", chunks.key, lambda: np.array([*map(count_tokens, chunks.texts), 0], np.int32), keep=COUNTED
    )


def join_sentences(parts: Iterable[Sentence], max_tokens: int) -> str:
    """The parts joined in their order while they fit in `max_tokens`; a first part that does not fit is cut."""
    chosen: list[str] = []
    room = max_tokens
    for part in parts:
        if part.tokens <= room:
            chosen.append(part.text)
            room -= part.tokens
        elif not chosen:
            return part.text[: find_token_spans(part.text)[max_tokens - 1][1]]
    return " ".join(chosen)
