"""What stands before every request: its id, where it comes from, whose key it has, how large it is."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from rag_opt.serving.admission import RefusedError
from rag_opt.serving.completions import format_error
from rag_opt.system.same_origin import explain_refusal

if TYPE_CHECKING:
    from rag_opt.serving.keys import Keys
    from rag_opt.serving.metrics import ServiceMetrics
    from rag_opt.serving.settings import ServerSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = ("/", "/health", "/ready")
"""Paths that need no key: they tell nothing of documents or questions."""

PATHS = (*OPEN, "/metrics", "/search", "/feedback", "/v1/models", "/v1/chat/completions", "/v1/responses")
SLOWEST = 10.0
"""Seconds in which a request's body has to have come."""

HEADS = 16_384
"""Bytes of headers."""

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """An ASGI application around the service's own; in `scope["state"]` that finds `id`, `key_name` and `body`."""

    def __init__(self, app: Any, settings: ServerSettings, keys: Keys, metrics: ServiceMetrics) -> None:
        self.app, self.settings, self.keys, self.metrics = app, settings, keys, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            # Starting and ending; there are no web sockets here.
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        # 499 is what nginx logs where the client has gone before its answer began.
        start, name, told = time.perf_counter(), uuid.uuid4().hex, {"status": 499}
        state = scope.setdefault("state", {})
        state.update(id=name, arm="")

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS, (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self._admit(scope, receive, answer)
        finally:
            # Anybody can ask for any path, and each label of a metric stays in memory.
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.requests.labels(path, str(told["status"]), state["arm"]).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - start)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
            self._check(scope, headers)
            body = await self._read(scope, headers, receive)
        except RefusedError as error:
            await respond_refused(error)(scope, receive, send)
            return
        scope["state"]["body"] = body
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                # Whether the client is still there.
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        if sum(len(key) + len(value) for key, value in scope["headers"]) > HEADS:
            raise RefusedError(431, f"headers of at most {HEADS:,} bytes are expected")
        # Where no key is asked for, a page of another site must not ask in its reader's name.
        if not self.keys.needed and (why := explain_refusal(scope["method"], headers, self.settings.port)):
            raise RefusedError(403, why)
        client = scope.get("client") or ("", 0)
        # Where no key says who asks, a rate holds for each address.
        scope["state"]["key_name"] = f"address {client[0]}"
        if not self.keys.needed or scope["path"] in OPEN:
            return
        kind, _, key = headers.get("authorization", "").partition(" ")
        name = self.keys.identify(key.strip()) if kind.lower() == "bearer" else None
        if name is None:
            raise RefusedError(401, "a key is expected: Authorization: Bearer <key>")
        scope["state"]["key_name"] = name

    async def _read(self, scope: Scope, headers: dict[str, str], receive: Receive) -> bytes:
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return b""
        length = headers.get("content-length")
        # isdecimal: by isdigit ² is a number, too, which int refuses.
        if length is not None and (not length.isdecimal() or int(length) > self.settings.largest):
            raise RefusedError(413, f"at most {self.settings.largest:,} bytes are expected")
        # Unpacked, a small body could be of any size.
        if headers.get("content-encoding", "identity") != "identity":
            raise RefusedError(415, "a body that is not compressed is expected")
        try:
            return await asyncio.wait_for(self._collect(receive), SLOWEST)
        except TimeoutError as error:
            raise RefusedError(408, f"its body did not come within {SLOWEST:.0f} s") from error

    async def _collect(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the client went away")
            part = message.get("body", b"")
            parts.append(part)
            # Counted as it comes: a body may be longer than its header says, or have none (chunked).
            size += len(part)
            if size > self.settings.largest:
                raise RefusedError(413, f"at most {self.settings.largest:,} bytes are expected")
            more = message.get("more_body", False)
        return b"".join(parts)


def respond_refused(error: RefusedError) -> JSONResponse:
    """What a client is told that is refused."""
    headers = {"retry-after": str(error.after)} if error.after else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return JSONResponse(format_error(str(error), kind), error.status, headers)
