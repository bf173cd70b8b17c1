"""The kinds of questions that are made, and how a model is asked for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag_opt.components.llm.prompts import number_texts
from rag_opt.components.llm.reply_text import parse_integer
from rag_opt.text.tokenization import split_sentences

FACT, REASON, KEYWORDS, CONVERSATION = "fact", "reason", "keywords", "conversation"
COMPARISON, UNANSWERABLE = "comparison", "unanswerable"
SENTENCE = "sentence"
"""Of one sentence that is chosen before a model is asked, which small models can; it is the answer."""

SHARES: Mapping[str, float] = {
    FACT: 0.35,
    REASON: 0.2,
    KEYWORDS: 0.15,
    CONVERSATION: 0.1,
    COMPARISON: 0.1,
    UNANSWERABLE: 0.1,
}
"""Of all questions so many are of a kind."""

FIELDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((FACT, REASON, KEYWORDS, CONVERSATION), ("question", "answer", "sentence")),
    COMPARISON: ("question", "answer", "sentence", "other"),
    UNANSWERABLE: ("question",),
}
"""What a reply holds; a sentence is said by its number, so that a model can't misquote."""

NUMBERS = ("sentence", "other")

MARKS = ("?", "\uff1f", "\u061f")
"""How a question ends."""

LONGEST = 1_000
"""Characters of a field above which it is no question or answer."""


@dataclass(frozen=True)
class Passage:
    """The characters [start, end) of a document, and its text."""

    document_id: str
    start: int
    end: int
    text: str

    @property
    def sentences(self) -> list[str]:
        """Its sentences as they stand in it."""
        return split_sentences(self.text)


@dataclass(frozen=True)
class Target:
    """What a question is to be made of: its kind, and a passage, or two for a comparison."""

    kind: str
    passages: tuple[Passage, ...]

    @property
    def inputs(self) -> dict[str, str]:
        """What is filled into its prompt: the passages, their sentences numbered, or the one sentence."""
        if self.kind == SENTENCE:
            return {"passage": self.passages[0].text}
        return dict(zip(("passage", "other"), (number_texts(p.sentences) for p in self.passages), strict=False))


@dataclass(frozen=True)
class MadeQuestion:
    """A question as a model wrote it; `quotes` are sentences of the target's passages, in their order."""

    target: Target
    question: str
    answer: str = ""
    quotes: tuple[str, ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """Its answer, where it has one."""
        return (self.answer,) if self.answer else ()


def parse_question(target: Target, text: str) -> MadeQuestion | None:
    """The question that a reply is, with its sentence as the quote; None where it is none."""
    # A small model may go on after its question.
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if not line.endswith(MARKS) or len(line) > LONGEST:
        return None
    return MadeQuestion(target, line, quotes=(target.passages[0].text,))


def build_schema(target: Target) -> dict[str, Any]:
    """The JSON schema of a reply."""
    fields = FIELDS[target.kind]
    # A number for each passage: only a comparison has two.
    counts = dict(zip(NUMBERS, (len(passage.sentences) for passage in target.passages), strict=False))
    return {
        "type": "object",
        "properties": {
            name: {"type": "integer", "minimum": 1, "maximum": counts[name]} if name in counts else {"type": "string"}
            for name in fields
        },
        "required": list(fields),
        # OpenAI's strict mode asks for this, and for every field as a required one.
        "additionalProperties": False,
    }


def parse_reply(target: Target, given: Any) -> MadeQuestion | None:
    """The question of a reply; None where it is none."""
    fields = FIELDS[target.kind]
    if not isinstance(given, Mapping):
        return None
    texts = {name: given.get(name) for name in fields if name not in NUMBERS}
    if not all(isinstance(text, str) and 0 < len(text.strip()) <= LONGEST for text in texts.values()):
        return None
    told, quotes = {name: " ".join(str(text).split()) for name, text in texts.items()}, list[str]()
    for name, passage in zip([each for each in fields if each in NUMBERS], target.passages, strict=False):
        number = parse_integer(given.get(name))
        # The schema says so, too, but not every endpoint is sent one.
        if number is None or not 1 <= number <= len(passage.sentences):
            return None
        quotes.append(passage.sentences[number - 1])
    return MadeQuestion(target, told["question"], told.get("answer", ""), tuple(quotes))
