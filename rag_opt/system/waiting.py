"""Waiting for what another process holds: in short steps, saying for whom, ended at once by Ctrl-C and SIGTERM.

Whom one waits for the system tells where it lists its locks (Linux: /proc/locks), files' and SQLite's.
"""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from rag_opt.console.screens import report_line
from rag_opt.errors import StorageError
from rag_opt.system.signals import Patience

STEP = 0.1
"""Seconds of one step: how long a signal may have to wait."""

SAID_AFTER = 2.0
"""Seconds of waiting after which that is said."""

T = TypeVar("T")


class Wait:
    """One wait, which begins now, for whoever `does` something: "holds the lock of …"; `who` tells who that is.

    After `limit` seconds it is given up.
    """

    def __init__(self, does: str, who: Callable[[], str], limit: float = math.inf) -> None:
        self._does, self._who, self._limit = does, who, limit
        self._start, self._patience = time.monotonic(), Patience()
        self._said = False

    def step(self) -> None:
        """After a step in vain: say it once; raises KeyboardInterrupt at a stop, StorageError after the limit."""
        self._patience.check()
        waited = time.monotonic() - self._start
        if waited > self._limit:
            raise StorageError(
                f"{self._who()} {self._does}, {waited:.0f} s already: let it go on, or end it; then the same command "
                "goes on from here"
            )
        if waited > SAID_AFTER and not self._said:
            self._said = True
            report_line(f"waiting for {self._who()}: it {self._does}")


@contextmanager
def hold_lock(lock: FileLock, does: str) -> Iterator[None]:
    """The lock held within; meanwhile others wait for this process, which `does` something."""
    acquire_lock(lock, does)
    try:
        yield
    finally:
        lock.release()


def acquire_lock(lock: FileLock, does: str) -> None:
    """Take a lock, however long its holder, who `does` something, keeps it; raises KeyboardInterrupt at a stop."""
    wait = Wait(does, lambda: find_holder([Path(lock.lock_file)]))
    while True:
        try:
            lock.acquire(timeout=STEP)
            return
        except Timeout:
            wait.step()


def retry_locked(path: Path, call: Callable[[], T], limit: float) -> T:
    """What the call gives, made again while another process holds the SQLite file's lock; raises StorageError then.

    The connection's own timeout is to be STEP: in there no signal is heard.
    """
    # With write-ahead logging SQLite's writers lock the -shm file.
    wait = Wait(f"holds the lock of {path}", lambda: find_holder([path, path.with_name(f"{path.name}-shm")]), limit)
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            # Extended codes, such as SQLITE_BUSY_SNAPSHOT, have the plain one in their lowest byte.
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            wait.step()


def find_holder(files: Sequence[Path]) -> str:
    """Who else has locked one of the files, such as "process 12 on host, begun …"; else "another process"."""
    with suppress(OSError, ValueError):
        wanted = {(os.major(about.st_dev), os.minor(about.st_dev), about.st_ino) for about in _iterate_stats(files)}
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            fields = line.split()
            # "1: POSIX ADVISORY WRITE 12 fe:00:2146927 120 120"; who waits for a lock has an arrow in its line.
            if fields[1] == "->" or fields[3] != "WRITE" or int(fields[4]) == os.getpid():
                continue
            major, minor, inode = fields[5].split(":")
            if (int(major, 16), int(minor, 16), int(inode)) in wanted:
                return _format_process(int(fields[4]))
    return "another process"


def _iterate_stats(files: Iterable[Path]) -> Iterator[os.stat_result]:
    for path in files:
        with suppress(FileNotFoundError):
            yield path.stat()


def _format_process(number: int) -> str:
    about = Path(f"/proc/{number}")
    # After the name, which may hold anything, the second field is the state.
    state = (about / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    begun = datetime.fromtimestamp(about.stat().st_ctime).astimezone()
    stopped = f", which is stopped (kill -CONT {number} lets it go on)" if state in "Tt" else ""
    return f"process {number} on {socket.gethostname()}, begun {begun:%Y-%m-%d %H:%M:%S}{stopped}"
