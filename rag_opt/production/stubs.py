"""Agents that answer nothing while they are logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_stubbed: ContextVar[bool] = ContextVar("stubbed", default=False)


@contextmanager
def stub_answers() -> Iterator[None]:
    """Within it agents answer nothing: MLflow asks one that is logged for an example, which would have to be paid."""
    token = _stubbed.set(True)
    try:
        yield
    finally:
        _stubbed.reset(token)


def is_stubbed() -> bool:
    """Whether an agent is to answer nothing."""
    return _stubbed.get()
