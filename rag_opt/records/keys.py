"""Content keys: the hash of how something was made, and what stands in it for the code that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FORM = "0.1.0"
"""The form of components' keys, no version of this package: another one would make everything anew."""

AS_BEFORE: Mapping[str, Any] = {"title_weight": 1.0, "headings": False, "accents": True}
"""Settings that were added since, with the value by which all is as it was: left out of keys.

Without it an addition would make every store begin anew, and refuse to resume every study.
"""


def drop_added(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters less those that were added since and change nothing."""
    return {name: value for name, value in parameters.items() if name not in AS_BEFORE or value != AS_BEFORE[name]}


def compute_key(*parts: Any) -> str:
    """The content key of JSON-like parts: 32 hex digits of SHA-256 over their canonical form."""
    # In ASCII, since texts may hold half of a surrogate pair, which no UTF-8 encodes.
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def get_algorithm(kind: Any, otherwise: str | None = None) -> str:
    """What a class or function computes, by the name that stands for it in keys wherever it lives.

    That is its own `algorithm`; of one that has none `otherwise`, or else its dotted name. What a class inherits does
    not count: a subclass computes something else until it says that it does not.
    """
    named = vars(kind).get("algorithm") if hasattr(kind, "__dict__") else None
    if isinstance(named, str):
        return named
    return f"{kind.__module__}.{kind.__qualname__}" if otherwise is None else otherwise
