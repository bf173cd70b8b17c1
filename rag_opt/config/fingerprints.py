"""What stands for a configuration in keys: what its parts compute, not where their classes live."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rag_opt.config.own_pipelines import SIDES, TYPE, strip_name
from rag_opt.config.trust import TRUSTED, import_target
from rag_opt.records.keys import drop_added, get_algorithm

PATIENCE = ("prices", "timeout", "tries", "at_once")
"""Keys that change neither what a model is asked nor what it says."""

MANNER = ("parameters", "window", "deadline", "device")
"""The same of a chat: how much it reads, the names of what is sent, how long a call may take, and where it runs."""


def normalize_for_key(node: Any, trusted: Collection[str] = ()) -> Any:
    """Plain containers for a stage's key: `replace_targets`, less what has no influence on a result."""
    return _drop_irrelevant(replace_targets(node, trusted))


def replace_targets(node: Any, trusted: Collection[str] = ()) -> Any:
    """Plain containers with each `_target_` replaced by the algorithm of what it names, so that this may move.

    What names no algorithm, is in no trusted module (and not imported then), or does not exist stays as it is written.
    """
    if isinstance(node, list):
        return [replace_targets(value, trusted) for value in node]
    if not isinstance(node, Mapping):
        return node
    # Nested ones as well: an encoder may move as its component may.
    told = {key: replace_targets(value, trusted) for key, value in node.items()}
    return told | ({"_target_": _get_algorithm(told["_target_"], trusted)} if "_target_" in told else {})


def _get_algorithm(target: Any, trusted: Collection[str]) -> Any:
    if not isinstance(target, str) or target.partition(".")[0] not in (*TRUSTED, *trusted):
        return target
    try:
        return get_algorithm(import_target(target), target)
    except Exception:
        # Whatever an import may raise: a study builds, and so refuses, what its stages name before.
        return target


def _drop_irrelevant(node: Any) -> Any:
    if isinstance(node, Mapping):
        # In memory the name is drawn at random; anywhere else it says which documents are meant.
        given = strip_name(node) if str(node.get(TYPE, "")).endswith("InMemoryDocumentStore") else node
        # A pipeline's content stands beside its file's place.
        told = {
            key: _drop_irrelevant(value)
            for key, value in drop_added(given).items()
            if key not in PATIENCE and not (key in SIDES and isinstance(value, str))
        }
        return {**told, "chat": _strip_chat(told["chat"])} if isinstance(told.get("chat"), Mapping) else told
    return [_drop_irrelevant(value) for value in node] if isinstance(node, list) else node


def _strip_chat(node: Mapping[str, Any]) -> dict[str, Any]:
    # No room to think is how a model is asked without the setting; any other changes what it says.
    unsaid = (*MANNER, *(() if node.get("thinking") else ("thinking",)))
    return {key: value for key, value in node.items() if key not in unsaid}
