"""The screen that is open: anyone may tell a person a line on it, and need not know how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Shows(Protocol):
    """What a screen does for those who don't know it."""

    def report_line(self, line: str) -> None:
        """One line, at once."""

    def show_task(self, label: str, total: int, speed: bool = False) -> AbstractContextManager[Callable[[int], None]]:
        """Shows work of `total` steps; the function it gives advances it."""


open_screens: list[Shows] = []
"""The one that was opened last is spoken to."""


def report_line(line: str) -> None:
    """One line on the open screen; without a screen nothing."""
    if open_screens:
        open_screens[-1].report_line(line)


def report_lines(lines: Iterable[str]) -> None:
    """A line each on the open screen."""
    for line in lines:
        report_line(line)


@contextmanager
def mute_screen() -> Iterator[None]:
    """Nothing is said or shown meanwhile."""
    # While single questions are timed each would have bars and lines of its own.
    held = open_screens[:]
    open_screens.clear()
    try:
        yield
    finally:
        open_screens[:] = held
