"""What an answer was made from and what it took, in the words of OpenAI's Responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_opt.production.answering import Answer


def build_citations(answer: Answer) -> list[dict[str, Any]]:
    """A citation of each document that was read, the best first, behind the text."""
    return [
        {"type": "file_citation", "file_id": each.document_id, "filename": each.title, "index": len(answer.text)}
        for each in answer.cited
    ]


def count_tokens(answer: Answer) -> dict[str, Any]:
    """What models have read and written for it, as responses tell it."""
    read, written = answer.spent.tokens_in, answer.spent.tokens_out
    # MLflow and OpenAI require the details; of caches and reasoning nothing is known here.
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
