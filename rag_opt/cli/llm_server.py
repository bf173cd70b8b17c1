"""A model of this machine behind OpenAI's protocol: chat completions, streamed or whole, and the list of models.

The servers that come with transformers and llama.cpp would do: the first answers each request with 422 (5.3.0 beside
FastAPI 0.165), the second has to be compiled. Calls that come at once are answered together.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from rag_opt.components.llm import request as asked
from rag_opt.components.llm.chat import CallError
from rag_opt.components.llm.local import LocalChat
from rag_opt.errors import RagOptError
from rag_opt.llm.replies import Reply
from rag_opt.system.same_origin import explain_refusal

LARGEST = 4_000_000
"""Bytes of a request: more than any model here reads."""

WRITTEN = 256
"""Tokens of an answer where a request does not say how many."""


class Part(BaseModel):
    """A piece of a message; only texts are read."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """What somebody says."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        """All that it says."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class ResponseFormat(BaseModel):
    """The form of an answer: any text, any JSON object, or JSON with a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] | None = None

    @property
    def schema_(self) -> dict[str, Any] | None:
        """The schema that an answer is held to; None for any text."""
        if self.type == "json_schema":
            found = (self.json_schema or {}).get("schema")
            return found if isinstance(found, dict) else {"type": "object"}
        return {"type": "object"} if self.type == "json_object" else None


class Completion(BaseModel):
    """A request as OpenAI's clients send it; parameters of which nothing is known here are left aside."""

    model_config = ConfigDict(extra="ignore")
    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    max_completion_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    # Bounded, since torch refuses a seed that 64 bits don't hold; further attempts add to it.
    seed: Annotated[int, Field(ge=-(2**62), le=2**62)] | None = None
    # More than one choice is refused rather than answered with one.
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    response_format: ResponseFormat | None = None

    def to_request(self, model: str) -> asked.Request:
        """The request to the model that is served, whatever name it was asked for by."""
        # OpenAI's newer word for it, which chat templates of open models don't know.
        roles = {"developer": "system"}
        said = tuple((roles.get(each.role, each.role), each.text) for each in self.messages)
        sampling = asked.Sampling(
            # OpenAI's default is 1; here a request that names none is answered alike each time.
            self.temperature or 0.0,
            self.max_completion_tokens or self.max_tokens or WRITTEN,
            1.0 if self.top_p is None else self.top_p,
            self.seed or 0,
        )
        schema = None if self.response_format is None else self.response_format.schema_
        return asked.Request(model, said, sampling, schema)


def build_app(chat: LocalChat, model: str, port: int) -> FastAPI:
    """The endpoint of a model that is loaded, for a server that listens on this port of this machine."""
    # FastAPI's pages about the endpoint would load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def check(request: Request, call_next: Any) -> Any:
        # Against pages that have their name point here, or ask from afar: no key is asked for.
        why = explain_refusal(request.method, dict(request.headers), port)
        if why is not None:
            return _refuse(403, why)
        # A chunked body has no length, and would be read whole before it could be found too long.
        length = request.headers.get("content-length", "0" if request.method == "GET" else "")
        if not length.isdecimal() or int(length) > LARGEST:
            return _refuse(413, f"a request of at most {LARGEST:,} bytes is expected, with its length")
        return await call_next(request)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        # 400 as OpenAI has it, where FastAPI would answer 422.
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return _refuse(400, f"{place}: {first['msg']}" if place else str(first["msg"]))

    @app.get("/v1/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "rag_opt"}]}

    # Not async: FastAPI runs it in a thread, so that several calls wait at once and are answered together.
    @app.post("/v1/chat/completions")
    def complete(body: Completion) -> Any:
        told = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        request = body.to_request(model)
        if body.stream:
            usage = bool((body.stream_options or {}).get("include_usage"))
            return StreamingResponse(_stream(chat, request, told, usage), media_type="text/event-stream")
        try:
            reply = chat.call_model(request)
        except (CallError, RagOptError) as error:
            return _refuse(400, str(error))
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": _find_end(request, reply)}
        return {**told, "object": "chat.completion", "choices": [choice], "usage": _count(reply)}

    return app


def _stream(chat: LocalChat, request: asked.Request, told: dict[str, Any], usage: bool) -> Iterator[str]:
    """Server-sent events with the pieces of an answer; where the reader goes away no more is written."""
    pieces: queue.Queue[str | Reply | Exception] = queue.Queue()
    gone = threading.Event()

    def show(piece: str) -> None:
        # Raised into the model's loop, which calls this for each piece: nothing else ends it early.
        if gone.is_set():
            raise ConnectionAbortedError
        pieces.put(piece)

    def answer() -> None:
        try:
            pieces.put(chat.stream_reply(request, show))
        except Exception as error:
            # A thread's error is its reader's to hear.
            pieces.put(error)

    def event(found: dict[str, Any]) -> str:
        return f"data: {json.dumps({**told, 'object': 'chat.completion.chunk', **found})}\n\n"

    def chunk(delta: dict[str, Any], end: str | None = None) -> str:
        return event({"choices": [{"index": 0, "delta": delta, "finish_reason": end}]})

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield chunk({"role": "assistant", "content": ""})
        while isinstance(found := pieces.get(), str):
            yield chunk({"content": found})
        if isinstance(found, Exception):
            # Status 200 went out with the first piece, so an error can only be an event.
            yield f"data: {json.dumps(_describe(str(found)))}\n\n"
            return
        yield chunk({}, _find_end(request, found))
        if usage:
            # OpenAI has it in a last chunk of its own, without a choice.
            yield event({"choices": [], "usage": _count(found)})
        yield "data: [DONE]\n\n"
    finally:
        gone.set()


def _find_end(request: asked.Request, reply: Reply) -> str:
    return "length" if reply.tokens_out >= request.sampling.max_tokens else "stop"


def _count(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.tokens_in,
        "completion_tokens": reply.tokens_out,
        "total_tokens": reply.tokens_in + reply.tokens_out,
    }


def _describe(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse(_describe(message), status)
