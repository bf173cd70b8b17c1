"""How texts are read, in any script, wherever words are compared, counted or cut.

Letters, marks and the ends of sentences are Unicode's (UAX 29, by the library regex). Scripts that put no space between
words are read by characters: for search in overlapping pairs, as Lucene's CJK analysis does. ASCII text is read as
bm25s, SQuAD and rouge-score read it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import regex

Span = tuple[int, int]

READING = 3
"""The version of these rules: part of the key of whatever is cut or counted by them."""

AUTO = "auto"
DOTLESS = ("turkish", "azerbaijani")
"""Languages in which I is the capital of ı, and İ of i."""

LONGEST = 200
"""Characters from which a run without a space is no word any more but a string of characters (base64, a table)."""

SHARE = 8
"""Characters of such a run that count as a word: about a word of English and the space after it."""

# Combining marks are \w, too. Numbers such as ½ are words to Python, but not to Unicode.
_LETTER = r"[\w\p{N}]"
# Line_Break=SA: Thai, Lao, Khmer, Burmese and their like.
_UNSPACED = r"[[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Hang}\p{scx=Bopo}\p{scx=Yiii}\p{LB=SA}]&&\w]"
_SPACED = rf"[{_LETTER}--{_UNSPACED}]"
# A letter with its marks (\X): a Thai vowel sign above its consonant is no character of its own.
_CLUSTER = rf"(?:(?={_UNSPACED})\X)"

# ASCII text is left to the standard library's re, five to eight times faster here than regex.
ASCII_WORD, ASCII_TOKEN, RUN = re.compile(r"\w+"), re.compile(r"\w+|[^\w\s]"), re.compile(r"\S+")
# Sets within sets (&&, --) exist in V1 alone.
UNSPACED = regex.compile(_UNSPACED, regex.V1)
WORD = regex.compile(rf"{_LETTER}+", regex.V1)
PART = regex.compile(rf"{_UNSPACED}+|{_SPACED}+", regex.V1)
CLUSTER = regex.compile(_CLUSTER, regex.V1)
# Without the underscore, which rouge-score takes for a space.
ALPHANUMERIC = regex.compile(rf"[{_LETTER}--_]+", regex.V1)
# A soft hyphen is part of the word that it stands in.
TOKEN = regex.compile(rf"{_CLUSTER}|[{_SPACED}\u00ad]+|[^\w\p{{N}}\s]", regex.V1)
# Where there are no spaces, brackets and marks stay with their character, so that no chunk begins with a full stop.
UNIT = regex.compile(rf"[\p{{Ps}}\p{{Pi}}]*{_CLUSTER}[\p{{Pe}}\p{{Pf}}\p{{Po}}]*|[\S--{_UNSPACED}]+", regex.V1)
# Space has to follow: the full stop in 3.5 or example.com ends nothing.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n{2,}")
# The full-width full stop is a decimal point, too: before a number it ends nothing.
FULL_STOP = regex.compile(r"(?:[\p{SB=STerm}--[!?]]|．(?!\p{N}))[\p{SB=STerm}．]*[\p{Pe}\p{Pf}\"']*", regex.V1)

IGNORED = regex.compile(
    # Marks that a writer of Arabic or Hebrew may leave away, tatweel, and what has no shape: joiners, soft hyphens.
    r"[[\p{Mn}&&[\p{scx=Arab}\p{scx=Hebr}]]\u0640[\p{Default_Ignorable_Code_Point}--\u200b]]",
    regex.V1,
)
TRADEMARKS = str.maketrans("™℠", "  ")

PLAIN = str.maketrans("άέήίόύώΐΰёأإآٱیک", "αεηιουωϊϋеاااايك")
"""Letters whose mark a writer may leave away (Greek capitals, ё, hamza), and Persian ones that look as Arabic do."""


def fold_text(text: str, language: str = AUTO) -> str:
    """The text as it is compared: NFKC, without case, without marks that a writer may leave away.

    In Turkish I is folded to ı; where the language is not told (AUTO), i, ı, I and İ are one letter, so that capitals
    match in every language.
    """
    return _casefold(_lower_text(text, language))


def _lower_text(text: str, language: str) -> str:
    dotless = language in DOTLESS
    # English takes this way, and is read as bm25s reads it; in Turkish the I of ASCII is no capital of i.
    if text.isascii() and not dotless:
        return text.lower()
    # NFKC alone would make a word of Java™ that is not Java.
    plain = unicodedata.normalize("NFKC", text.translate(TRADEMARKS))
    if dotless:
        # Before lower(), which knows no Turkish.
        plain = plain.replace("I", "ı").replace("İ", "i")
    plain = plain.lower().translate(PLAIN)
    if language == AUTO:
        # lower() makes i and a combining dot of İ.
        plain = plain.replace("i̇", "i").replace("ı", "i")
    shown: str = IGNORED.sub("", plain)
    return shown


def _casefold(lowered: str) -> str:
    # Casefolding can lead out of NFKC, so it is normalised once more.
    return lowered if lowered.isascii() else unicodedata.normalize("NFKC", lowered.casefold())


def split_words(text: str, language: str = AUTO, least: int = 1) -> list[str]:
    """The words to search for: folded, of `least` characters or more.

    Runs in scripts without spaces are given as their overlapping pairs of characters, a single one as it is.
    """
    plain = _lower_text(text, language)
    if plain.isascii():
        return [word for word in ASCII_WORD.findall(plain) if len(word) >= least]
    return [_casefold(word) for run in WORD.findall(plain) for word in _split_run(run, least)]


def _split_run(run: str, least: int) -> Iterator[str]:
    if run.isascii() or not UNSPACED.search(run):
        if len(run) >= least:
            yield run
        return
    for part in PART.findall(run):
        if UNSPACED.match(part):
            # `least` does not count here: in these scripts one character may be a word.
            letters = CLUSTER.findall(part)
            yield from map("".join, pairwise(letters)) if len(letters) > 1 else letters
        else:
            yield part


def separate_characters(text: str) -> str:
    """The text in NFC with a space around each character of a script without spaces: there they are the words."""
    if text.isascii():
        return text
    spaced: str = CLUSTER.sub(lambda found: f" {found[0]} ", unicodedata.normalize("NFC", text))
    return spaced


def split_alphanumeric(text: str) -> list[str]:
    """The folded runs of letters and numbers, in scripts without spaces the characters."""
    found: list[str] = ALPHANUMERIC.findall(separate_characters(fold_text(text)))
    return found


def to_encodable(text: str) -> str:
    """The text with lone surrogates replaced, which no file and no database takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def find_token_spans(text: str) -> list[Span]:
    """The spans of words, of characters in scripts without spaces, and of punctuation marks."""
    pattern = ASCII_TOKEN if text.isascii() else TOKEN
    return [found.span() for found in pattern.finditer(text)]


