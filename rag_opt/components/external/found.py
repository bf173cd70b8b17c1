"""What something of one's own gives for a question: retrieved documents, an answer, tokens; and how that is kept."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rag_opt.errors import format_hint

KEYS = ("documents", "answer", "tokens_in", "tokens_out")
TEXTS = ("text", "content", "page_content")
METAS = ("meta", "metadata")
"""How Haystack, LangChain and LlamaIndex call a document's text, and what is known of it."""


LONGEST = 300
"""Characters of a reason."""

FRAME = re.compile(r"([*=#_~-])\1{3,}")
"""A line of stars and its like."""


class QuestionError(Exception):
    """A question that got no result for a reason that says all: it took too long, or what came can't be read."""


@dataclass(frozen=True)
class FoundDocument:
    """A retrieved document, by whatever is known of it; `id` or `text` may be None, not both."""

    id: str | None = None
    text: str | None = None
    score: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a question gave: documents, best first, an answer (None: it gives none of these), and the tokens it took."""

    documents: tuple[FoundDocument, ...] | None = None
    answer: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0


def dump_found(found: Found) -> str:
    """The result as JSON; what a document's meta holds that JSON has no form for is written as text."""
    # In ASCII, since texts may hold half of a surrogate pair, which SQLite does not take.
    return json.dumps(asdict(found), default=str, ensure_ascii=True)


def load_found(text: str) -> Found:
    """The result that `dump_found` wrote."""
    values = json.loads(text)
    documents = values["documents"]
    made = None if documents is None else tuple(FoundDocument(**each) for each in documents)
    return Found(**{**values, "documents": made})


def parse_found(given: Any) -> Found:
    """The result that a function or a service gave.

    Raises QuestionError with what was given and what is expected.
    """
    if not isinstance(given, Mapping):
        raise QuestionError(f"it gave {_describe(given)}; a dict with {' or '.join(KEYS[:2])} is expected")
    for key in given:
        if key not in KEYS:
            raise QuestionError(f"it gave '{str(key)[:80]}', which nothing reads; {format_hint(str(key), KEYS)}")
    answer, documents = given.get("answer"), given.get("documents")
    if answer is not None and not isinstance(answer, str):
        raise QuestionError(f"its answer is {_describe(answer)}; a text is expected")
    if isinstance(documents, str | Mapping) or not isinstance(documents, Sequence | None):
        raise QuestionError(f"its documents are {_describe(documents)}; a list of ids, texts or dicts is expected")
    tokens = [_parse_tokens(key, given.get(key)) for key in KEYS[2:]]
    made = None if documents is None else tuple(_parse_document(each) for each in documents)
    return Found(made, answer, *tokens)


def _parse_document(given: Any) -> FoundDocument:
    if isinstance(given, str):
        # An id or a text: the corpus tells which.
        return FoundDocument(given, given)
    if not isinstance(given, Mapping):
        raise QuestionError(f"one of its documents is {_describe(given)}; an id, a text or a dict is expected")
    text = next((given[name] for name in TEXTS if given.get(name) is not None), None)
    meta: Any = next((given[name] for name in METAS if given.get(name) is not None), {})
    found = given.get("id")
    if (found is None and text is None and not meta) or not isinstance(meta, Mapping):
        raise QuestionError(f"one of its documents is {_describe(given)}; it needs an id or a text")
    score: Any = given.get("score")
    # Neither true nor nan is a number to sort by.
    known = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return FoundDocument(
        None if found is None else str(found),
        None if text is None else str(text),
        float(score) if known else None,
        meta,
    )


def _parse_tokens(key: str, given: Any) -> int:
    if given is None:
        return 0
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise QuestionError(f"its {key} is {_describe(given)}; a whole number is expected")
    return given


def _describe(given: Any) -> str:
    text = " ".join(repr(given).split())
    return f"{text[:80]}… ({type(given).__name__})" if len(text) > 80 else f"{text} ({type(given).__name__})"


def format_reason(error: BaseException) -> str:
    """A failure in one line, with its type where it says nothing itself."""
    # Some libraries frame their messages.
    text = " ".join(FRAME.sub(" ", str(error)).split())[:LONGEST]
    return text if isinstance(error, QuestionError) else f"{type(error).__name__}: {text}".rstrip(": ")


def format_pipeline_error(error: BaseException) -> str:
    """What went wrong in a pipeline, in one line: which component, and what it says."""
    # Haystack wraps what a component raises.
    cause = error.__cause__ or error
    owner = getattr(error, "component_name", None)
    told = " ".join(str(cause).split())[:300]
    return f"{owner}: {type(cause).__name__}: {told}" if owner else f"{type(cause).__name__}: {told}"
