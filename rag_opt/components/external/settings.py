"""What the doors for one's own have in common: limits that are numbers."""

from __future__ import annotations

from typing import Any

from rag_opt.components.checks import require, require_whole


def check_asking(at_once: Any, timeout: Any) -> None:
    """Raise ValueError unless these are a number of questions, and of seconds."""
    require_whole("pipeline.at_once", at_once)
    known = isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0
    require(known, f"pipeline.timeout must be a number of seconds above 0, not {timeout}")
