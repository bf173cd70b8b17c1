"""Sentence boundaries by Punkt, trained on the corpus itself (Kiss and Strunk 2006), so nothing is downloaded.

Punkt knows . ! and ?; the full stops of other scripts end a sentence, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.splitters.spans import BLANK_LINE, split_span, trim_span
from rag_opt.console.progress import track
from rag_opt.records.documents import Documents
from rag_opt.records.keys import compute_key
from rag_opt.text.tokenization import READING, Span, split_full_stops

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns
    from rag_opt.cache.store import Store

TRAINING_CHARACTERS = 5_000_000
"""Enough for stable abbreviations; training on more only takes longer."""

ABBREVIATION, COLLOCATION, STARTER, CONTEXT = range(4)
"""What a word is to Punkt: the last is a word whose capitals were counted."""


def get_sentences(documents: Documents, store: Store) -> list[list[Span]]:
    """Per document the spans of its sentences; a blank line always ends one."""
    return store.get_object("sentence lists", documents.key, lambda: _load_sentences(documents, store))


def _load_sentences(documents: Documents, store: Store) -> list[list[Span]]:
    key = compute_key("punkt", READING, documents.key)
    table = store.get_table("sentences", key, lambda: _build_columns(documents, store)).columns
    spans: list[list[Span]] = [[] for _ in documents.items]
    for row, start, end in zip(*(table[name].tolist() for name in ("rows", "starts", "ends")), strict=True):
        spans[row].append((start, end))
    return spans


def segment_texts(texts: list[str], documents: Documents, store: Store) -> list[list[str]]:
    """The sentences of each text, as the documents' own language and abbreviations have it; [] of an empty text."""
    punkt = _get_punkt(documents, store)
    return [
        [text[start:end] for start, end in _split_sentences(punkt, text, trim_span(text, (0, len(text))))]
        for text in texts
    ]


def _build_columns(documents: Documents, store: Store) -> Columns:
    found = list(_iter_sentences(documents, _get_punkt(documents, store)))
    columns = np.array(found, np.int32).reshape(-1, 3)
    return {name: np.ascontiguousarray(columns[:, i]) for i, name in enumerate(("rows", "starts", "ends"))}


def _get_punkt(documents: Documents, store: Store) -> Any:
    """Punkt for this corpus, which is trained on it once: what it has learnt is kept."""

    def known() -> Any:
        from nltk.tokenize.punkt import PunktSentenceTokenizer

        # Without READING: what Punkt learns does not depend on the rules by which words are cut.
        learnt = store.get_table(
            "punkt", compute_key("punkt parameters", documents.key), lambda: _train_punkt(documents)
        ).columns
        return PunktSentenceTokenizer(_build_parameters(learnt))

    return store.get_object("punkt", documents.key, known)


def _train_punkt(documents: Documents) -> Columns:
    """What Punkt learns from the corpus, a row for each word: what it is, itself, and what goes with it."""
    from nltk.tokenize.punkt import PunktTrainer

    trainer, seen = PunktTrainer(), 0
    wanted = min(TRAINING_CHARACTERS, sum(len(document.text) for document in documents.items))
    with track("learning where sentences end, characters", wanted) as advance:
        for document in documents.items:
            if seen > TRAINING_CHARACTERS:
                break
            # Finalised once, behind the last document: abbreviations are counted over all of them.
            trainer.train(document.text, finalize=False)
            seen += len(document.text)
            advance(len(document.text))
    trainer.finalize_training()
    found = trainer.get_params()
    # A table and no pickle, which could run code; sorted, since sets have another order in each process.
    rows = [(ABBREVIATION, word, "", 0) for word in sorted(found.abbrev_types)]
    rows += [(COLLOCATION, *pair, 0) for pair in sorted(found.collocations)]
    rows += [(STARTER, word, "", 0) for word in sorted(found.sent_starters)]
    rows += [(CONTEXT, word, "", count) for word, count in sorted(found.ortho_context.items())]
    kinds, words, others, counts = zip(*rows, strict=True) if rows else ((), (), (), ())
    numbers = {"kinds": np.array(kinds, np.int8), "counts": np.array(counts, np.int64)}
    return {**numbers, "words": list(words), "others": list(others)}


def _build_parameters(learnt: Columns) -> Any:
    from nltk.tokenize.punkt import PunktParameters

    found = PunktParameters()
    for kind, word, other, count in zip(
        learnt["kinds"].tolist(), learnt["words"], learnt["others"], learnt["counts"].tolist(), strict=True
    ):
        if kind == ABBREVIATION:
            found.abbrev_types.add(word)
        elif kind == COLLOCATION:
            found.collocations.add((word, other))
        elif kind == STARTER:
            found.sent_starters.add(word)
        else:
            found.ortho_context[word] = count
    return found


def _iter_sentences(documents: Documents, tokenizer: Any) -> Iterator[tuple[int, int, int]]:
    with track("sentences, documents", len(documents.items)) as advance:
        for row, document in enumerate(documents.items):
            # Punkt does not end a sentence at a blank line, so a heading would run on into its paragraph.
            for start, end in split_span(document.text, (0, len(document.text)), BLANK_LINE):
                yield from ((row, *span) for span in _split_sentences(tokenizer, document.text, (start, end)))
            advance(1)


def _split_sentences(punkt: Any, text: str, span: Span) -> Iterator[Span]:
    """The sentences of a span by Punkt, which knows . ! and ?, and by the full stops of other scripts."""
    for first, last in punkt.span_tokenize(text[span[0] : span[1]]):
        for part in split_full_stops(text, (span[0] + first, span[0] + last)):
            start, end = trim_span(text, part)
            if start < end:
                yield start, end
