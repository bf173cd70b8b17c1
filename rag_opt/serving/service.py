"""A question on its way through a service: its turn, its arm, its answer; what it took is counted and kept."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_opt.console.progress import report_line
from rag_opt.errors import RagOptError
from rag_opt.production.answering import Answer, Spent
from rag_opt.serving.admission import Admission, RefusedError
from rag_opt.serving.journal import Entry
from rag_opt.tracking.failures import shorten_error

if TYPE_CHECKING:
    from rag_opt.serving.deployment import Arm, Deployment
    from rag_opt.serving.journal import Journal
    from rag_opt.serving.metrics import ServiceMetrics

NOTHING = Answer("", (), {}, 0.0, Spent())


@dataclass
class Service:
    """What requests are answered by; `deployment` is replaced in one step, a request keeps the one it began with."""

    deployment: Deployment
    admission: Admission
    metrics: ServiceMetrics
    timeout: float
    journal: Journal | None = None
    sampled: float = 1.0
    ready: bool = True
    # Not the generator that studies seed.
    chance: random.Random = field(default_factory=random.SystemRandom)

    async def answer(self, question: str, arm: Arm, state: Mapping[str, Any], *, search: bool = False) -> Answer:
        """The answer of an arm, or the sources alone; raises RefusedError where there is none."""
        began = time.time()
        work = partial(arm.answerer.search if search else arm.answerer.ask, question)
        try:
            with self._count_running():
                found = await self.admission.run(work, self.timeout)
        except RefusedError:
            raise
        except Exception as error:
            self._record(NOTHING, question, arm, state, began, error)
            raise _translate(error, str(state["id"])) from error
        self._record(found, question, arm, state, began)
        return found

    async def stream(self, question: str, arm: Arm, state: Mapping[str, Any]) -> AsyncIterator[str | Answer]:
        """The pieces of an arm's answer as they come, then the whole; its turn has come once this returns.

        Raises RefusedError before the first piece where it is refused, and within where the model fails.
        """
        began, loop = time.time(), asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        gone = [False]

        def show(piece: str) -> None:
            if gone[0]:
                raise ConnectionAbortedError
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        task = await self.admission.start(partial(arm.answerer.ask, question, show), self.timeout)
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        return self._iterate(task, pieces, gone, question, arm, state, began)

    async def _iterate(
        self,
        task: asyncio.Future[Answer],
        pieces: asyncio.Queue[str | None],
        gone: list[bool],
        question: str,
        arm: Arm,
        state: Mapping[str, Any],
        began: float,
    ) -> AsyncIterator[str | Answer]:
        try:
            with self._count_running():
                until = time.monotonic() + self.timeout
                while (piece := await asyncio.wait_for(pieces.get(), until - time.monotonic())) is not None:
                    yield piece
                found = task.result()
        except TimeoutError as error:
            raise RefusedError(504, f"no answer within {self.timeout:.0f} s") from error
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:
            self._record(NOTHING, question, arm, state, began, error)
            raise _translate(error, str(state["id"])) from error
        finally:
            # The model is told to stop with its next piece.
            gone[0] = True
        self._record(found, question, arm, state, began)
        yield found

    def _count_running(self) -> Any:
        self.metrics.waiting.set(self.admission.waiting)
        return self.metrics.running.track_inprogress()

    def _record(
        self,
        found: Answer,
        question: str,
        arm: Arm,
        state: Mapping[str, Any],
        began: float,
        error: Exception | None = None,
    ) -> None:
        self.metrics.waiting.set(self.admission.waiting)
        if error is None:
            self.metrics.count_answer(found, arm.name)
        else:
            self.metrics.errors.labels(arm.name).inc()
        if self.journal is None:
            return
        record = {
            "question": question,
            "answer": found.text,
            "sources": [source.to_dict() for source in found.sources[:10]],
            "seconds": dict(found.seconds),
            "total": found.total,
            "tokens_in": found.spent.tokens_in,
            "tokens_out": found.spent.tokens_out,
            "usd": None if math.isnan(found.spent.usd) else found.spent.usd,
            "arm": arm.name,
            "version": arm.label,
            "who": hash_user(state.get("who", "")),
            "at": began,
            "error": "" if error is None else shorten_error(error),
        }
        self.journal.keep(Entry(str(state["id"]), began, self.chance.random() < self.sampled, record))


def hash_user(who: str) -> str:
    """What stands for somebody in traces: they are not to name people."""
    return hashlib.sha256(who.encode("utf-8", "surrogatepass")).hexdigest()[:16] if who else ""


def _translate(error: Exception, name: str) -> RefusedError:
    """What a client is told of an error: a model's reasons, and of anything else its request's id alone."""
    if isinstance(error, RagOptError):
        return RefusedError(502, shorten_error(error))
    report_line(f"request {name}: {shorten_error(error)}")
    return RefusedError(500, f"it failed; the service's log says why under {name}")
