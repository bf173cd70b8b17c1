"""What rag_opt takes from Haystack, imported without PyTorch, which Haystack loads to know of devices.

PyTorch takes most of the time and memory of a process that asks no model: a study over BM25, its workers, a report.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is imported when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        # What `import` itself and inspection look for is no use of the module.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def _import_without(name: str, package: str) -> None:
    """Import the package; `name` it gets as a module that is imported later.

    Where other threads run, which may import `name` at this very moment, and in which nobody may find what stands for
    it, both are left to be imported as usual.
    """
    if name in sys.modules or package in sys.modules or threading.active_count() > 1:
        return
    sys.modules[name] = _Later(name)
    try:
        importlib.import_module(package)
    finally:
        del sys.modules[name]


_import_without("torch", "haystack")

from haystack import Document, Pipeline, component, default_to_dict  # noqa: E402
from haystack.core.errors import PipelineConnectError, PipelineRuntimeError  # noqa: E402
from haystack.dataclasses import ByteStream, ChatMessage, ExtractedAnswer, GeneratedAnswer, SparseEmbedding  # noqa: E402
from haystack.version import __version__  # noqa: E402

__all__ = [
    "ByteStream",
    "ChatMessage",
    "Document",
    "ExtractedAnswer",
    "GeneratedAnswer",
    "Pipeline",
    "PipelineConnectError",
    "PipelineRuntimeError",
    "SparseEmbedding",
    "__version__",
    "component",
    "default_to_dict",
]
