"""Answers and retrieved chunks against each other, by cosines of embeddings; no reference is needed.

`encode` gives unit vectors. Values run from 0 to 1; negative cosines count as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores

Encode = Callable[[list[str]], Any]
Split = Callable[[list[str]], list[list[str]]]


def coherence(encode: Encode, answers: Sequence[str], contexts: Sequence[Sequence[str]]) -> Scores:
    """The mean cosine of an answer and its chunks; 0 for an empty answer or without chunks."""
    vectors = _encode_distinct(encode, [*answers, *(text for texts in contexts for text in texts)])

    def score(answer: str, texts: Sequence[str]) -> float:
        if not answer.strip() or not texts:
            return 0.0
        return max(0.0, float(np.mean([vectors[text] @ vectors[answer] for text in texts])))

    return np.array([score(*pair) for pair in zip(answers, contexts, strict=True)], np.float64)


def diversity(encode: Encode, contexts: Sequence[Sequence[str]]) -> Scores:
    """1 less the mean cosine of all pairs of a query's chunks; 0 with fewer than two of them."""
    vectors = _encode_distinct(encode, [text for texts in contexts for text in texts])

    def score(texts: Sequence[str]) -> float:
        if len(texts) < 2:
            return 0.0
        rows = np.stack([vectors[text] for text in texts])
        # Above the diagonal: each pair once, none of a chunk with itself.
        pairs = np.triu_indices(len(texts), 1)
        return float(np.clip(1 - (rows @ rows.T)[pairs].mean(), 0.0, 1.0))

    return np.array([score(texts) for texts in contexts], np.float64)


def faithfulness(encode: Encode, split: Split, answers: Sequence[str], contexts: Sequence[Sequence[str]]) -> Scores:
    """How well the chunks bear an answer out: per sentence of it the nearest sentence's cosine, averaged.

    0 for an empty answer or without chunks. A sentence-wise embedding score as in SBERTScore; it sees topic and
    wording, not negation.
    """
    said = split(list(answers))
    read = split([text for texts in contexts for text in texts])
    places = np.cumsum([0, *(len(texts) for texts in contexts)]).tolist()
    given = [[one for part in read[start:end] for one in part] for start, end in pairwise(places)]
    vectors = _encode_distinct(encode, [one for parts in (*said, *given) for one in parts])

    def score(sentences: list[str], known: list[str]) -> float:
        if not sentences or not known:
            return 0.0
        rows = np.stack([vectors[one] for one in known])
        return float(np.mean([max(0.0, float((rows @ vectors[one]).max())) for one in sentences]))

    return np.array([score(*pair) for pair in zip(said, given, strict=True)], np.float64)


def _encode_distinct(encode: Encode, texts: Sequence[str]) -> dict[str, Any]:
    """The vector of each text, each encoded once."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, encode(distinct), strict=True)) if distinct else {}
