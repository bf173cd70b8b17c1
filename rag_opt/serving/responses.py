"""Answers as OpenAI's responses, whole or as server-sent events; each document that was read is a citation."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from rag_opt.production.citations import build_citations, count_tokens

if TYPE_CHECKING:
    from rag_opt.production.answering import Answer

PREFIX, MESSAGE = "resp_", "msg_"


def format_response(answer: Answer, name: str, model: str) -> dict[str, Any]:
    """The answer as a response; `documents` beside it are all that were read."""
    item = _build_item(name, "completed", [_build_part(answer.text, build_citations(answer))])
    return {
        **_build_head(name, model, "completed"),
        "output": [item],
        "usage": count_tokens(answer),
        "documents": [source.to_dict() for source in answer.sources],
    }


async def stream_response(pieces: AsyncIterator[str | Answer], name: str, model: str) -> AsyncIterator[str]:
    """The events of an answer that comes piece by piece."""
    numbers = count()

    def event(kind: str, **values: Any) -> str:
        told = {"type": kind, "sequence_number": next(numbers), **values}
        return f"event: {kind}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"

    place = {"item_id": f"{MESSAGE}{name}", "output_index": 0, "content_index": 0}
    begun = {**_build_head(name, model, "in_progress"), "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    yield event("response.output_item.added", output_index=0, item=_build_item(name, "in_progress", []))
    yield event("response.content_part.added", **place, part=_build_part("", []))
    async for found in pieces:
        if isinstance(found, str):
            yield event("response.output_text.delta", **place, delta=found, logprobs=[])
            continue
        for kind, values in _list_ends(found, name, model, place):
            yield event(kind, **values)


def _list_ends(answer: Answer, name: str, model: str, place: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What follows the last piece of an answer."""
    whole = format_response(answer, name, model)
    item = whole["output"][0]
    for number, citation in enumerate(item["content"][0]["annotations"]):
        told = {**place, "annotation_index": number, "annotation": citation}
        yield "response.output_text.annotation.added", told
    yield "response.output_text.done", {**place, "text": answer.text, "logprobs": []}
    yield "response.content_part.done", {**place, "part": item["content"][0]}
    yield "response.output_item.done", {"output_index": 0, "item": item}
    yield "response.completed", {"response": whole}


def _build_head(name: str, model: str, status: str) -> dict[str, Any]:
    return {
        "id": f"{PREFIX}{name}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": model,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        # OpenAI's schema requires these three, though there are no tools.
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "tools": [],
        "temperature": None,
        "top_p": None,
    }


def _build_item(name: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": f"{MESSAGE}{name}", "type": "message", "role": "assistant", "status": status, "content": content}


def _build_part(text: str, citations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": citations, "logprobs": []}
