"""How many questions are answered at once, how many wait, and how often a key may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from time import monotonic, time
from typing import TYPE_CHECKING, TypeVar

from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from rag_opt.errors import RagOptError

if TYPE_CHECKING:
    from limits import RateLimitItem

T = TypeVar("T")


class RefusedError(RagOptError):
    """A request that is not answered: its HTTP status, why, and after how many seconds another may be (0: none)."""

    def __init__(self, status: int, message: str, after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.after = after


class Admission:
    """Runs work in threads, `at_once` pieces of it at a time; `waiting` more wait for their turn."""

    def __init__(self, at_once: int, waiting: int, limit: RateLimitItem | None) -> None:
        self.threads = ThreadPoolExecutor(at_once, "answer")
        self.running = self.waiting = 0
        self._most = waiting
        # The executor's own queue has no bound, and tells nobody when a turn has come.
        self._free = asyncio.Semaphore(at_once)
        self._limit = limit
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check_rate(self, who: str) -> None:
        """Count a request of somebody; raises RefusedError above the rate."""
        if self._limit is None or self._limiter.hit(self._limit, who):
            return
        # `limits` reckons in Unix time, the turns here in the monotonic clock's.
        after = max(1, ceil(self._limiter.get_window_stats(self._limit, who).reset_time - time()))
        raise RefusedError(429, f"more than {self._limit} with this key; try again in {after} s", after)

    async def start(self, work: Callable[[], T], until: float) -> asyncio.Future[T]:
        """Begin a piece of work, once there is a thread for it; raises RefusedError where too many wait already.

        `until` is a moment of the monotonic clock. The thread stays taken until the work ends, whether anybody waits
        for that or not.
        """
        if self._free.locked() and self.waiting >= self._most:
            raise RefusedError(503, f"{self.waiting} questions wait already; try again in a second", 1)
        self.waiting += 1
        try:
            await asyncio.wait_for(self._free.acquire(), until - monotonic())
        except TimeoutError as error:
            raise RefusedError(503, "its turn did not come in time", 1) from error
        finally:
            self.waiting -= 1
        self.running += 1
        found = asyncio.get_running_loop().run_in_executor(self.threads, work)
        found.add_done_callback(self._finish)
        return found

    def _finish(self, task: asyncio.Future[T]) -> None:
        # Called in the loop's own thread, as all that counts here: no lock is needed.
        self.running -= 1
        self._free.release()
        if not task.cancelled():
            # Whoever asked may be gone: an error that nobody hears is no news for the log.
            task.exception()
