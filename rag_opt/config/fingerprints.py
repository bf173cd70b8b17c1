"""What stands for a configuration in keys: what its parts compute, not where their classes live."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rag_opt.config.trust import TRUSTED, named
from rag_opt.records.keys import algorithm_of

PATIENCE = ("prices", "timeout", "tries", "at_once")
"""Keys that change neither what a model is asked nor what it says."""

MANNER = ("parameters", "window")
"""The same of a chat: how much it reads, and the names of what is sent."""


def described(node: Any, trusted: Collection[str] = ()) -> Any:
    """Plain containers for a stage's key: `by_algorithm`, less what has no influence on a result."""
    return _telling(by_algorithm(node, trusted))


def by_algorithm(node: Any, trusted: Collection[str] = ()) -> Any:
    """Plain containers with each `_target_` replaced by the algorithm of what it names, so that this may move.

    What names no algorithm, is in no trusted module (and not imported then), or does not exist stays as it is written.
    """
    if isinstance(node, list):
        return [by_algorithm(value, trusted) for value in node]
    if not isinstance(node, Mapping):
        return node
    told = {key: by_algorithm(value, trusted) for key, value in node.items()}
    return told | ({"_target_": _computed(told["_target_"], trusted)} if "_target_" in told else {})


def _computed(target: Any, trusted: Collection[str]) -> Any:
    if not isinstance(target, str) or target.partition(".")[0] not in (*TRUSTED, *trusted):
        return target
    try:
        return algorithm_of(named(target), target)
    except Exception:
        # Whatever an import may raise: a study builds, and so refuses, what its stages name before.
        return target


def _telling(node: Any) -> Any:
    if isinstance(node, Mapping):
        told = {key: _telling(value) for key, value in node.items() if key not in PATIENCE}
        return {**told, "chat": _chat(told["chat"])} if isinstance(told.get("chat"), Mapping) else told
    return [_telling(value) for value in node] if isinstance(node, list) else node


def _chat(node: Mapping[str, Any]) -> dict[str, Any]:
    unsaid = (*MANNER, *(() if node.get("thinking") else ("thinking",)))
    return {key: value for key, value in node.items() if key not in unsaid}
