"""Types of sockets: which fit each other, and how they are written for people."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin


def is_compatible(takes: Any, gives: Any) -> bool:
    """Whether an input of the one type can be fed with the other; True where that can't be known."""
    if get_origin(takes) in (Union, UnionType):
        return any(is_compatible(each, gives) for each in get_args(takes))
    if get_origin(gives) in (Union, UnionType):
        return any(is_compatible(takes, each) for each in get_args(gives))
    # Of list[str] and list[Document] only `list` is compared; what is within shows when it runs.
    given, taken = get_origin(gives) or gives, get_origin(takes) or takes
    try:
        return Any in (given, taken) or not isinstance(given, type) or issubclass(given, taken)
    except TypeError:
        # A protocol, say.
        return True


def format_type(kind: Any) -> str:
    """A type for people."""
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) and not get_args(kind) else str(kind)
