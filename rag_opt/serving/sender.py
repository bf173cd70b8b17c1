"""The process of a service that sends its journal to MLflow: beside those that answer, whom it must not slow down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rag_opt.serving.settings import ServerSettings

LOCK = "sender.lock"
PATIENCE, LAST = 2.0, 10.0
"""Seconds between two tries to be the one that sends, and for what is left at the end."""

KIND = 10
"""How much less it counts than others where the processor is short (Unix's niceness)."""


@contextmanager
def sending(settings: ServerSettings) -> Iterator[None]:
    """Within it a process of its own sends the service's traces; at the end it sends what is left, for some seconds."""
    if not settings.traces:
        yield
        return
    command = [sys.executable, "-m", "rag_opt.serving.sender"]
    # It ends when its input does, so also when this process is killed.
    environment = {**os.environ, **settings.to_environment()}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:  # noqa: S603 (our own words)
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(LAST)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Send until there is no more input."""
    # Ctrl-C reaches all processes of a terminal: the one that answers says when it has ended.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Windows has no os.nice.
    with suppress(OSError, AttributeError):
        os.nice(KIND)
    # Only now: loading MLflow takes a second, in which Ctrl-C would end it.
    from rag_opt.production.registry import Registry
    from rag_opt.serving.journal import Journal
    from rag_opt.serving.traces import TraceSender, get_experiment

    settings, ending = ServerSettings.from_environment(), threading.Event()
    threading.Thread(target=_wait_for_end, args=(ending,), daemon=True).start()
    journal = Journal(Path(settings.state))
    sender = TraceSender(journal, Registry.connect(settings.tracking), get_experiment(settings.model))
    lock = FileLock(journal.folder / LOCK)
    while True:
        # Another service may share the journal.
        with suppress(Timeout), lock.acquire(timeout=PATIENCE):
            sender.run(ending)
        if ending.is_set():
            return


def _wait_for_end(ending: threading.Event) -> None:
    sys.stdin.read()
    ending.set()


if __name__ == "__main__":
    main()
    os._exit(0)
