"""How texts are read into words, wherever words are compared or counted."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+")
TOKEN = re.compile(r"\w+|[^\w\s]")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n{2,}")


def words(text: str) -> list[str]:
    """The runs of letters and digits, in lower case."""
    return WORD.findall(text.lower())


def valid(text: str) -> str:
    """The text with lone surrogates replaced, which no file and no database takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def count_tokens(text: str) -> int:
    """Words and punctuation marks: a count that needs no model and differs from a model's by its subwords."""
    return len(TOKEN.findall(text))


def sentences(text: str) -> list[str]:
    """The parts of a passage that end in . ! or ? or at a blank line, without space at their ends."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]
