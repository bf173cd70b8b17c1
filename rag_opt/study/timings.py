"""What configurations took, noted in the store beside their results, so that later studies know what is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.cache.artifact_files import SUFFIX, DamagedError, read_table, touch, write_table
from rag_opt.cache.eviction import get_last_used
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from rag_opt.cache.store import Store
    from rag_opt.config.search_space import Value

STAGE = "timings"

MOST = 500
"""Configurations that a study is told of, those noted or met last."""


def record_timings(store: Store, key: str, params: Mapping[str, Value], seconds: Mapping[str, float]) -> None:
    """Keep the seconds by stage of a configuration; what is there already stays. A full disk loses a note, no trial.

    `key` stands for all that is not in `params`: the data, the questions, the rest of the pipeline.
    """
    if store.root is None:
        return
    path = _get_folder(store.root, key) / f"{compute_key(dict(params))}{SUFFIX}"
    with suppress(OSError):
        if path.exists():
            # Eviction takes what was used longest ago, and `read_timings` the latest.
            touch(path)
        else:
            # 0.0 seconds: what costs nothing to lose need not be synced to the disk.
            write_table(path, {"params": [json.dumps(dict(params))], "seconds": [json.dumps(dict(seconds))]}, 0.0)


def read_timings(store: Store, key: str) -> list[tuple[dict[str, Value], dict[str, float]]]:
    """(parameters, seconds by stage) of what studies of this key measured, as far as the store keeps it; else []."""
    if store.root is None:
        return []
    found = []
    # A note that is evicted between its listing and this look counts as the oldest.
    paths = sorted(_get_folder(store.root, key).glob(f"*{SUFFIX}"), key=lambda path: get_last_used(path) or 0.0)
    for path in paths[: -MOST - 1 : -1]:
        # The store is shared, and its files may be damaged or another program's: what is no note is left out.
        with suppress(OSError, DamagedError, LookupError, ValueError):
            columns = read_table(path).columns
            params, seconds = json.loads(columns["params"][0]), json.loads(columns["seconds"][0])
            if (
                _is_flat(params)
                and _is_flat(seconds)
                and all(isinstance(each, int | float) for each in seconds.values())
            ):
                found.append((params, seconds))
    return found


def _get_folder(root: Path, key: str) -> Path:
    return root / STAGE / key


def _is_flat(value: Any) -> bool:
    return isinstance(value, dict) and not any(isinstance(each, dict | list) for each in value.values())
