"""`python -m rag_opt.cli.mlflow_server mlflow.db 5000`: MLflow over a file, on this machine, for its own pages only.

MLflow's own server takes every page that this machine serves for one of its own, whatever its port, and has it read and
write.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from rag_opt.system.same_origin import HOST, explain_refusal

Asgi = Callable[[Mapping[str, Any], Callable[..., Any], Callable[..., Awaitable[None]]], Awaitable[None]]


def guard_asgi(app: Asgi, port: int) -> Asgi:
    """The app for requests that come from its own pages; others are answered with 403."""

    async def answered(scope: Mapping[str, Any], receive: Callable[..., Any], send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        why = explain_refusal(scope.get("method", "GET"), headers, port)
        if why is None:
            await app(scope, receive, send)
        elif scope["type"] == "http":
            kind = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": kind})
            await send({"type": "http.response.body", "body": f"{why}\n".encode()})
        else:
            # 1008 is a violated policy (RFC 6455); sent before the handshake, it makes the server answer 403.
            await send({"type": "websocket.close", "code": 1008})

    return answered


def serve_mlflow(database: Path, port: int) -> None:
    """Serve until a signal ends it."""
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = f"sqlite:///{database}"
    # Where studies have theirs (tracking.artifacts), for experiments that are made in its pages.
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = (database.parent / "mlartifacts").absolute().as_uri()
    # Its own jobs are of no use here, and are seven processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # What that server reads, it reads as it is imported.
    import uvicorn
    from mlflow.server.fastapi_app import app

    uvicorn.run(guard_asgi(app, port), host=HOST, port=port, log_level="critical", access_log=False)


def main() -> None:
    """The command line; with whoever started it this ends."""
    if sys.platform == "linux":
        # 1 is PR_SET_PDEATHSIG: a dashboard that is killed by SIGKILL can end nothing itself.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    serve_mlflow(Path(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
