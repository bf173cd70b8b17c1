"""How BM25 reads texts: words of any script, less stop words, stemmed by Snowball."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import Stemmer

from rag_opt.components.checks import require
from rag_opt.text.tokenization import AUTO, DOTLESS, fold_text, get_script_pattern, split_words


@dataclass(frozen=True)
class Reading:
    """How a text is read into words: lists and rules of a language, and whose capitals are folded."""

    stopwords: str | None
    stemmer: str | None
    language: str = AUTO

    @property
    def capitals(self) -> str:
        """The language whose capitals the texts have: the stemmer's where none is told and that has its own."""
        return self.stemmer if self.language == AUTO and self.stemmer in DOTLESS else self.language


def check_reading(stemmer: str | None, stopwords: str | None, language: str) -> None:
    """Raise ValueError for a language that is not known."""
    known = Stemmer.algorithms()
    require(stemmer is None or stemmer in known, f"stemmer must be null or one of {', '.join(known)}, not {stemmer}")
    require(stopwords is None or _has_stopwords(stopwords), f"stopwords: bm25s has no list for '{stopwords}'")
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
    return [[stems.get(word, word) for word in each] for each in found]


def _stem_words(found: set[str], stemmer: str | None) -> dict[str, str]:
    if stemmer is None:
        return {}
    letter = get_script_pattern(stemmer)
    known = [word for word in found if letter.search(word)]
    return dict(zip(known, Stemmer.Stemmer(stemmer).stemWords(known), strict=True))


def _has_stopwords(language: str) -> bool:
    try:
        return bool(_get_stopwords(language))
    except ValueError:
        return False


def _get_stopwords(language: str | None) -> Iterable[str]:
    # Not a public name of bm25s; the tests compare with its own tokenizer, so they notice when it changes.
    from bm25s.tokenization import _infer_stopwords

    found: Iterable[str] = _infer_stopwords(language)
    return found
