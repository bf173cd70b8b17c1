"""What a person sees while long work runs: a live line on a terminal, plain lines elsewhere.

Parts that do long work call `track`; whether anything is shown is decided by whoever opened a `Screen`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from rag_opt.console.screens import open_screens
from rag_opt.console.terminal import build_console, sanitize_line

LAST = 10
"""Trials whose pace says how long the others will take: later ones find more in the store."""

PLAIN_EVERY = 15.0
"""Seconds between plain lines about the same work."""

QUIET_UNTIL = 2.0
"""Work that is done after so many seconds gets no plain line."""


class Speed(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed and task.fields.get("speed") else "")


class Remaining(TimeRemainingColumn):
    """The time left: as the task's `left` says, else from its speed."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["left"]) if "left" in task.fields else super().render(task)


class Screen:
    """One place for all that is shown during a run, on standard error; `say` prints a line above what is live.

    Live is a terminal that can move its cursor: one that calls itself dumb is spoken to as a pipe is.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.console = build_console(file or sys.stderr)
        self.live = self.console.is_interactive
        columns = (
            TextColumn("{task.description}"),
            BarColumn(max(4, min(24, (self.console.width - 44) // 2))),
            MofNCompleteColumn(),
            Speed(),
            Remaining(compact=True, table_column=Column(no_wrap=True)),
        )
        # What goes to a file stays out of the bar's way by itself.
        shared = sys.stdout.isatty()
        self.progress = Progress(*columns, console=self.console, transient=True, redirect_stdout=shared)

    def report_line(self, line: str, style: str | None = None) -> None:
        """One line, at once, markup left alone."""
        # On a terminal lines end between words; elsewhere whoever reads them breaks them.
        self.console.print(sanitize_line(line), markup=False, style=style, soft_wrap=not self.live)

    def stop_live(self) -> None:
        """Take away what is live, for good: what follows is a result, on standard output."""
        if self.live:
            self.progress.stop()
            self.live = False

    def __enter__(self) -> Self:
        open_screens.append(self)
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        open_screens.remove(self)
        self.stop_live()

    @contextmanager
    def show_trials(self, total: int, done: int) -> Iterator[Line]:
        """The study's line, with `done` of `total` trials behind it."""
        line = Line(self, total, done)
        try:
            yield line
        finally:
            self.progress.remove_task(line._task)

    @contextmanager
    def show_task(self, label: str, total: int, speed: bool = False) -> Iterator[Callable[[int], None]]:
        """Shows `label` with a bar of `total` steps; the function it gives advances the bar."""
        if not self.live:
            yield _PlainTask(self, label, total)
            return
        task = self.progress.add_task(label, total=total, speed=speed)
        try:
            yield lambda steps: self.progress.advance(task, steps)
        finally:
            self.progress.remove_task(task)


class Line:
    """The study's own line: `describe` changes it, `advance` tells a trial above it and counts it."""

    def __init__(self, screen: Screen, total: int, done: int) -> None:
        self.screen = screen
        self._spans: list[float] = []
        self._done = done
        self._last = time.monotonic()
        self._task = screen.progress.add_task("", total=total, completed=done, left="")

    def describe(self, text: str) -> None:
        self.screen.progress.update(self._task, description=text)

    def advance(self, told: str, remaining: int, done: int, *, after: float = 0.0, failed: bool = False) -> None:
        """Tell of a trial; `after`: seconds that will pass after the last one."""
        now = time.monotonic()
        # A repeated trial takes no place: its time is the next one's.
        for _ in range(done - self._done):
            self._spans.append((now - self._last) / (done - self._done))
        if done > self._done:
            self._last, self._done = now, done
        left = self._estimate_left(remaining, after)
        self.screen.progress.update(self._task, completed=done, left=left)
        line = told if self.screen.live or not left else f"{told} · {left}"
        self.screen.report_line(line, "red" if failed else None)

    def _estimate_left(self, remaining: int, after: float) -> str:
        # The first trial computes what the others find in the store: it says nothing about them.
        later = self._spans[1:][-LAST:]
        return f"{format_duration(sum(later) / len(later) * max(0, remaining) + after)} left" if later else ""


class _PlainTask:
    def __init__(self, screen: Screen, label: str, total: int) -> None:
        self.screen, self.label, self.total, self.done = screen, label, total, 0
        self.start = time.monotonic()
        self.next = self.start + QUIET_UNTIL

    def __call__(self, steps: int) -> None:
        self.done += steps
        now = time.monotonic()
        if now < self.next:
            return
        rate = self.done / (now - self.start)
        left = (self.total - self.done) / rate if rate else 0.0
        self.screen.report_line(
            f"{self.label}: {self.done:,} of {self.total:,}, {rate:,.0f}/s, {format_duration(left)} left"
        )
        self.next = now + PLAIN_EVERY


@contextmanager
def track(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that advances the bar of this work on the open screen; without a screen it does nothing."""
    if not open_screens:
        yield lambda _: None
        return
    with open_screens[-1].show_task(label, total, speed=True) as advance:
        yield advance


def format_duration(seconds: float) -> str:
    """Seconds as 0:07, 2:31 or 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
