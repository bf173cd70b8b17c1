"""Work that is given up once it takes too long, whatever it waits for.

A library's own time limits are for one read: a server that sends a byte now and then, or a name server that never
answers, holds a call for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TypeVar

T = TypeVar("T")

_GIVEN_UP: ContextVar[threading.Event | None] = ContextVar("given up", default=None)


class OverdueError(Exception):
    """Raised by `run_within` when the time is over."""


class GivenUpError(Exception):
    """Raised by `check_waited_for` in work that nobody waits for any more."""


def run_within(seconds: float, work: Callable[[], T]) -> T:
    """What `work()` gives; raises what it raises, or OverdueError once `seconds` are over.

    It runs in a thread of its own. That is left behind at a time-out, since nothing can end a thread that waits: in it
    `check_waited_for` raises from then on.
    """
    given_up = threading.Event()
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        _GIVEN_UP.set(given_up)
        try:
            found.append(work())
        except BaseException as error:
            # For the thread that waits; here nobody could handle it.
            raised.append(error)

    # A daemon, so that the program can end while it still waits.
    # Its context is a copy of the caller's, since a new thread begins with an empty one.
    thread = threading.Thread(target=copy_context().run, args=(run,), name="run_within", daemon=True)
    try:
        thread.start()
        # `join` raises OverflowError beyond TIMEOUT_MAX.
        thread.join(min(seconds, threading.TIMEOUT_MAX))
    finally:
        # At an interrupt, too: what it was about to ask for is asked for no more.
        given_up.set()
    if raised:
        raise raised[0]
    if not found:
        raise OverdueError(f"it took longer than {seconds:g} seconds")
    return found[0]


def check_waited_for() -> None:
    """Raise GivenUpError in work that `run_within` has given up; elsewhere nothing."""
    given_up = _GIVEN_UP.get()
    if given_up is not None and given_up.is_set():
        raise GivenUpError
