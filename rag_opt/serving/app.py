"""The service as an ASGI application: what each path answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from rag_opt.serving import protocol
from rag_opt.serving.admission import RefusedError
from rag_opt.serving.completions import DONE, PREFIX, format_completion, format_error, stream_completion
from rag_opt.serving.deployment import Arm
from rag_opt.serving.guard import Guard, respond_refused
from rag_opt.serving.page import CONTENT_POLICY, render_page
from rag_opt.serving.responses import PREFIX as RESPONSE
from rag_opt.serving.responses import format_response, stream_response

if TYPE_CHECKING:
    from rag_opt.serving.keys import Keys
    from rag_opt.serving.service import Service
    from rag_opt.serving.settings import ServerSettings

STREAM = "text/event-stream"


def build_app(
    service: Service,
    settings: ServerSettings,
    keys: Keys,
    close: Callable[[], None],
    refresh: Callable[[], Awaitable[None]],
) -> Guard:
    """The application of a service that is ready.

    `refresh` is under way as long as it lives; `close` is called at its end, once every request is answered.
    """

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        refreshing = asyncio.ensure_future(refresh())
        yield
        refreshing.cancel()
        await asyncio.to_thread(close)

    # FastAPI's own documentation pages load their scripts from a CDN.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=live)
    app.add_exception_handler(RefusedError, _respond_refused)
    app.add_exception_handler(HTTPException, _respond_unknown)
    _add_answers(app, service)
    _add_state(app, service, keys)
    return Guard(app, settings, keys, service.metrics)


def _add_answers(app: FastAPI, service: Service) -> None:
    """The paths that answer questions."""

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        # First: a body that is refused counts as a request, too.
        service.admission.check_rate(request.state.key_name)
        asked = protocol.parse_body(protocol.ChatCompletion, request.state.body)
        arm, question, name = _begin(service, request, asked.who), asked.question, request.state.id
        if asked.stream:
            usage = bool((asked.stream_options or {}).get("include_usage"))
            pieces = await service.stream(question, arm, _get_state(request))
            return _stream(stream_completion(pieces, name, arm.label, usage=usage))
        return JSONResponse(format_completion(await _answer(service, request, question, arm), name, arm.label))

    @app.post("/v1/responses")
    async def respond(request: Request) -> Response:
        service.admission.check_rate(request.state.key_name)
        asked = protocol.parse_body(protocol.Response, request.state.body)
        arm, question, name = _begin(service, request, asked.who), asked.question, request.state.id
        if asked.stream:
            pieces = await service.stream(question, arm, _get_state(request))
            return _stream(stream_response(pieces, name, arm.label))
        return JSONResponse(format_response(await _answer(service, request, question, arm), name, arm.label))

    @app.post("/search")
    async def search(request: Request) -> Response:
        service.admission.check_rate(request.state.key_name)
        asked = protocol.parse_body(protocol.Search, request.state.body)
        arm, question = _begin(service, request, asked.user), protocol.check_question(asked.query)
        found = await _answer(service, request, question, arm, search=True)
        documents = [source.to_dict() for source in found.sources[: asked.top_k]]
        return JSONResponse({"id": request.state.id, "model": arm.label, "documents": documents})

    @app.post("/feedback")
    async def feedback(request: Request) -> Response:
        service.admission.check_rate(request.state.key_name)
        told = protocol.parse_body(protocol.Feedback, request.state.body)
        # The id of a completion, of a response, or the bare X-Request-ID.
        name = told.id.removeprefix(PREFIX).removeprefix(RESPONSE)
        journal = service.journal
        if journal is None:
            raise RefusedError(404, "this service keeps no traces, and no feedback to them (--traces)")
        record = {"thumb": told.thumb, "comment": told.comment, "who": journal.hash_user(request.state.key_name)}
        if not await asyncio.to_thread(journal.add_feedback, name, record):
            raise RefusedError(404, "no answer with this id is known here; the id of a response is expected")
        service.metrics.feedback.labels(told.thumb).inc()
        return JSONResponse({"id": told.id, "thumb": told.thumb})


def _add_state(app: FastAPI, service: Service, keys: Keys) -> None:
    """The page, and the paths that say how the service is."""

    @app.get("/")
    async def page() -> HTMLResponse:
        arm = service.deployment.main
        text = render_page(arm.address, has_generator=arm.answerer.has_generator, needs_key=keys.needed)
        return HTMLResponse(text, headers={"content-security-policy": CONTENT_POLICY})

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        # OpenAI's schema requires `created`; when a model was made is not asked of the registry.
        rows = [{"id": arm.label, "object": "model", "created": 0, "owned_by": "rag_opt"} for arm in service.deployment]
        return {"object": "list", "data": rows}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        arms = {arm.name: arm.label for arm in service.deployment}
        return JSONResponse({"status": "ready", "models": arms})

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        service.metrics.waiting.set(service.admission.waiting)
        if service.journal is not None:
            service.metrics.lost.set(service.journal.lost)
            service.metrics.unsent.set(await asyncio.to_thread(service.journal.count_unsent))
        return PlainTextResponse(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _begin(service: Service, request: Request, who: str) -> Arm:
    """The arm of whoever asks."""
    request.state.who = who or request.state.key_name
    arm = service.deployment.choose(request.state.who)
    request.state.arm = arm.name
    return arm


def _get_state(request: Request) -> Mapping[str, Any]:
    return {"id": request.state.id, "who": request.state.who}


async def _answer(service: Service, request: Request, question: str, arm: Arm, *, search: bool = False) -> Any:
    return await service.answer(question, arm, _get_state(request), search=search)


def _stream(events: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(_explain_failure(events), media_type=STREAM)


async def _explain_failure(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """The events; where the answer fails on its way, an event that says so."""
    try:
        async for event in events:
            yield event
    except RefusedError as error:
        # The status has been sent by now: only an event can still tell.
        yield f"data: {json.dumps(format_error(str(error), 'server_error'))}\n\n"
        yield DONE


async def _respond_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return respond_refused(error)


async def _respond_unknown(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return respond_refused(RefusedError(error.status_code, str(error.detail)))
