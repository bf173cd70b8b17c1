"""What may be wrong with a question, seen from its words, its answers and the documents that are relevant to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rag_opt.records.documents import Document, Query
from rag_opt.text.tokenization import fold_text, split_words

REPEATED, COPIED, DANGLING, UNFOUND, SHARED = "repeated", "copied", "dangling", "answer not found", "answered elsewhere"
MEANINGS: Mapping[str, str] = {
    REPEATED: "asks what another one asks: both together count as one observation",
    COPIED: "most of its words stand in a row in the text that answers it, which any word search finds",
    DANGLING: "points at something that who asks can't see, such as the figure above",
    UNFOUND: "its answer stands in none of its relevant documents: it may be worded otherwise, or be wrong",
    SHARED: "its answer stands in a document that ranks above the relevant ones and is not one of them",
}
"""Each flag, and what it means."""

REJECTED = (REPEATED, COPIED, DANGLING)
"""What is proposed to be left out; the others need a look."""

FEWEST, SHARE = 6, 0.7
"""A run of so many of a question's words, and of this share of them, is a copy."""

SHORT, LONG = 3, 6
"""Characters below which an answer stands in many documents by chance; words above which it is worded freely."""

THINGS = "figure table diagram image picture passage text excerpt paragraph section chapter document article author"
THING = rf"({'|'.join(THINGS.split())})"
POINTS = re.compile(
    rf"(?i)\b(the|this|that|these|those) (above|below|following|preceding|given|provided|mentioned)\b"
    rf"|\b(this|these|the (given|provided|above|following)) {THING}s?\b|\b{THING}s? (above|below)\b"
    rf"|\b(in|according to|from|by) the {THING}\b|\bas (mentioned|described|stated|shown) (above|below|earlier)\b"
)
"""How a question points at what only its writer had before the eyes; of English ones."""


@dataclass(frozen=True)
class Flag:
    """One thing that may be wrong with a question, where that is seen, and the documents that it is about."""

    name: str
    detail: str
    documents: tuple[str, ...] = ()


def find_flags(query: Query, relevant: Sequence[Document], ranked: Sequence[Document]) -> Iterator[Flag]:
    """What may be wrong with a question by itself; `ranked` are the documents that a word search ranks before those.

    Repeats are found by who sees all questions.
    """
    if copied := find_copy(query.text, [document.text for document in relevant]):
        yield Flag(COPIED, f"“{copied}”")
    if found := POINTS.search(query.text):
        yield Flag(DANGLING, f"“{found[0]}”")
    answers = [each for each in query.answers if len(each.strip()) >= SHORT and len(each.split()) <= LONG]
    if answers and relevant and not any(holds(document.text, answers) for document in relevant):
        yield Flag(UNFOUND, f"“{answers[0][:80]}”")
    elif others := [document.id for document in ranked if holds(document.text, answers)]:
        yield Flag(SHARED, ", ".join(others[:3]), tuple(others))


def find_copy(question: str, texts: Sequence[str]) -> str:
    """The longest run of a question's words that stands so in one of the texts, where that is a copy; "" otherwise."""
    words, inside = split_words(question), [f" {' '.join(split_words(text))} " for text in texts]
    least = max(FEWEST, round(SHARE * len(words)))
    for size in range(len(words), least - 1, -1):
        for start in range(len(words) - size + 1):
            # Spaces around it, so that it begins and ends where words do.
            run = f" {' '.join(words[start : start + size])} "
            if any(run in each for each in inside):
                return run.strip()
    return ""


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether a text has one of the answers, case, marks and the like apart, as whole words."""
    inside = f" {' '.join(split_words(text))} "
    return any(f" {' '.join(split_words(answer))} " in inside for answer in answers if fold_text(answer).strip())