def count_tokens(text: str) -> int:
    """Words and punctuation marks, in scripts without spaces characters.

    A count that needs no model; it differs from a model's by its subwords.
    """
    return len((ASCII_TOKEN if text.isascii() else TOKEN).findall(text))


def find_units(text: str) -> list[Span]:
    """The spans that count as one word each when a text is cut: runs without a space, with their punctuation.

    In scripts without spaces they are single characters, of runs of more than LONGEST characters SHARE each.
    """
    pattern = RUN if text.isascii() else UNIT
    spans = [found.span() for found in pattern.finditer(text)]
    return (
        spans
        if max(map(_get_length, spans), default=0) <= LONGEST
        else [part for each in spans for part in split_long_span(each)]
    )


def _get_length(span: Span) -> int:
    return span[1] - span[0]


def split_long_span(span: Span) -> list[Span]:
    """The span itself, or where it is too long to be a word its parts of SHARE characters."""
    start, end = span
    if end - start <= LONGEST:
        return [span]
    return [(place, min(place + SHARE, end)) for place in range(start, end, SHARE)]


def split_sentences(text: str) -> list[str]:
    """The parts of a passage that end in a full stop of any script or at a blank line, without space at their ends."""
    parts = [part for whole in SENTENCE_END.split(text) for part in _split_full_stops(whole)]
    return [part.strip() for part in parts if part.strip()]


def _split_full_stops(text: str) -> list[str]:
    return [text[start:end] for start, end in split_full_stops(text, (0, len(text)))]


def split_full_stops(text: str, span: Span) -> list[Span]:
    """The parts of a span that end in a full stop of another script: 。 ؟ । and the like.

    They need no space behind them, as . ! and ? do.
    """
    # ASCII has only . ! and ? for full stops, and by these the caller has cut already.
    if text.isascii():
        return [span]
    ends = [found.end() for found in FULL_STOP.finditer(text, *span)]
    starts = [span[0], *ends]
    return [part for part in zip(starts, [*ends, span[1]], strict=True) if part[0] < part[1]]


@lru_cache(maxsize=64)
def get_script_pattern(language: str) -> regex.Pattern[str]:
    """What finds a letter of the script that a Snowball language is written in."""
    scripts = {
        "arabic": "Arabic",
        "armenian": "Armenian",
        "greek": "Greek",
        "hindi": "Devanagari",
        "nepali": "Devanagari",
        "persian": "Arabic",
        "russian": "Cyrillic",
        # Written in both scripts; the pattern below closes the last brace.
        "serbian": "Cyrillic}\\p{Latin",
        "tamil": "Tamil",
        "yiddish": "Hebrew",
    }
    return regex.compile(rf"[\p{{{scripts.get(language, 'Latin')}}}]")
