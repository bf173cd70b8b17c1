"""Answers against reference answers: each metric takes the best over a query's references.

An empty answer scores 0 (unless a reference is empty once normalised, which then matches). A query without references
can't be measured: nan. Values run from 0 to 1. Words are those of any script; where there are no spaces, characters
are words, as MLQA and DRCD have it (Lewis et al. 2020; Shao et al. 2018).
"""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import regex

from rag_opt.text.tokenization import fold_text, separate_characters, split_alphanumeric

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores

ARTICLES = regex.compile(r"\b(a|an|the)\b")
# SQuAD's script also drops what Unicode calls symbols: $ + < = > ^ ` | ~.
PUNCTUATION = regex.compile(rf"[\p{{P}}{regex.escape(string.punctuation)}]")

Pairwise = Callable[[str, str], float]

REMEMBERED = 50_000
"""Values kept for pairs of answer and reference: many configurations give the same answer to the same question."""


def normalize_answer(text: str) -> list[str]:
    """No case, no punctuation, no articles: the words that SQuAD compares (Rajpurkar et al. 2016)."""
    # In the order of SQuAD's script: articles are found once case and marks are gone.
    found: list[str] = separate_characters(ARTICLES.sub(" ", PUNCTUATION.sub("", fold_text(text)))).split()
    return found


def exact_match(answer: str, reference: str) -> float:
    """1 when both have the same words in the same order after SQuAD's normalisation."""
    return float(normalize_answer(answer) == normalize_answer(reference))


def token_f1(answer: str, reference: str) -> float:
    """The harmonic mean of word precision and recall after SQuAD's normalisation; two empty texts agree."""
    given, wanted = normalize_answer(answer), normalize_answer(reference)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    # What 2pr / (p + r) comes to, without its division by 0 where no word is common.
    return 2 * common / (len(given) + len(wanted))


def rouge_1(answer: str, reference: str) -> float:
    """F1 of stemmed words in common (Lin 2004), by rouge-score."""
    return float(_get_rouge().score(reference, answer)["rouge1"].fmeasure)


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of stemmed words (Lin 2004), by rouge-score."""
    return float(_get_rouge().score(reference, answer)["rougeL"].fmeasure)


@cache
def _get_rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    # Its own tokenizer keeps a to z and digits alone, so that an answer in Greek or Hindi would have no words.
    return RougeScorer(["rouge1", "rougeL"], tokenizer=_Stems())


class _Stems:
    """rouge-score's own reading of English, Porter's stems of words of more than three letters, in any script."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        # Most of its time goes into stemming the same words and reading the same references.
        self.tokenize = lru_cache(REMEMBERED)(self._tokenize)
        self._stem = lru_cache(REMEMBERED)(PorterStemmer().stem)

    def _tokenize(self, text: str) -> list[str]:
        return [self._stem(word) if len(word) > 3 and word.isascii() else word for word in split_alphanumeric(text)]


def bleu(answer: str, reference: str) -> float:
    """Sentence BLEU-4 with exponential smoothing (Papineni et al. 2002; Chen and Cherry 2014, method 3), by nltk."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    given, wanted = separate_characters(answer).split(), separate_characters(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    # An answer of fewer than four words has no 4-grams: over all four orders even its own reference would not score 1.
    order = min(4, len(given))
    return float(sentence_bleu([wanted], given, [1 / order] * order, SmoothingFunction().method3))


def chrf(answer: str, reference: str) -> float:
    """chrF2: F2 of character n-grams up to 6, spaces left out (Popović 2015, 2016), by sacrebleu."""
    if not answer.strip() or not reference.strip():
        return float(answer.strip() == reference.strip())
    # The same letter may be written as one character or as two.
    given, wanted = (unicodedata.normalize("NFC", text) for text in (answer, reference))
    # sacrebleu counts in percent.
    return float(_get_chrf().sentence_score(given, [wanted]).score) / 100


@cache
def _get_chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


PAIRWISE: dict[str, Pairwise] = {
    "EM": exact_match,
    "F1": token_f1,
    "ROUGE-1": rouge_1,
    "ROUGE-L": rouge_l,
    "BLEU": bleu,
    "chrF": chrf,
}


def score_answers(metric: Pairwise, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """The best value over each query's references; nan where there are none."""
    pairs = zip(answers, references, strict=True)
    score = _cache_metric(metric)
    values = [max((score(answer, each) for each in wanted), default=np.nan) for answer, wanted in pairs]
    return np.array(values, np.float64)


@cache
def _cache_metric(metric: Pairwise) -> Pairwise:
    # One for each metric that outlives the call: trials ask for the same pairs batch after batch.
    return lru_cache(REMEMBERED)(metric)


def similarity(
    encode: Callable[[list[str]], Any], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> Scores:
    """The greatest cosine similarity of answer and reference, at least 0, by the embedder `encode` (unit vectors)."""
    texts = [*answers, *(text for wanted in references for text in wanted)]
    vectors = encode(texts)
    values, start = [], len(answers)
    for row, wanted in enumerate(references):
        mine = vectors[start : start + len(wanted)]
        start += len(wanted)
        # An encoder has a vector for an empty answer as well, and it may lie anywhere.
        empty = 0.0 if len(wanted) else np.nan
        values.append(max(0.0, float((mine @ vectors[row]).max())) if answers[row].strip() and len(wanted) else empty)
    return np.array(values, np.float64)
