"""A component that fails in the way its parameter says: what a stage of somebody's own may do."""

from __future__ import annotations

import asyncio
import ctypes
import decimal
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from haystack import component

from rag_opt.components.generators.extractive import Extractive
from rag_opt.records.documents import Queries
from rag_opt.records.products import Answers, Chunks, Rankings

VALUES: dict[str, Any] = {
    "not_a_number": float("nan"),
    "infinite": float("inf"),
    "minus_inf": float("-inf"),
    "text": "0.3",
    "nothing": None,
    "list": [0.1, 0.2],
    "empty": [],
    "dict": {"a": 1},
    "complex": 1 + 2j,
    "huge": 10**400,
    "numpy_nan": np.float32("nan"),
    "decimal_nan": decimal.Decimal("NaN"),
    "bytes": b"\x00\xff",
    "object": object(),
}


class OwnError(Exception):
    """One that can't even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def exhausted() -> None:
    """Ask for more memory than a limit of this process allows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
    try:
        np.ones(1 << 40)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def deep(n: int = 0) -> int:
    return deep(n + 1) + 1


def raising(error: BaseException) -> Any:
    def fault() -> None:
        raise error

    return fault


FAULTS: dict[str, Any] = {
    "value_error": raising(ValueError("bad \x00 value \ud800")),
    "own_error": raising(OwnError()),
    "memory_error": exhausted,
    "recursion": deep,
    "system_exit": lambda: sys.exit(3),
    "generator_exit": raising(GeneratorExit()),
    "cancelled": raising(asyncio.CancelledError()),
    "stop_iteration": raising(StopIteration()),
    "os_error": raising(OSError(13, "Permission denied")),
    "broken_pipe": raising(BrokenPipeError()),
    "unicode": lambda: b"\xff".decode("utf-8"),
    "assertion": raising(AssertionError()),
    "long_text": raising(RuntimeError("x" * 1_000_000)),
    "group": raising(ExceptionGroup("two", [ValueError("a"), TypeError("b")])),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "killed_for_memory": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
}
DEADLY = {"segfault", "abort", "killed_for_memory", "exit"}
"""Those that end the process."""


@component
class Faulty(Extractive):
    """An extractive answerer, unless `fault` says otherwise."""

    def __init__(self, max_tokens: int, fault: str = "none") -> None:
        Extractive.__init__(self, max_tokens)
        self.fault = fault

    @component.output_types(answers=Answers)
    def run(self, queries: Queries, context: Rankings, chunks: Chunks) -> dict[str, Answers]:
        if self.fault in FAULTS:
            FAULTS[self.fault]()
        found = Extractive.run(self, queries, context, chunks)["answers"]
        return {"answers": replace(found, texts=tuple(self.fault for _ in found.texts))}


def odd(case: Any) -> Any:
    """The value that the answer names."""
    return VALUES.get(case.answer, 0.5)
