"""The kinds of questions that are made, and how a model is asked for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FACT, REASON, KEYWORDS, CONVERSATION = "fact", "reason", "keywords", "conversation"
COMPARISON, UNANSWERABLE = "comparison", "unanswerable"

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
    **dict.fromkeys((FACT, REASON, KEYWORDS, CONVERSATION), ("question", "answer", "quote")),
    COMPARISON: ("question", "answer", "quote", "other"),
    UNANSWERABLE: ("question",),
}
"""What a reply holds."""

LONGEST = 1_000
"""Characters of a field above which it is no question, answer or quote."""


@dataclass(frozen=True)
class Passage:
    """The characters [start, end) of a document, and its text."""

    document_id: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Target:
    """What a question is to be made of: its kind, and a passage, or two for a comparison."""

    kind: str
    passages: tuple[Passage, ...]

    @property
    def prompt(self) -> str:
        """The name of its file in conf/prompt."""
        return f"question_{self.kind}"

    @property
    def inputs(self) -> dict[str, str]:
        """What is filled into its prompt."""
        return dict(zip(("passage", "other"), (passage.text for passage in self.passages), strict=False))


@dataclass(frozen=True)
class MadeQuestion:
    """A question as a model wrote it; `quotes` are of the target's passages, in their order."""

    target: Target
    question: str
    answer: str = ""
    quotes: tuple[str, ...] = ()


def build_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a reply."""
    fields = FIELDS[kind]
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


def parse_reply(target: Target, given: Any) -> MadeQuestion | None:
    """The question of a reply; None where it is none."""
    fields = FIELDS[target.kind]
    if not isinstance(given, Mapping):
        return None
    texts = {name: given.get(name) for name in fields}
    if not all(isinstance(text, str) and 0 < len(text.strip()) <= LONGEST for text in texts.values()):
        return None
    told = {name: " ".join(str(text).split()) for name, text in texts.items()}
    quotes = tuple(told[name] for name in ("quote", "other") if name in told)
    return MadeQuestion(target, told["question"], told.get("answer", ""), quotes)
