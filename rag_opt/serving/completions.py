"""Answers as OpenAI's chat completions, whole or as server-sent events; the sources stand beside them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_opt.production.answering import Answer

PREFIX = "chatcmpl-"
DONE = "data: [DONE]\n\n"


def format_completion(answer: Answer, name: str, model: str) -> dict[str, Any]:
    """The answer as a chat completion, with an annotation for each document and all `documents` that were read."""
    message = {
        "role": "assistant",
        "content": answer.text,
        "refusal": None,
        "annotations": build_annotations(answer),
    }
    return {
        **_build_head(name, model, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": count_tokens(answer),
        "documents": [source.to_dict() for source in answer.sources],
    }


async def stream_completion(
    pieces: AsyncIterator[str | Answer], name: str, model: str, *, usage: bool
) -> AsyncIterator[str]:
    """The events of an answer that comes piece by piece; the last but one has annotations and documents."""
    head = _build_head(name, model, "chat.completion.chunk")

    def event(delta: dict[str, Any], end: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": end, "logprobs": None}
        return f"data: {json.dumps({**head, 'choices': [choice], **more}, ensure_ascii=False)}\n\n"

    yield event({"role": "assistant", "content": ""})
    async for found in pieces:
        if isinstance(found, str):
            yield event({"content": found})
            continue
        documents = [source.to_dict() for source in found.sources]
        yield event({"annotations": build_annotations(found)}, "stop", documents=documents)
        if usage:
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': count_tokens(found)})}\n\n"
    yield DONE


def build_annotations(answer: Answer) -> list[dict[str, Any]]:
    """A citation of each document that was read, over the whole text, the best first.

    The protocol knows addresses alone: a document's id stands in the place of one.
    """
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "url": each.document_id,
                "title": each.title,
                "start_index": 0,
                "end_index": len(answer.text),
            },
        }
        for each in answer.cited
    ]


def count_tokens(answer: Answer) -> dict[str, int]:
    """What models have read and written for it."""
    read, written = answer.spent.tokens_in, answer.spent.tokens_out
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def format_error(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _build_head(name: str, model: str, kind: str) -> dict[str, Any]:
    return {"id": f"{PREFIX}{name}", "object": kind, "created": int(time.time()), "model": model}
