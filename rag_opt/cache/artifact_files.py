"""The files of artifacts: Arrow tables and folders, each with its SHA-256, each there whole or not at all.

A table is an Arrow IPC file with 32 bytes behind it: the hash of all before. A folder has a file `artifact.json` with
the hash of every other one. Both are written under a temporary name and renamed. There is no pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rag_opt.system.permissions import make_unique_path

TEMPORARY = ".new-"
"""How the names of unfinished files and folders begin."""

MANIFEST = "artifact.json"
SUFFIX = ".arrow"
"""How the name of a table ends."""

DIGEST = hashlib.sha256().digest_size
DEAR = 1.0
"""Seconds of work from which an artifact is forced to the disk; a cheaper one is just made again after a power cut."""

Columns = Mapping[str, Any]


class DamagedError(Exception):
    """A file that is not what was written."""


@dataclass(frozen=True)
class Table:
    """Named columns (arrays of one or two dimensions, or lists of texts) and the seconds that making them took.

    The seconds are those of the first making: they stay with the table, so that kept work fakes no latency.
    """

    columns: Columns
    seconds: float


def write_table(path: Path, columns: Columns, seconds: float) -> None:
    """Write the table in one step; raises OSError when it can't be."""
    arrays = {name: _to_arrow(column) for name, column in columns.items()}
    metadata = {"rag_opt": json.dumps({"seconds": seconds})}
    table = pa.table(arrays).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = make_unique_path(path.parent, TEMPORARY)
    with temporary.open("xb") as file:
        try:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            digest = _hash_file(temporary)
            file.seek(0, os.SEEK_END)
            file.write(digest)
            file.flush()
            if seconds >= DEAR:
                os.fsync(file.fileno())
        except BaseException:
            # An interrupt, too, leaves nothing behind.
            temporary.unlink(missing_ok=True)
            raise
    # Before it has its name: eviction must never see it older than the lease of the process that made it.
    touch(temporary)
    temporary.replace(path)


def read_table(path: Path) -> Table:
    """The table of a file, its arrays read-only and memory-mapped; raises DamagedError, or FileNotFoundError."""
    try:
        # The map lives as long as an array that was cut from it.
        content = pa.memory_map(str(path)).read_buffer()
        # A file that was cut short may be smaller than a hash.
        body = content.slice(0, max(0, content.size - DIGEST))
        if hashlib.sha256(body).digest() != content.slice(body.size).to_pybytes():
            raise DamagedError(path)
    except pa.ArrowInvalid as error:
        raise DamagedError(path) from error
    try:
        # A right hash says who wrote the bytes last, not what they are.
        table = pa.ipc.open_file(pa.BufferReader(body)).read_all()
        seconds = float(json.loads(table.schema.metadata[b"rag_opt"])["seconds"])
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        raise DamagedError(path) from error
    return Table({name: _from_arrow(_merge_chunks(table.column(name))) for name in table.column_names}, seconds)


def write_folder(target: Path, make: Callable[[Path], None]) -> None:
    """Have `make` fill an empty folder, and put it in place in one step; raises what `make` raises, or OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = make_unique_path(target.parent, TEMPORARY)
    temporary.mkdir()
    try:
        start = time.perf_counter()
        make(temporary)
        seconds = time.perf_counter() - start
        files = {path.relative_to(temporary).as_posix(): _hash_file(path).hex() for path in _list_files(temporary)}
        if seconds >= DEAR:
            for path in _list_files(temporary):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        # Last of all: a folder without a manifest was never finished.
        (temporary / MANIFEST).write_text(json.dumps({"seconds": seconds, "sha256": files}), "utf-8")
        touch(temporary / MANIFEST)
        # Unlike a file's this fails where a folder is in the way; whoever holds the artifact's lock has removed it.
        temporary.rename(target)
    finally:
        # Nothing is left under this name where all went well.
        shutil.rmtree(temporary, ignore_errors=True)


def read_folder(path: Path) -> float:
    """The seconds that making this folder took, all its files checked; raises DamagedError, or FileNotFoundError."""
    manifest = (path / MANIFEST).read_text("utf-8") if path.is_dir() and (path / MANIFEST).exists() else None
    if manifest is None:
        raise DamagedError(path) if path.exists() else FileNotFoundError(path)
    try:
        told = json.loads(manifest)
        for name, digest in told["sha256"].items():
            if _hash_file(path / name).hex() != digest:
                raise DamagedError(path / name)
        return float(told["seconds"])
    except (ValueError, LookupError, TypeError, FileNotFoundError) as error:
        raise DamagedError(path) from error


def touch(path: Path) -> None:
    """Note that a file was needed just now; raises FileNotFoundError when it is gone."""
    # By the clock that leases are stamped with: the file system's own may lag by some milliseconds.
    now = time.time_ns()
    # Who may only read a folder uses what is in it all the same; it may just be evicted sooner.
    with suppress(PermissionError):
        try:
            os.utime(path, ns=(now, now))
        except PermissionError:
            # Another's file that a group may write takes no moment but this one.
            os.utime(path)


def get_size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 when it is gone."""
    try:
        return sum(file.stat().st_size for file in _list_files(path)) if path.is_dir() else path.stat().st_size
    except FileNotFoundError:
        # Another process may have evicted it meanwhile.
        return 0


def remove(path: Path) -> None:
    """Remove a file, or a folder in one step."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # Renamed first, so that no reader finds half a folder; if this process dies, the rest is swept as unfinished.
    aside = make_unique_path(path.parent, TEMPORARY)
    aside.mkdir()
    path.rename(aside / path.name)
    shutil.rmtree(aside, ignore_errors=True)


def _list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _hash_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _to_arrow(column: Any) -> pa.Array:
    if isinstance(column, np.ndarray) and column.ndim == 2:
        # Arrow takes arrays of one dimension only.
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(column).reshape(-1)), column.shape[1])
    # Of an empty list Arrow can't know what it would hold, and gives it a type that does not come back as texts.
    return pa.array(column, pa.string()) if isinstance(column, list) and not column else pa.array(column)


def _merge_chunks(column: pa.ChunkedArray) -> pa.Array:
    # combine_chunks copies even a single chunk, which would end the memory map.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _from_arrow(array: pa.Array) -> list[Any] | NDArray[Any]:
    if pa.types.is_fixed_size_list(array.type):
        # Not `values`, which ignores where a slice begins and ends.
        return array.flatten().to_numpy().reshape(len(array), array.type.list_size)  # type: ignore[no-any-return]
    # Only texts are copied: by default to_numpy refuses to, so that numbers stay in the memory map.
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        return array.to_pylist()  # type: ignore[no-any-return]
    return array.to_numpy()  # type: ignore[no-any-return]


def link_file(source: Path, target: Path) -> None:
    """Have the target be the source's file, as a hard link; a copy where the file system has none between them."""
    # What lies there may be a link of somebody's to anywhere.
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
