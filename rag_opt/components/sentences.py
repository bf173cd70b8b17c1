"""Sentence boundaries by Punkt, trained on the corpus itself (Kiss and Strunk 2006), so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rag_opt.artifacts import Columns
from rag_opt.components.spans import BLANK_LINE, Span, between
from rag_opt.keys import key_of
from rag_opt.records import Documents
from rag_opt.store import Store

TRAINING_CHARACTERS = 5_000_000
"""Enough for stable abbreviations; training on more only takes longer."""


def sentences_of(documents: Documents, store: Store) -> list[list[Span]]:
    """Per document the spans of its sentences; a blank line always ends one."""
    return store.live("sentence lists", documents.key, lambda: _lists(documents, store))


def _lists(documents: Documents, store: Store) -> list[list[Span]]:
    table = store.table("sentences", key_of("punkt", documents.key), lambda: _columns(documents)).columns
    spans: list[list[Span]] = [[] for _ in documents.items]
    for row, start, end in zip(*(table[name].tolist() for name in ("rows", "starts", "ends")), strict=True):
        spans[row].append((start, end))
    return spans


def sentences_in(texts: list[str], documents: Documents, store: Store) -> list[list[str]]:
    """The sentences of each text, as the documents' own language and abbreviations have it; [] of an empty text."""
    punkt = store.live("punkt", documents.key, lambda: _trained(documents))
    return [[part for part in punkt.tokenize(text.strip()) if part.strip()] for text in texts]


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
            for first, last in tokenizer.span_tokenize(document.text[start:end]):
                yield row, start + first, start + last
