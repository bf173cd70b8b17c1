"""A service of rag_opt's in a thread of the tests' own process: a real server and real sockets, no second import."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from rag_opt.cli.serve import listen
from rag_opt.serving.deployment import load_deployment
from rag_opt.serving.settings import ServerSettings
from rag_opt.serving.worker import build_service

KEY = "alice-key-0123456789"
HEADERS = {"authorization": f"Bearer {KEY}"}

RECORD: dict[str, Any] = {
    "question": "why?",
    "answer": "so",
    "seconds": {"retriever": 0.01},
    "total": 0.02,
    "at": 1_700_000_000.5,
    "tokens_in": 3,
    "tokens_out": 4,
    "usd": None,
    "arm": "model",
    "version": "models:/x/1",
    "who": "",
    "error": "",
    "sources": [{"id": "a", "text": "text", "score": 0.5}],
}
"""What a service's journal has of a question."""


@contextmanager
def serving(model: str, tracking: str, state: Path, **settings: Any) -> Iterator[str]:
    """The address of a service with this model."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    told = ServerSettings(model, port=port, tracking=tracking, state=str(state), **settings)
    told.check()
    app = build_service(told, load_deployment(told))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
