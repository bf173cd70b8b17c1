"""Ctrl-C and SIGTERM, as a study takes them.

Ctrl-C once lets a trial finish the batch of questions that it is at, twice stops it now; SIGTERM stops it now. The
trial's place is given back, so that the same command goes on.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

from rag_opt.progress import say


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


class Stopping:
    """Within it, signals stop the study; `gentle` says whether a first Ctrl-C may wait for the end of a batch."""

    def __init__(self, *, always: bool = False) -> None:
        self.always = always
        self.asked = False
        self.gentle = False
        self._raised: KeyboardInterrupt | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # Who starts a command in a shell's background has it ignore Ctrl-C; a worker is told by us, not by a key.
            if self.always or signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupted)
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminated)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt when Ctrl-C was pressed, and again what a signal raised where Python ignores it."""
        if self._raised is not None:
            raise self._raised
        if self.asked:
            raise KeyboardInterrupt

    def _interrupted(self, _: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signal module's)
        if not self.gentle or self.asked:
            self._stop(KeyboardInterrupt())
        self.asked = True
        say("stopping after this batch of questions; Ctrl-C again stops now")

    def _terminated(self, _: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signal module's)
        self._stop(Terminated())

    def _stop(self, error: KeyboardInterrupt) -> None:
        # Raised within a destructor or a callback of C code it is lost: `check` raises it again.
        self._raised = error
        raise error
