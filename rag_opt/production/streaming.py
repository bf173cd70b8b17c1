"""An answer as it is written: the asking in a thread of its own, its pieces one after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_opt.production.answering import Answer, Answerer


def stream_answer(answerer: Answerer, question: str) -> Iterator[str | Answer]:
    """The pieces of an answer as they come, then the whole; raises what the asking raises.

    Where the reader goes away the model is told to stop with its next piece.
    """
    pieces: queue.Queue[str | Answer | Exception] = queue.Queue()
    gone = threading.Event()

    def show(piece: str) -> None:
        # Raised into the model's own loop, which nothing else ends early.
        if gone.is_set():
            raise ConnectionAbortedError
        pieces.put(piece)

    def work() -> None:
        try:
            pieces.put(answerer.ask(question, show))
        except Exception as error:
            # A thread's error is its reader's to raise.
            pieces.put(error)

    # A daemon: a model that hangs keeps no process from ending.
    threading.Thread(target=work, daemon=True).start()
    try:
        while isinstance(found := pieces.get(), str):
            yield found
        if isinstance(found, Exception):
            raise found
        yield found
    finally:
        gone.set()
