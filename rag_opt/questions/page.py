"""A checked set of questions → one HTML file to read, to accept and reject in, and to save from; no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rag_opt.questions.flags import MEANINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_opt.questions.check import CheckedQuestion, QuestionCheck

TEMPLATE = Path(__file__).with_name("page.html.j2")

SHOWN = 600
"""Characters of a document that are shown where no part of it is named as evidence."""


def render_page(
    check: QuestionCheck, rows: Sequence[Mapping[str, Any]], summary: Sequence[str], texts: Mapping[str, str]
) -> str:
    """The page of a check; `rows` are what it saves, `texts` what the questions' evidence reads, by question."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Within a script element only this would end it, or begin a comment.
    data = json.dumps(list(rows), ensure_ascii=False).replace("<", "\\u003c")
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        title=f"{check.name}: questions",
        summary=summary,
        questions=check.questions,
        texts=texts,
        meanings=MEANINGS,
        counts=check.counts,
        data=Markup(data),  # noqa: S704 (escaped above)
    )


def get_gold_text(question: CheckedQuestion, documents: Mapping[str, str]) -> str:
    """What answers a question: its evidence, else the beginning of its first relevant document."""
    spans = [(each.document_id, each.start, each.end) for each in question.query.evidence if each.start >= 0]
    read = [documents[name][start:end] for name, start, end in spans if name in documents]
    read += [quote.text for quote in question.query.quotes]
    relevant = (documents.get(name, "") for name, grade in question.grades.items() if grade > 0)
    return " … ".join(read) or next(relevant, "")[:SHOWN]
