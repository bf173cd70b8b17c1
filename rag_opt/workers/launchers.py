"""Starting workers, here or on a Dask cluster, and hearing of their ends. All else is in the storage.

A launcher is started once with the command of a worker, then asked to begin workers and whether they have ended. What
it needs of a cluster is that a function can be run there and its result fetched.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rag_opt.errors import ConfigError

REFUSED = 78
"""Exit status of a worker that could not begin, and never will; none that a component would choose."""

LAST = 2000
"""Characters of a dead worker's output that are kept."""

# Seconds; each look asks Dask's scheduler.
LOOK_EVERY = 0.5

PATIENCE = 15.0
"""Seconds after SIGTERM in which a worker gives its trial back."""


@dataclass(frozen=True)
class End:
    """How a worker ended: its exit status (negative: the signal), and its last words."""

    status: int
    words: str = ""

    @property
    def why(self) -> str:
        """In words."""
        if self.status >= 0:
            return f"exit status {self.status}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-self.status).name
        return f"signal {-self.status}"


@dataclass
class _Process:
    """A worker's process, its output in a file; its input tells it what to do, ends with us, and then so does it.

    A command line can be read by everybody on a machine, and what it is told may hold a password.
    """

    words: Sequence[str]
    log: Path
    handle: subprocess.Popen[bytes] = field(init=False)
    _file: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Appended to: a worker that is started again leaves the last words of the one that died.
        self._file = self.log.open("ab")
        # A group of its own: Ctrl-C comes to us, and we pass it on once.
        self.handle = subprocess.Popen(
            [sys.executable, "-m", "rag_opt.workers.worker"],
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=self._file,
            start_new_session=True,
            # Unbuffered, since nothing ever flushes or closes its input.
            bufsize=0,
        )
        assert self.handle.stdin is not None
        # One that died at once is found by `poll`, with its last words.
        with contextlib.suppress(BrokenPipeError):
            # Never closed afterwards: the end of its input is by what a worker knows that this process has died.
            self.handle.stdin.write(f"{json.dumps(list(self.words))}\n".encode())

    def poll(self) -> End | None:
        """None while it runs."""
        status = self.handle.poll()
        if status is None:
            return None
        self._file.close()
        return End(status, self.log.read_text("utf-8", "replace")[-LAST:].strip())

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.handle.send_signal(number)


class Local:
    """Processes of this machine."""

    spans_hosts = False

    def __init__(self) -> None:
        self._workers: dict[int, _Process] = {}

    def open(self, count: int) -> None:
        """Make ready for so many workers."""

    def start_worker(self, worker: int, words: Sequence[str], log: Path) -> None:
        """Start, or start again, the worker of this number."""
        self._workers[worker] = _Process(words, log)

    def poll_worker(self, worker: int) -> End | None:
        """How it ended; None while it runs."""
        return self._workers[worker].poll()

    def signal(self, number: int) -> None:
        """Send all of them a signal: SIGINT finishes the batch, SIGTERM stops, SIGKILL ends them."""
        for worker in self._workers.values():
            worker.signal(number)

    def close(self) -> None:
        """Leave nothing running."""
        self.signal(signal.SIGKILL)
        for worker in self._workers.values():
            worker.handle.wait()


class Dask:
    """Long tasks of a Dask cluster, each a worker in a process of its own beside the Dask worker.

    `address` is the scheduler's; None makes a cluster of this machine. A task whose Dask worker dies is begun again by
    Dask elsewhere: it holds no trial, so nothing is measured twice.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self._client: Any = None
        self._futures: dict[int, Any] = {}
        # Events are known by name in a whole cluster: another study's command must not stop these.
        self._stop = f"rag_opt-{secrets.token_hex(4)}"

    @property
    def spans_hosts(self) -> bool:
        """Whether its workers may be on other machines."""
        return self.address is not None

    def open(self, count: int) -> None:
        """Reach the cluster, or make one for so many workers; raises ConfigError."""
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ConfigError("launcher=dask needs Dask: pip install 'rag-opt-studies[dask]'") from error
        # By default Dask's dashboard listens on port 8787, on every address of the machine.
        own = {"host": "127.0.0.1", "threads_per_worker": 1, "dashboard_address": None}
        try:
            # A local cluster is in the terminal's process group: Ctrl-C would end it before its workers.
            with ignore_interrupts():
                self._client = Client(self.address or LocalCluster(n_workers=count, **own), timeout="8s")
        except (OSError, ValueError) as error:
            raise ConfigError(f"launcher.address={self.address}: no Dask scheduler answers there: {error}") from error

    def start_worker(self, worker: int, words: Sequence[str], log: Path) -> None:
        """Start, or start again, the worker of this number."""
        # A new key each time: Dask would give a worker that is started again the result of the one that ended.
        self._futures[worker] = self._client.submit(
            run_dask_task, list(words), str(log), self._stop, pure=False, key=f"rag_opt-{worker}-{secrets.token_hex(4)}"
        )

    def poll_worker(self, worker: int) -> End | None:
        """How it ended; None while it runs, or waits for a place in the cluster."""
        future = self._futures[worker]
        if not future.done():
            return None
        if future.status == "finished":
            return End(*future.result())
        return End(1, f"Dask: {future.status}: {future.exception() if future.status == 'error' else ''}")

    def signal(self, number: int) -> None:
        """Have all of them sent a signal."""
        from distributed import Event

        # Dask can't interrupt a task that runs; each looks for these events by itself.
        Event(f"{self._stop}-{number}", client=self._client).set()

    def close(self) -> None:
        """Leave the cluster; one that was made here ends."""
        if self._client is not None:
            cluster = self._client.cluster
            self._client.close()
            if cluster is not None:
                cluster.close()


@contextlib.contextmanager
def ignore_interrupts() -> Iterator[None]:
    """What is started within ignores Ctrl-C, which a terminal sends to all: we pass it on to the workers alone."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_dask_task(words: Sequence[str], log: str, stop: str) -> tuple[int, str]:
    """Run a worker to its end, on a Dask worker; its exit status and last words."""
    from distributed import Event, get_client

    client = get_client()
    events = {number: Event(f"{stop}-{number}", client=client) for number in (signal.SIGINT, signal.SIGTERM)}
    process = _Process(words, Path(log))
    sent: dict[int, float] = {}
    try:
        while (end := process.poll()) is None:
            for number, event in events.items():
                if number not in sent and event.is_set():
                    sent[number] = time.monotonic()
                    process.signal(number)
            if time.monotonic() - sent.get(signal.SIGTERM, math.inf) > PATIENCE:
                process.signal(signal.SIGKILL)
            time.sleep(LOOK_EVERY)
    finally:
        # Also when the scheduler is gone and `is_set` raises: no worker may outlive its task.
        process.signal(signal.SIGKILL)
    return end.status, end.words


def count_cores() -> int:
    """How many this process may use."""
    # os.cpu_count() is the machine's number, more than taskset or a container's cpuset may allow.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
