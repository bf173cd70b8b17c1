"""Content-addressed artifacts on disk: what was computed once is found again under the key of how it was made.

A key is the hash of a stage's parameters and of its inputs' keys, so nothing is ever out of date. Files are written
under a temporary name, synced and renamed: a killed writer leaves nothing half-built. Tables are Arrow IPC files,
read by memory map; folders hold what a library writes itself. There is no pickle.

    <root>/<stage>/<key>.arrow      a table
    <root>/<stage>/<key>/           a folder
    <root>/vectors/<model>/*.arrow  embeddings, one row a text, found by the text's hash
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rag_opt.errors import StoreError

T = TypeVar("T")
Columns = Mapping[str, Any]
SUFFIX = ".arrow"


@dataclass(frozen=True)
class Table:
    """Named columns (arrays of one or two dimensions, or lists of texts) and the seconds that making them took."""

    columns: Mapping[str, Any]
    seconds: float


class Store:
    """Artifacts under one folder; without a folder (None) they live as long as the process.

    `hits` and `misses` count look-ups per stage. Objects that are cheap to make from artifacts (a BM25 index, a loaded
    model) are kept in memory only, the `live_limit` most recently used.
    """

    def __init__(self, root: Path | None = None, live_limit: int = 64) -> None:
        self.root = root
        self.hits: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        self._live: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._live_limit = live_limit
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def table(self, stage: str, key: str, make: Callable[[], Columns]) -> Table:
        """The table under this key, made and kept when it is not there."""
        found = self._remembered(stage, key) or self._read(stage, key)
        self._count(stage, found is not None)
        return self._remember(stage, key, found or self._new(stage, key, make))

    def folder(self, stage: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder under this key; `make` fills an empty one when it is not there."""
        target = self._folders() / stage / key
        self._count(stage, target.is_dir())
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        try:
            make(temporary)
            _rename_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def live(self, stage: str, key: str, make: Callable[[], T]) -> T:
        """The object under this key, made when it is not in memory."""
        found: T | None = self._remembered(stage, key)
        self._count(stage, found is not None)
        return found if found is not None else self._remember(stage, key, make())

    def check(self) -> None:
        """Raise StoreError unless the folder can be written."""
        if self.root is not None:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.root):
                    pass
            except OSError as error:
                raise StoreError(f"store.path={self.root}: can't be written: {error.strerror or error}") from error

    def shards(self, shelf: str) -> Iterator[Table]:
        """The tables of one shelf of vectors, oldest first."""
        paths = [] if self.root is None else sorted((self.root / "vectors" / shelf).glob(f"*{SUFFIX}"))
        return (table for table in map(read_table, paths) if table is not None)

    def add_shard(self, shelf: str, columns: Columns, seconds: float) -> None:
        """Append a table to a shelf of vectors."""
        if self.root is not None:
            name = f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
            _write_table(self.root / "vectors" / shelf / name, columns, seconds)

    def _remembered(self, stage: str, key: str) -> Any:
        found = self._live.get((stage, key))
        if found is not None:
            self._live.move_to_end((stage, key))
        return found

    def _remember(self, stage: str, key: str, value: T) -> T:
        self._live[stage, key] = value
        while len(self._live) > self._live_limit:
            self._live.popitem(last=False)
        return value

    def _count(self, stage: str, hit: bool) -> None:
        (self.hits if hit else self.misses)[stage] += 1

    def _read(self, stage: str, key: str) -> Table | None:
        path = None if self.root is None else self.root / stage / f"{key}{SUFFIX}"
        return read_table(path) if path is not None and path.exists() else None

    def _new(self, stage: str, key: str, make: Callable[[], Columns]) -> Table:
        start = time.perf_counter()
        columns = make()
        made = Table(columns, time.perf_counter() - start)
        if self.root is not None:
            _write_table(self.root / stage / f"{key}{SUFFIX}", columns, made.seconds)
        return made

    def _folders(self) -> Path:
        if self.root is not None:
            return self.root
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="rag_opt-")
        return Path(self._temporary.name)


def read_table(path: Path) -> Table | None:
    """The table of a file, memory-mapped; None when the file is damaged (it is then removed, to be made again)."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        path.unlink(missing_ok=True)
        return None
    columns = {name: _from_arrow(table.column(name).combine_chunks()) for name in table.column_names}
    return Table(columns, float(json.loads(table.schema.metadata[b"rag_opt"])["seconds"]))


def _write_table(path: Path, columns: Columns, seconds: float) -> None:
    arrays = {name: _to_arrow(column) for name, column in columns.items()}
    metadata = {"rag_opt": json.dumps({"seconds": seconds})}
    table = pa.table(arrays).replace_schema_metadata(metadata)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            temporary = Path(file.name)
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise StoreError(f"store.path: can't write {path}: {error.strerror or error}") from error


def _rename_folder(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        # Another process was first; its folder has the same content.
        if not target.is_dir():
            raise


def _to_arrow(column: Any) -> pa.Array:
    if isinstance(column, np.ndarray) and column.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(column).reshape(-1)), column.shape[1])
    return pa.array(column)


def _from_arrow(array: pa.Array) -> list[str] | NDArray[Any]:
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(len(array), array.type.list_size)  # type: ignore[no-any-return]
    if pa.types.is_string(array.type):
        return array.to_pylist()  # type: ignore[no-any-return]
    return array.to_numpy()  # type: ignore[no-any-return]
