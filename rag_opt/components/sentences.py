"""Sentence boundaries by Punkt, trained on the corpus itself (Kiss and Strunk 2006), so nothing is downloaded.

Punkt knows . ! and ?; the full stops of other scripts end a sentence, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rag_opt.artifacts import Columns
from rag_opt.components.spans import BLANK_LINE, between, trimmed
from rag_opt.keys import key_of
from rag_opt.records import Documents
from rag_opt.store import Store
from rag_opt.text import READING, Span, full_stops

TRAINING_CHARACTERS = 5_000_000
"""Enough for stable abbreviations; training on more only takes longer."""


def sentences_of(documents: Documents, store: Store) -> list[list[Span]]:
    """Per document the spans of its sentences; a blank line always ends one."""
    return store.live("sentence lists", documents.key, lambda: _lists(documents, store))


def _lists(documents: Documents, store: Store) -> list[list[Span]]:
    table = store.table("sentences", key_of("punkt", READING, documents.key), lambda: _columns(documents)).columns
    spans: list[list[Span]] = [[] for _ in documents.items]
    for row, start, end in zip(*(table[name].tolist() for name in ("rows", "starts", "ends")), strict=True):
        spans[row].append((start, end))
    return spans


def sentences_in(texts: list[str], documents: Documents, store: Store) -> list[list[str]]:
    """The sentences of each text, as the documents' own language and abbreviations have it; [] of an empty text."""
    punkt = store.live("punkt", documents.key, lambda: _trained(documents))
    return [[text[start:end] for start, end in _cut(punkt, text, trimmed(text, (0, len(text))))] for text in texts]


def _columns(documents: Documents) -> Columns:
    found = list(_sentences(documents))
    columns = np.array(found, np.int32).reshape(-1, 3)
    return {name: np.ascontiguousarray(columns[:, i]) for i, name in enumerate(("rows", "starts", "ends"))}


def _trained(documents: Documents) -> Any:
    from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

    trainer = PunktTrainer()
    seen = 0
    for document in documents.items:
        if seen > TRAINING_CHARACTERS:
            break
        trainer.train(document.text, finalize=False)
        seen += len(document.text)
    trainer.finalize_training()
    return PunktSentenceTokenizer(trainer.get_params())


def _sentences(documents: Documents) -> Iterator[tuple[int, int, int]]:
    tokenizer = _trained(documents)
    for row, document in enumerate(documents.items):
        for start, end in between(document.text, (0, len(document.text)), BLANK_LINE):
            yield from ((row, *span) for span in _cut(tokenizer, document.text, (start, end)))


def _cut(punkt: Any, text: str, span: Span) -> Iterator[Span]:
    """The sentences of a span by Punkt, which knows . ! and ?, and by the full stops of other scripts."""
    for first, last in punkt.span_tokenize(text[span[0] : span[1]]):
        for part in full_stops(text, (span[0] + first, span[0] + last)):
            start, end = trimmed(text, part)
            if start < end:
                yield start, end
