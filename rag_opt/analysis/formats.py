"""Numbers as sentences and tables show them."""

from __future__ import annotations

# Costs are compared with it, too: what would be told as no change decides nothing.
NEGLIGIBLE = 0.005
"""A change below this share is told as none."""


def round_count(count: int) -> int:
    """The count to two digits: an estimate is no more exact."""
    return int(float(f"{count:.1e}"))


def round_difference(value: float) -> str:
    """A difference to two digits: 0.054."""
    return f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"


def format_score(value: float) -> str:
    """A score for people: four digits, those of a count none."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"


def format_signed(value: float) -> str:
    """A difference of scores for people."""
    return f"{value:+.4f}" if abs(value) < 10 else f"{value:+,.{1 if abs(value) < 1000 else 0}f}"


def format_cost(value: float) -> str:
    """A cost for people."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def capitalize_first(line: str) -> str:
    """The line with its first letter a capital one, the others as they are; "" for ""."""
    return line[:1].upper() + line[1:]
