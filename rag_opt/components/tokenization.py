"""How BM25 reads texts: words of any script, less stop words, stemmed by Snowball."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import regex
import Stemmer

from rag_opt.components.checks import require
from rag_opt.records.keys import drop_added
from rag_opt.text.tokenization import AUTO, DOTLESS, fold_text, get_script_pattern, split_words

SPOKEN = ("english", "german", "dutch", "french", "spanish", "portuguese", "italian", "russian", "swedish", "norwegian")
"""Languages that have both a stemmer and a list of stop words."""

LEAST = 0.1
"""The share of words that are a language's stop words from which a text is taken to be in it: texts have 0.3 to 0.5."""

SAMPLE, LONG = 500, 2_000
"""So many texts, and so many characters of each, tell the language."""

MARK = regex.compile(r"\p{Mn}+")


@dataclass(frozen=True)
class Reading:
    """How a text is read into words: lists and rules of a language, whose capitals are folded, whether accents count.

    Stop words and stemmer may be AUTO: those of the language that the corpus is in.
    """

    stopwords: str | None
    stemmer: str | None
    language: str = AUTO
    accents: bool = True

    @property
    def capitals(self) -> str:
        """The language whose capitals the texts have: the stemmer's where none is told and that has its own."""
        return self.stemmer if self.language == AUTO and self.stemmer in DOTLESS else self.language

    @property
    def key(self) -> dict[str, Any]:
        """What stands for it in keys."""
        # Stemmed by its own letters only since then: what an earlier version has read was not stemmed at all.
        return drop_added(vars(self)) | ({"persian": 2} if self.stemmer == "persian" else {})

    def resolve(self, texts: Sequence[str]) -> Reading:
        """The same for texts of the language that most of these are in; without list and stemmer where that is none."""
        if AUTO not in (self.stopwords, self.stemmer):
            return self
        found = detect_language(texts) or None
        stopwords, stemmer = (found if each == AUTO else each for each in (self.stopwords, self.stemmer))
        return replace(self, stopwords=stopwords, stemmer=stemmer)


def detect_language(texts: Sequence[str]) -> str:
    """The language of SPOKEN whose stop words make up most of the words of these texts; "" where none does."""
    chosen = texts[:: max(1, len(texts) // SAMPLE)]
    words = Counter(word for text in chosen for word in split_words(text[:LONG]))
    total = max(1, words.total())
    shares = {
        language: sum(words[fold_text(stop)] for stop in set(_get_stopwords(language))) / total for language in SPOKEN
    }
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= LEAST else ""


def check_reading(stemmer: str | None, stopwords: str | None, language: str) -> None:
    """Raise ValueError for a language that is not known."""
    known = Stemmer.algorithms()
    known_or_auto = stemmer is None or stemmer in (AUTO, *known)
    require(known_or_auto, f"stemmer must be null, auto or one of {', '.join(known)}, not {stemmer}")
    require(stopwords in (None, AUTO) or _has_stopwords(stopwords), f"stopwords: bm25s has no list for '{stopwords}'")
    spoken = sorted({AUTO, *known, *DOTLESS})
    require(language in spoken, f"language must be one of {', '.join(spoken)}, not {language}")


def tokenize_texts(texts: Iterable[str], reading: Reading) -> list[list[str]]:
    """The words of each text: two characters or more, no stop words, stems.

    A stemmer is given what is written in its language's script. English as bm25s reads it.
    """
    language = reading.capitals
    # Folded as the texts are, or a stop word with a mark or a special letter would never match.
    stops = {fold_text(word, language) for word in _get_stopwords(reading.stopwords)}
    found = [[word for word in split_words(text, language, 2) if word not in stops] for text in texts]
    stems = _stem_words({word for each in found for word in each}, reading.stemmer)
    if not reading.accents:
        # Behind the stemmer, whose rules know them.
        stems = {word: _strip_accents(stems.get(word, word)) for each in found for word in each}
    return [[stems.get(word, word) for word in each] for each in found]


def _strip_accents(word: str) -> str:
    return word if word.isascii() else unicodedata.normalize("NFC", MARK.sub("", unicodedata.normalize("NFD", word)))


def _stem_words(found: set[str], stemmer: str | None) -> dict[str, str]:
    if stemmer is None:
        return {}
    letter = get_script_pattern(stemmer)
    known = [word for word in found if letter.search(word)]
    return dict(zip(known, Stemmer.Stemmer(stemmer).stemWords(known), strict=True))


def _has_stopwords(language: str | None) -> bool:
    try:
        return bool(_get_stopwords(language))
    except ValueError:
        return False


def _get_stopwords(language: str | None) -> Iterable[str]:
    # Not a public name of bm25s; the tests compare with its own tokenizer, so they notice when it changes.
    from bm25s.tokenization import _infer_stopwords

    found: Iterable[str] = _infer_stopwords(language)
    return found
