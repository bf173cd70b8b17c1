"""Real HTTP servers that the tests start as processes of their own, and the calls that steer them."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

PATIENCE = 300.0
"""Seconds that a test waits for what says nothing by its speed: on one core, beside other work, a service to start."""

# The servers are on this machine: a proxy named in the environment must not see these calls.
_DIRECT = build_opener(ProxyHandler({}))


@contextlib.contextmanager
def served(script: str, *arguments: str) -> Iterator[str]:
    """Run a server of this folder and yield the address that it printed; it ends with the block."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _first_line(process, script)
        finally:
            _end(process)


def counts(url: str) -> dict[str, int]:
    """What the server has counted since it started, or since `reset`."""
    return dict(_call(url, "/counts"))


def fault(url: str, name: str, every: int = 1, heal: bool = False) -> None:
    """Switch the server to a fault ("none" for none), which also starts its turn anew."""
    _call(url, "/fault", {"name": name, "every": every, "heal": heal})


def reset(url: str) -> None:
    """Zero the counts; the chosen fault stays."""
    _call(url, "/reset", {})


def _first_line(process: subprocess.Popen[str], script: str) -> str:
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    stdout = process.stdout
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=PATIENCE).strip()
    except queue.Empty:
        raise TimeoutError(f"{script} printed no address within {PATIENCE:.0f} s") from None
    if not line:
        raise RuntimeError(f"{script} ended before it printed its address: exit status {process.wait(5)}")
    return line


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def _call(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    parts = urlsplit(url)
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{parts.scheme}://{parts.netloc}{path}", data, {"Content-Type": "application/json"})
    with _DIRECT.open(request, timeout=10) as answer:
        return json.load(answer)
