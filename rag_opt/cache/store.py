"""Content-addressed artifacts on disk: what was computed once is found again under the key of how it was made.

A key is the hash of a stage's parameters and of its inputs' keys, so nothing is ever out of date. Processes share a
store: of several that want the same artifact one makes it and the others wait. A file that is not what was written is
made again, and that is said.

    <root>/<stage>/<key>.arrow      a table, memory-mapped
    <root>/<stage>/<key>/           a folder: what a library writes itself
    <root>/vectors/<model>/*.arrow  embeddings, one row a text, found by the text's hash (components.embedders)
    <root>/replies.db               what language models answered (replies.py); never evicted
    <root>/usage.json               look-ups by stage

`python -m rag_opt.store` shows what is kept, and prunes it (cli/store.py).
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rag_opt.cache.artifact_files import (
    MANIFEST,
    SUFFIX,
    Columns,
    DamagedError,
    Table,
    get_size,
    read_folder,
    read_table,
    remove,
    touch,
    write_folder,
    write_table,
)
from rag_opt.cache.eviction import add_usage, evict_artifacts, format_artifacts
from rag_opt.cache.leases import Lease, lock_artifact
from rag_opt.console.screens import report_line
from rag_opt.errors import StoreError
from rag_opt.system.permissions import catch_disk_errors

T = TypeVar("T")
GIGABYTE = 1_000_000_000
CHECK_EVERY = 0.05
"""Share of the size limit that may be written before the limit is looked at again."""


class Store:
    """Artifacts under one folder; without a folder (None) they live as long as the process.

    `hits` and `misses` count look-ups of tables and folders per stage since the last `save_usage`. Objects that are
    cheap to make from artifacts (a BM25 index, a loaded model) are kept in memory only, the `live_limit`
    most recently used. `limit` is in bytes (None: none). `sealed` is a folder of artifacts that is only read, for a
    store without a folder of its own. `used` are the files and folders of artifacts that were found or made on disk.
    """

    passing = False
    """Whether nothing of a question is to stay (see PassingStore)."""

    def __init__(
        self, root: Path | None = None, limit: int | None = None, live_limit: int = 64, sealed: Path | None = None
    ) -> None:
        self.root = root
        self.sealed = sealed
        self.used: set[Path] = set()
        self.limit = limit
        self.hits: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        # Some components work in several threads.
        self._guard = threading.RLock()
        self._live: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._live_limit = live_limit
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lease: Lease | None = None
        self._written = 0

    def get_table(self, stage: str, key: str, make: Callable[[], Columns]) -> Table:
        """The table under this key, made and kept when it is not there; raises StoreError where the disk refuses.

        Of several processes that want it one makes it. What `make` raises is raised, and nothing is kept.
        """
        found: Table | None = self._recall(stage, key)
        made = False
        if found is None:
            found, made = self._load_table(stage, key, make)
        self.count_lookup(stage, hit=not made)
        return self._remember(stage, key, found)

    def _load_table(self, stage: str, key: str, make: Callable[[], Columns]) -> tuple[Table, bool]:
        if self.root is None:
            sealed = self.read_sealed(stage, key)
            return (self._make_table(make), True) if sealed is None else (sealed, False)
        path = self.root / stage / f"{key}{SUFFIX}"
        return self._read_or_make(stage, key, path, lambda: read_table(path), lambda: self._save_table(path, make))

    def get_folder(self, stage: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder under this key; `make` fills an empty one when it is not there. What is in it must not change."""
        path = self._get_place(stage, key)
        made = False
        # What is remembered is that its files were checked, which reads them all: once a process is enough.
        if self._recall(stage, key) is None:
            seconds, made = self._read_or_make(
                stage, key, path, lambda: read_folder(path), lambda: self._save_folder(path, make), self._get_root()
            )
            self._remember(stage, key, seconds)
        self.count_lookup(stage, hit=not made)
        return path

    def read_sealed(self, stage: str, key: str) -> Table | None:
        """The table of a folder that is only read; None where there is none. Raises StoreError for a damaged one."""
        if self.sealed is None:
            return None
        path = self.sealed / stage / f"{key}{SUFFIX}"
        with catch_disk_errors(path):
            try:
                return read_table(path)
            except FileNotFoundError:
                return None
            except DamagedError as error:
                raise _explain_sealed(path) from error

    def has_folder(self, stage: str, key: str) -> bool:
        """Whether a folder is on disk under this key."""
        places = (place for place in (self.root, self.sealed) if place is not None)
        return any((place / stage / key).is_dir() for place in places)

    def get_seconds(self, stage: str, key: str) -> float:
        """How long the making of a folder of this process took, whenever that was."""
        found = self._recall(stage, key)
        return float(read_folder(self._get_place(stage, key)) if found is None else found)

    def get_object(self, stage: str, key: str, make: Callable[[], T], keep: int = 0) -> T:
        """The object under this key, made when it is not in memory.

        Of large ones only the last `keep` of their stage stay (0: no limit of its own). Threads that ask for it at once
        may each make it.
        """
        found: T | None = self._recall(stage, key)
        if found is None:
            found = self._remember(stage, key, make())
        with self._guard:
            mine = [name for name in self._live if name[0] == stage]
            for name in mine[:-keep] if keep else ():
                del self._live[name]
        return found

    def check(self) -> None:
        """Raise StoreError unless the folder can be written; from now on what is used in it stays."""
        if self.root is not None:
            with catch_disk_errors(self.root):
                self._take_lease(self.root)
                # A folder that can't be written says so here, not in the first trial.
                with tempfile.TemporaryFile(dir=self.root):
                    pass
            self.trim()

    def lease(self) -> None:
        """From now on what is used in the folder stays."""
        if self.root is not None:
            with catch_disk_errors(self.root):
                self._take_lease(self.root)

    def trim(self) -> None:
        """Bring the folder below its limit, as far as no process uses what is in it."""
        self._written = 0
        if self.root is not None and self.limit is not None and (removed := evict_artifacts(self.root, self.limit)):
            report_line(f"store: above its limit, so {format_artifacts(removed)} not used for longest were removed")

    def save_usage(self) -> None:
        """Add this process's look-ups to those of all, so that `python -m rag_opt.store` can show them."""
        if self.root is not None and self.root.is_dir() and (self.hits or self.misses):
            with catch_disk_errors(self.root):
                add_usage(self.root, self.hits, self.misses)
        self.hits.clear()
        self.misses.clear()

    def count_written(self, size: int) -> None:
        """Count bytes that were added, and look at the limit once they are many."""
        self._written += size
        if self.limit is not None and self._written > CHECK_EVERY * self.limit:
            self.trim()

    def remove_damaged(self, path: Path) -> None:
        """Say that a file is not what was written, and remove it."""
        report_line(f"store: {path} is damaged; it is made again")
        with suppress(OSError):
            remove(path)

    def _read_or_make(
        self, stage: str, key: str, path: Path, read: Callable[[], T], make: Callable[[], T], root: Path | None = None
    ) -> tuple[T, bool]:
        """What is there, else what is made, by one process alone; and whether it was made."""
        root = self.root or root
        assert root is not None
        with catch_disk_errors(path):
            self._take_lease(root)
            found = self._try_read(path, read)
        if found is not None:
            return found, False
        with lock_artifact(root, stage, key):
            with catch_disk_errors(path):
                # Who had the lock before may just have made it.
                # Only here is nobody else at work on it, so only here may a damaged file go.
                found = self._try_read(path, read, mend=True)
            # Outside of catch_disk_errors: an OSError of the component that makes it is not the store's.
            return (make(), True) if found is None else (found, False)

    def _try_read(self, path: Path, read: Callable[[], T], *, mend: bool = False) -> T | None:
        # A touch is what keeps it from being evicted, so it comes first.
        try:
            # What is sealed is only read, and never evicted.
            if self.sealed not in path.parents:
                touch(path / MANIFEST if path.is_dir() else path)
            found = read()
            self.used.add(path)
            return found
        except FileNotFoundError:
            damaged = path.is_dir()
        except DamagedError:
            damaged = True
        if damaged and self.sealed in path.parents:
            raise _explain_sealed(path)
        if damaged and mend:
            self.remove_damaged(path)
        return None

    def _save_table(self, path: Path, make: Callable[[], Columns]) -> Table:
        made = self._make_table(make)
        with catch_disk_errors(path):
            write_table(path, made.columns, made.seconds)
        self.count_written(path.stat().st_size)
        self.used.add(path)
        return made

    def _save_folder(self, path: Path, make: Callable[[Path], None]) -> float:
        with catch_disk_errors(path):
            write_folder(path, make)
            seconds = read_folder(path)
        self.count_written(get_size(path))
        self.used.add(path)
        return seconds

    def _make_table(self, make: Callable[[], Columns]) -> Table:
        start = time.perf_counter()
        columns = make()
        return Table(columns, time.perf_counter() - start)

    def _recall(self, stage: str, key: str) -> Any:
        with self._guard:
            found = self._live.get((stage, key))
            if found is not None:
                self._live.move_to_end((stage, key))
        return found

    def _remember(self, stage: str, key: str, value: T) -> T:
        with self._guard:
            self._live[stage, key] = value
            while len(self._live) > self._live_limit:
                self._live.popitem(last=False)
        return value

    def count_lookup(self, stage: str, *, hit: bool) -> None:
        """Count a look-up."""
        with self._guard:
            (self.hits if hit else self.misses)[stage] += 1

    def _take_lease(self, root: Path) -> None:
        if self._lease is None:
            self._lease = Lease(root)

    def _get_place(self, stage: str, key: str) -> Path:
        """Where a folder lies, or is to lie."""
        if self.sealed is not None and (self.sealed / stage / key / MANIFEST).is_file():
            return self.sealed / stage / key
        return self._get_root() / stage / key

    def _get_root(self) -> Path:
        if self.root is not None:
            return self.root
        # A library that fills a folder needs a place on disk, even for a store in memory; it goes with the store.
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="rag_opt-")
        return Path(self._temporary.name)


def _explain_sealed(path: Path) -> StoreError:
    return StoreError(f"{path}: it is not what was written; fetch or promote the model anew")
