"""Processes that parse files: a file that takes too long or too much memory costs its process, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from rag_opt.documents.parsed import MomentaryError, Parsed, UnreadableFileError

STARTS = 30.0
"""Seconds that a process may need to start, beside the file's own."""


class Worker:
    """A process that parses one file after the other, started when it is needed, anew after it had to be ended."""

    def __init__(self, seconds: float, megabytes: int) -> None:
        self.seconds, self.megabytes = seconds, megabytes
        self._process: subprocess.Popen[str] | None = None

    def parse(self, path: str, digest: str, engine: str) -> Parsed:
        """The text of a file with this SHA-256; raises UnreadableFileError where it has none or takes too much.

        MomentaryError where that may be different the next time.
        """
        # One that has died between two files says nothing of the next.
        if self._process is not None and self._process.poll() is not None:
            self.close()
        fresh = self._process is None
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.seconds + (STARTS if fresh else 0.0), give_up)
        timer.start()
        try:
            process.stdin.write(f"{json.dumps([path, digest, engine])}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            # ValueError: it was closed by who ended the pool.
            line = ""
        finally:
            timer.cancel()
        # An answer that came just before the kill counts; the process is gone all the same.
        if late.is_set() or not line.endswith("\n"):
            self.close()
        if not line.endswith("\n"):
            raise MomentaryError(
                f"it takes longer than parser.seconds={self.seconds:g}"
                if late.is_set()
                else "reading it ended the process that did (its memory is bounded by parser.memory_gb)"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise (MomentaryError if answer.get("momentary") else UnreadableFileError)(answer["error"])
        return Parsed.from_json(answer)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                # What was not written yet can't be, and goes with the process.
                with suppress(BrokenPipeError):
                    if stream is not None:
                        stream.close()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        # This package must be found by it, wherever it was started from; what comes in through PYTHONPATH stays.
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(
            dict.fromkeys([root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
        )
        return subprocess.Popen(  # noqa: S603 (this interpreter, and a number)
            [sys.executable, "-m", "rag_opt.documents.worker", str(self.megabytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            # One thread each: there are as many of these as cores. Matrix libraries would reserve memory for more.
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            # Ctrl-C is for this program, which ends them itself.
            start_new_session=True,
        )


class Pool:
    """As many workers as files are parsed at a time; closed at the end of a `with`."""

    def __init__(self, count: int, seconds: float, megabytes: int) -> None:
        self._all = [Worker(seconds, megabytes) for _ in range(count)]
        self._free: SimpleQueue[Worker] = SimpleQueue()
        self._closed = threading.Event()
        for worker in self._all:
            self._free.put(worker)

    def parse(self, path: str, digest: str, engine: str) -> Parsed:
        """As a worker's, by one that is free; of more threads than workers some wait."""
        worker = self._free.get()
        try:
            if self._closed.is_set():
                raise MomentaryError("it was not read: the reading was interrupted")
            return worker.parse(path, digest, engine)
        finally:
            self._free.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Before they are ended: who waits for one of them must not take that for the file's fault, nor start another.
        self._closed.set()
        for worker in self._all:
            worker.close()
