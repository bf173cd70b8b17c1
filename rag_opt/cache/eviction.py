"""What a store holds, and keeping it below a size: least recently used first, never what a running study may use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from rich.table import Table as Grid
from rich.text import Text

from rag_opt.cache.artifact_files import MANIFEST, SUFFIX, TEMPORARY, get_size, remove
from rag_opt.cache.leases import find_oldest_lease, try_lock_artifact
from rag_opt.system.waiting import hold_lock

USAGE = "usage.json"
IN_STORES = "indexes in document stores"
"""The stage that says which indexes in document stores are whole: who removes it has to remove these, too."""

NEVER = ("paces", IN_STORES)
"""Stages that are never evicted: a precision that was measured again might change what an embedding is."""

CLOCKS = 2.0
"""Seconds by which the clocks of a file system and of this machine may differ."""

Usage = dict[str, dict[str, int]]
"""Look-ups by stage: {"chunks": {"hits": 12, "misses": 1}}."""


@dataclass(frozen=True)
class Artifact:
    """A file or folder of a store; `used` is when it was last needed, in seconds of the epoch."""

    stage: str
    key: str
    path: Path
    bytes: int
    used: float


def list_artifacts(root: Path) -> list[Artifact]:
    """Everything that a store keeps, least recently used first; [] for a folder that is not there.

    What a store does not write is no artifact: the folder may hold other things, which are never removed.
    """
    return sorted(_find_artifacts(root), key=lambda artifact: artifact.used)


def _find_artifacts(root: Path) -> Iterator[Artifact]:
    # Locks and leases lie in folders whose names begin with a dot.
    stages = [path for path in root.glob("*") if path.is_dir() and not path.name.startswith(".")]
    for stage in stages:
        for path in stage.glob("*"):
            if path.name.startswith("."):
                continue
            if _holds_vectors(path):
                yield from _find_shards(stage.name, path)
            elif path.is_dir() or path.suffix == SUFFIX:
                yield from _find_artifact(stage.name, path)


def _holds_vectors(path: Path) -> bool:
    # The folder of an encoder's vectors has no manifest: each file in it is an artifact of its own.
    return path.is_dir() and not (path / MANIFEST).exists()


def _find_shards(stage: str, folder: Path) -> Iterator[Artifact]:
    for path in folder.glob(f"*{SUFFIX}"):
        if not path.name.startswith("."):
            yield from _find_artifact(stage, path)


def _find_artifact(stage: str, path: Path) -> Iterator[Artifact]:
    used = get_last_used(path)
    if used is not None:
        yield Artifact(stage, path.stem, path, get_size(path), used)


def get_last_used(path: Path) -> float | None:
    """When an artifact was last needed; None when it is gone."""
    try:
        return (path / MANIFEST if path.is_dir() else path).stat().st_mtime
    except FileNotFoundError:
        return None


def evict_artifacts(
    root: Path, limit: float, unused_since: float = float("-inf"), never: Collection[str] = NEVER
) -> list[Artifact]:
    """Remove artifacts until the rest has at most `limit` bytes, and those not used since; returns what was removed.

    What a living process may use stays, even above the limit; so does a stage of `never`, which does not count.
    """
    begin = time.time()
    kept = [artifact for artifact in list_artifacts(root) if artifact.stage not in never]
    total = sum(artifact.bytes for artifact in kept)
    # An artifact is touched when a process first needs it, so what is older than every process is free.
    free_before = find_oldest_lease(root)
    removed = []
    for artifact in kept:
        if artifact.used >= free_before or (total <= limit and artifact.used >= unused_since):
            continue
        if _remove_unused(root, artifact):
            removed.append(artifact)
            total -= artifact.bytes
    # A process that has begun since has a lease that was not seen.
    _remove_temporary(root, min(free_before, begin - CLOCKS))
    return removed


def _remove_unused(root: Path, artifact: Artifact) -> bool:
    """Remove it unless it was needed in between."""
    # Nobody is waited for: what a process is at work on is needed.
    with try_lock_artifact(root, artifact.stage, artifact.key) as free:
        unused = free and get_last_used(artifact.path) == artifact.used
        if unused:
            try:
                remove(artifact.path)
            except OSError:
                # Some systems keep what is open.
                return False
    return unused


def _remove_temporary(root: Path, before: float) -> None:
    """Remove what killed processes left half-written."""
    for folder, folders, files in os.walk(root):
        for path in [Path(folder, name) for name in (*folders, *files) if name.startswith(TEMPORARY)]:
            # Its owner may just have finished it.
            with suppress(OSError):
                if path.stat().st_mtime < before:
                    remove(path)


def read_usage(root: Path) -> Usage:
    """The look-ups that all processes have added; {} when there are none, or when the file can't be read."""
    try:
        found: Usage = json.loads((root / USAGE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def add_usage(root: Path, hits: Mapping[str, int], misses: Mapping[str, int]) -> None:
    """Add look-ups to those of all processes."""
    with hold_lock(FileLock(root / f"{USAGE}.lock"), f"is writing {root / USAGE}"):
        usage = read_usage(root)
        for name, counts in (("hits", hits), ("misses", misses)):
            for stage, count in counts.items():
                usage.setdefault(stage, {"hits": 0, "misses": 0})[name] += count
        # Only who holds the lock writes, so the process's number makes the name unique; what a kill leaves is swept.
        temporary = root / f"{TEMPORARY}{USAGE}-{os.getpid()}"
        temporary.write_text(json.dumps(usage, indent=1), "utf-8")
        temporary.replace(root / USAGE)


def format_size(size: int) -> str:
    """Bytes as people read them: 512 B, 1.4 MB, 3.0 GB."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{size} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def format_artifacts(found: Sequence[Artifact]) -> str:
    """How many artifacts these are, and their size, in words."""
    return f"{len(found):,} artifacts ({format_size(sum(artifact.bytes for artifact in found))})"


def build_store_table(root: Path) -> Grid:
    """What is kept, stage by stage."""
    grid = Grid(title=f"{root}: what is kept", title_justify="left")
    grid.add_column("stage")
    for name in ("entries", "size", "hits", "misses", "last used"):
        grid.add_column(name, justify="right")
    kept, usage = list_artifacts(root), read_usage(root)
    for stage in sorted({artifact.stage for artifact in kept} | set(usage)):
        here = [artifact for artifact in kept if artifact.stage == stage]
        looked = usage.get(stage, {"hits": 0, "misses": 0})
        when = f"{datetime.fromtimestamp(here[-1].used).astimezone():%Y-%m-%d %H:%M}" if here else "in memory only"
        size = format_size(sum(artifact.bytes for artifact in here))
        grid.add_row(Text(stage), f"{len(here):,}", size, f"{looked['hits']:,}", f"{looked['misses']:,}", when)
    grid.caption = f"{format_artifacts(kept)} in all"
    return grid
