"""Who uses a folder of artifacts, and who is making what: locks that the system takes back from a dead process."""

from __future__ import annotations

import json
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rag_opt.system.waiting import hold_lock

LOCKS = ".locks"
LEASES = ".leases"
STRIPES = 64
"""Lock files a stage: two artifacts that share one wait for each other, which costs time but never blocks, because a
stage only waits for stages before it."""

POLL = 0.02
"""Seconds between two tries for a lock that is held only briefly."""


@contextmanager
def lock_artifact(root: Path, stage: str, key: str) -> Iterator[None]:
    """Alone at work on this artifact, among all processes."""
    with hold_lock(_build_lock(root, stage, key), f"is making {stage}"):
        yield


@contextmanager
def try_lock_artifact(root: Path, stage: str, key: str) -> Iterator[bool]:
    """Whether nobody is at work on this artifact, this process included; if so nobody else is until the end."""
    lock = _build_lock(root, stage, key)
    try:
        lock.acquire(timeout=0)
    except (Timeout, RuntimeError):
        # filelock raises RuntimeError where this process holds the lock itself.
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


class Lease:
    """Says that a process uses the folder, from now until `release` or the end of the process."""

    def __init__(self, root: Path) -> None:
        # The time first and in full width: in the order of their names the first living lease is the oldest.
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.lock"
        self._lock = FileLock(_make_folder(root / LEASES) / name)
        self._lock.acquire()

    def release(self) -> None:
        """Say that the folder is no longer used by this process."""
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def find_oldest_lease(root: Path) -> float:
    """Since when a living process uses the folder, in seconds of the epoch; inf when none does."""
    for path in sorted((root / LEASES).glob("*.lock")):
        if not is_abandoned(path):
            return int(path.name.partition("-")[0]) / 1e9
    return float("inf")


class Claims:
    """Which of many small things each process is making just now, so that no other makes them too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def claim_names(self, wanted: Callable[[], Sequence[str]], limit: int) -> Iterator[Sequence[str]]:
        """Up to `limit` of the wanted names that no living process has claimed; they are free again afterwards.

        `wanted` is asked when no other process can claim anything.
        """
        claim = FileLock(_make_folder(self.folder) / f"{os.getpid()}-{secrets.token_hex(4)}.claim")
        note = Path(claim.lock_file).with_suffix(".json")
        with hold_lock(FileLock(self.folder / "claims.lock", poll_interval=POLL), "is choosing what to compute"):
            taken = self._read_claimed()
            mine = [name for name in wanted() if name not in taken][:limit]
            # Held before it is noted: a note whose claim nobody holds is a dead process's.
            claim.acquire()
            note.write_text(json.dumps(mine), "utf-8")
        try:
            yield mine
        finally:
            note.unlink(missing_ok=True)
            claim.release()
            Path(claim.lock_file).unlink(missing_ok=True)

    def _read_claimed(self) -> set[str]:
        names: set[str] = set()
        for note in self.folder.glob("*.json"):
            if is_abandoned(note.with_suffix(".claim")):
                note.unlink(missing_ok=True)
                continue
            try:
                names.update(json.loads(note.read_text("utf-8")))
            except (FileNotFoundError, ValueError):
                # Its owner has just finished.
                continue
        return names


def is_abandoned(path: Path) -> bool:
    """Whether nobody holds this lock; its file is then removed."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, RuntimeError):
        # filelock raises RuntimeError where this process holds the lock itself.
        return False
    # filelock leaves the file where it is. It goes while the lock is held: who has opened it meanwhile finds it without
    # a name and tries again.
    path.unlink(missing_ok=True)
    lock.release()
    return True


def _build_lock(root: Path, stage: str, key: str) -> FileLock:
    # Not hash(), which gives each process other numbers for the same text.
    stripe = zlib.crc32(key.encode()) % STRIPES
    return FileLock(_make_folder(root / LOCKS) / f"{stage}-{stripe:02}.lock", poll_interval=POLL)


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
