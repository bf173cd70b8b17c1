"""Checks of a component's parameters: ValueError, to which composing adds the key."""

from __future__ import annotations

import math
from typing import Any


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError unless the value is a whole number of at least `least`."""
    # By type, since isinstance would take True for a 1.
    require(type(value) is int and value >= least, f"{name} must be a whole number of at least {least}, not {value}")


def require_number(name: str, value: Any, least: float, most: float = math.inf) -> None:
    """Raise ValueError unless the value is a number of these limits."""
    told = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
    # What is no number can't be compared, which would say nothing of the key.
    known = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    require(known, f"{name} must be {told}, not {value}")


def require(condition: bool, what: str) -> None:
    """Raise ValueError with this text unless the condition holds; composing names the key."""
    if not condition:
        raise ValueError(what)
