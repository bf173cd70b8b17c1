"""Ctrl-C, SIGTERM and SIGHUP, as a study takes them.

Ctrl-C once lets a trial finish the batch of questions that it is at, twice stops it now; SIGTERM and SIGHUP stop it
now. The trial's place is given back, so that the same command goes on.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from rag_opt.console.exit_status import HungUp, Terminated, silence_streams

LAST_WAIT = 1.0
"""Seconds that a process which is to stop still waits for others, to give its trial back."""


class Stopping:
    """Within it, signals stop the study; `gentle` says whether a first Ctrl-C may wait for the end of a batch.

    `say` is called with the line that tells a person so.
    """

    def __init__(self, say: Callable[[str], None] | None = None, *, always: bool = False) -> None:
        self.say, self.always = say, always
        self.asked = False
        self.gentle = False
        self.raised: KeyboardInterrupt | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        _open.append(self)
        # Python lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            # Who starts a command in a shell's background has it ignore Ctrl-C; a worker is told by us, not by a key.
            if self.always or signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle_interrupt)
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._handle_terminate)
            # Ignored under nohup, and unknown to Windows.
            hangup = getattr(signal, "SIGHUP", None)
            if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
                self._before[hangup] = signal.signal(hangup, self._handle_hangup)
        return self

    def __exit__(self, *_: object) -> None:
        _open.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt when Ctrl-C was pressed, and again what a signal raised where Python ignores it."""
        if self.raised is not None:
            raise self.raised
        if self.asked:
            raise KeyboardInterrupt

    def _handle_interrupt(self, _: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signal module's)
        if not self.gentle or self.asked:
            self._stop(KeyboardInterrupt())
        self.asked = True
        if self.say:
            self.say("stopping after this batch of questions; Ctrl-C again stops now")

    def _handle_terminate(self, _: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signal module's)
        self._stop(Terminated())

    def _handle_hangup(self, _: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signal module's)
        # First: whatever is said on the way out would fail on a terminal that is gone.
        silence_streams()
        self._stop(HungUp())

    def _stop(self, error: KeyboardInterrupt) -> None:
        # Raised within a destructor or a callback of C code it is lost: `check` raises it again.
        self.raised = error
        raise error


class Patience:
    """A wait's, which begins now: it ends when a stop is asked for. One that begins later is short."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._asked_before = get_stop() is not None

    def check(self) -> None:
        """Raise KeyboardInterrupt when the wait is over."""
        stop = get_stop()
        if stop is not None and not (self._asked_before and time.monotonic() - self._start < LAST_WAIT):
            raise stop


def get_stop() -> KeyboardInterrupt | None:
    """What ends the study of this process, once that was asked for."""
    for stopping in _open:
        if stopping.raised is not None or stopping.asked:
            return stopping.raised or KeyboardInterrupt()
    return None


def check_ending() -> None:
    """Raise KeyboardInterrupt where the study is to end now: for work in other threads, which no signal reaches."""
    for stopping in _open:
        # A first Ctrl-C (`asked`) is no reason: it lets the batch be finished that this work is part of.
        if stopping.raised is not None:
            raise type(stopping.raised)


_open: list[Stopping] = []
