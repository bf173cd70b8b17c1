"""A question on its way through a service: its turn, its arm, its answer; what it took is counted and kept."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_opt.console.screens import report_line
from rag_opt.errors import RagOptError
from rag_opt.production.answering import NOTHING, Answer
from rag_opt.serving.admission import Admission, RefusedError
from rag_opt.serving.journal import Entry
from rag_opt.tracking.failures import shorten_error
from rag_opt.tracking.traces import SHOWN

if TYPE_CHECKING:
    from rag_opt.serving.deployment import Arm, Deployment
    from rag_opt.serving.journal import Journal
    from rag_opt.serving.metrics import ServiceMetrics

LONGEST_ERROR = 300
"""Characters of an error that a trace has."""


@dataclass
class Service:
    """What requests are answered by; `deployment` is replaced in one step, a request keeps the one it began with."""

    deployment: Deployment
    admission: Admission
    metrics: ServiceMetrics
    timeout: float
    journal: Journal | None = None
    sampled: float = 1.0
    # Not the generator that studies seed.
    chance: random.Random = field(default_factory=random.SystemRandom)

    async def answer(self, question: str, arm: Arm, state: Mapping[str, Any], *, search: bool = False) -> Answer:
        """The answer of an arm, or the sources alone; raises RefusedError where there is none."""
        work = partial(arm.answerer.search if search else arm.answerer.ask, question)
        # Waiting for its turn is part of it.
        until = time.monotonic() + self.timeout
        with self._count_running():
            task = await self._begin(work, question, arm, state, until)
            try:
                # Shielded: cancelled, it would give its place away while its thread still works.
                return await asyncio.wait_for(asyncio.shield(task), until - time.monotonic())
            except Exception as error:
                raise self._translate(error, str(state["id"])) from error

    async def stream(self, question: str, arm: Arm, state: Mapping[str, Any]) -> AsyncIterator[str | Answer]:
        """The pieces of an arm's answer as they come, then the whole; its turn has come once this returns.

        Raises RefusedError before the first piece where it is refused, and within where the model fails.
        """
        loop, until = asyncio.get_running_loop(), time.monotonic() + self.timeout
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        gone = threading.Event()

        def show(piece: str) -> None:
            if gone.is_set():
                raise ConnectionAbortedError("whoever asked has gone")
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        task = await self._begin(partial(arm.answerer.ask, question, show), question, arm, state, until)
        # Comes behind the last piece: the loop takes both in the order in which they were handed over.
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        return self._iterate(task, pieces, gone, until, str(state["id"]))

    async def _iterate(
        self,
        task: asyncio.Future[Answer],
        pieces: asyncio.Queue[str | None],
        gone: threading.Event,
        until: float,
        name: str,
    ) -> AsyncIterator[str | Answer]:
        try:
            with self._count_running():
                while (piece := await asyncio.wait_for(pieces.get(), until - time.monotonic())) is not None:
                    yield piece
                yield task.result()
        except Exception as error:
            raise self._translate(error, name) from error
        finally:
            # The model is told to stop with its next piece.
            gone.set()

    async def _begin(
        self, work: Callable[[], Answer], question: str, arm: Arm, state: Mapping[str, Any], until: float
    ) -> asyncio.Future[Answer]:
        """The work under way; what it took and cost is told when it ends, whether anybody has waited or not."""
        task = await self.admission.start(work, until)
        task.add_done_callback(partial(self._record, question, arm, dict(state), time.time()))
        return task

    def _count_running(self) -> Any:
        self.metrics.waiting.set(self.admission.waiting)
        return self.metrics.running.track_inprogress()

    def _record(
        self, question: str, arm: Arm, state: Mapping[str, Any], began: float, task: asyncio.Future[Answer]
    ) -> None:
        self.metrics.waiting.set(self.admission.waiting)
        # exception() raises where a task was cancelled.
        error = CancelledError() if task.cancelled() else task.exception()
        found = NOTHING if error is not None else task.result()
        if error is None:
            self.metrics.count_answer(found, arm.name)
        else:
            self.metrics.errors.labels(arm.name).inc()
        if self.journal is None:
            return
        record = {
            "question": question,
            "answer": found.text,
            "sources": [source.to_dict() for source in found.sources[:SHOWN]],
            "seconds": dict(found.seconds),
            "total": found.total if error is None else time.time() - began,
            "tokens_in": found.spent.tokens_in,
            "tokens_out": found.spent.tokens_out,
            # JSON has no nan.
            "usd": None if math.isnan(found.spent.usd) else found.spent.usd,
            "arm": arm.name,
            "version": arm.label,
            "who": self.journal.hash_user(str(state.get("who", ""))),
            "at": began,
            "error": "" if error is None else f"{type(error).__name__}: {error}"[:LONGEST_ERROR],
        }
        self.journal.keep(Entry(str(state["id"]), began, self.chance.random() < self.sampled, record))

    def _translate(self, error: Exception, name: str) -> RefusedError:
        """What a client is told of an error: a model's reasons, and of anything else its request's id alone."""
        if isinstance(error, RefusedError):
            return error
        if isinstance(error, TimeoutError):
            return RefusedError(504, f"no answer within {self.timeout:.0f} s")
        if isinstance(error, RagOptError):
            return RefusedError(502, shorten_error(error))
        # It may name paths or addresses, which are nobody's business outside.
        report_line(f"request {name}: {shorten_error(error)}")
        return RefusedError(500, f"it failed; the service's log says why under {name}")
