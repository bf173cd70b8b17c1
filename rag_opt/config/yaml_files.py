"""YAML files of others, read only where what they describe is small once aliases (`*name`) are written out.

Nine aliases of nine aliases of … are ten lines that stand for a thousand million values (a "billion laughs"); a loader
shares them, whoever copies or prints them does not end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml import CSafeLoader

from rag_opt.errors import ConfigError

LARGEST = 50_000
"""Values that a file may stand for; of a long text every 200 characters count as one."""

DEEPEST = 100
"""Levels within each other."""


@dataclass
class _Node:
    anchor: str | None
    size: int = 1
    depth: int = 1


def read_yaml(path: Path) -> Any:
    """What a YAML file holds as plain containers; raises ConfigError for what is none, too large or too deep."""
    try:
        check_yaml(path)
        return yaml.load(path.read_text("utf-8"), CSafeLoader)
    except (yaml.YAMLError, UnicodeError, OSError) as error:
        raise ConfigError(f"{path}: can't be read as YAML: {' '.join(str(error).split())[:300]}") from error


def check_yaml(path: Path) -> None:
    """Raise ConfigError for a file that stands for too much; what is not YAML raises what the parser raises."""
    # Counted from the parser's events: nothing is built of a file before it is known to be small.
    with path.open("rb") as file:
        for node in _iterate_nodes(yaml.parse(file, CSafeLoader)):
            if node.size > LARGEST:
                raise ConfigError(
                    f"{path}: with its aliases (*name) written out it has more than {LARGEST:,} values; "
                    "a configuration has a few hundred: remove the aliases, or look where the file comes from"
                )
            if node.depth > DEEPEST:
                raise ConfigError(f"{path}: more than {DEEPEST} levels within each other; make it flatter")


def _iterate_nodes(events: Iterator[Any]) -> Iterator[_Node]:
    """The open nodes, each as often as it grows; aliases count as what they stand for."""
    known: dict[str, _Node] = {}
    root = _Node(None, 0, 0)
    waiting = [root]
    for event in events:
        parent = waiting[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            waiting.append(_Node(event.anchor))
            # One that names itself has no end.
            known |= {event.anchor: _Node(None, LARGEST + 1)} if event.anchor else {}
            parent.depth = max(parent.depth, 1)
            # Its depth so far: a node is complete only at its end, which a file of nothing but brackets never reaches.
            yield _Node(None, 1, len(waiting))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            node = waiting.pop()
            parent = waiting[-1]
        elif isinstance(event, yaml.ScalarEvent):
            node = _Node(event.anchor, 1 + len(event.value) // 200, 1)
        elif isinstance(event, yaml.AliasEvent):
            # An alias of nothing is the loader's to refuse.
            node = known.get(event.anchor or "", _Node(None))
        else:
            continue
        # At its end it is known how much its aliases stand for.
        if node.anchor:
            known[node.anchor] = node
        parent.size += node.size
        parent.depth = max(parent.depth, node.depth + 1)
        yield parent
