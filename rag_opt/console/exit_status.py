"""What ends a command from outside, each with the exit status that a shell expects of it (128 and the signal)."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

INTERRUPTED = 130


class Terminated(KeyboardInterrupt):
    """SIGTERM.

    A KeyboardInterrupt, so that whatever gives a trial back at Ctrl-C does so here, and nothing takes it for a failure.
    """

    status = 143


class HungUp(Terminated):
    """SIGHUP: the terminal is gone."""

    status = 129


class ReaderGone(Terminated):
    """Whoever read what is written has enough, as `head` has: SIGPIPE."""

    status = 141


def get_exit_status(stop: KeyboardInterrupt) -> int:
    """The exit status; Ctrl-C's where it is none of ours."""
    return stop.status if isinstance(stop, Terminated) else INTERRUPTED


@contextmanager
def handle_broken_pipe() -> Iterator[None]:
    """Within it a reader that goes away ends the command without a word, and every letter can be written."""
    escape_unencodable()
    try:
        yield
        # Here, since Python's own flush at its end would say that the pipe is broken, and exit with status 120.
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        silence_streams()
        sys.exit(ReaderGone.status)
    except OSError as error:
        # A write may fail before SIGHUP comes, and another session's terminal sends none.
        if not is_hung_up(error, sys.stdout, sys.stderr):
            raise
        silence_streams()
        sys.exit(HungUp.status)


def escape_unencodable() -> None:
    """Letters that a stream's encoding lacks, as cp1252 lacks Chinese ones, are written as Python escapes them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_streams() -> None:
    """What is still written, also when Python ends, goes nowhere where its reader or its terminal is gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if _is_gone(stream):
                # What it holds it would write again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_hung_up(error: OSError, *streams: TextIO) -> bool:
    """Whether this was raised because the terminal behind one of these streams is gone, SIGHUP or not."""
    return error.errno == errno.EIO and any(_is_gone(stream) for stream in streams)


def _is_gone(stream: TextIO) -> bool:
    try:
        # A signal may have come within a write, where there is no flush.
        with suppress(RuntimeError):
            stream.flush()
    except BrokenPipeError:
        return True
    except OSError as error:
        return error.errno == errno.EIO
    # A terminal that was hung up is a device still, but a terminal no more.
    return os.fstat(stream.fileno()).st_rdev not in (0, Path(os.devnull).stat().st_rdev) and not stream.isatty()
