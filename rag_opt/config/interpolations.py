"""A bound on what `${…}` in configurations may stand for: each of a chain may name the one before it nine times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from omegaconf.base import Container
from omegaconf.errors import InterpolationResolutionError

MOST = 1_000
"""Interpolations that the values read at once may need; of a long text every 200 characters count as one."""

_spent: ContextVar[list[int] | None] = ContextVar("_spent", default=None)
_resolve = Container.resolve_parse_tree


@contextmanager
def limit_interpolations() -> Iterator[list[int]]:
    """Count all interpolations within together; one that is one too many raises InterpolationResolutionError."""
    # Whatever is read within another reading adds to its count: a bomb is made of many small values.
    outer = _spent.get()
    spent = [0] if outer is None else outer
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


def _resolve_counted(self: Container, *args: Any, **kwargs: Any) -> Any:
    with limit_interpolations() as spent:
        # Asked before as well as after: once it is too much, nothing more is resolved.
        if spent[0] <= MOST:
            found = _resolve(self, *args, **kwargs)
            spent[0] += 1 + (len(found) // 200 if isinstance(found, str) else 0)
        if spent[0] > MOST:
            raise InterpolationResolutionError(f"it takes more than {MOST:,} interpolations (${{…}}) to resolve")
        return found


# Every interpolation passes this method; OmegaConf sets no bound, and a few lines could keep it busy for years.
Container.resolve_parse_tree = _resolve_counted  # type: ignore[method-assign]
