"""Every text embedded once per encoder, by whichever process comes first."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_opt.artifacts import DamagedError, Table, read_table, size_of, touch, write_table
from rag_opt.components.encoder import Encoder
from rag_opt.keys import key_of
from rag_opt.leases import POLL, Claims
from rag_opt.progress import track
from rag_opt.records import Floats, Vectors
from rag_opt.store import SUFFIX, Store, guarded

FIRST_BLOCK = 256
BLOCK_SECONDS = 4.0
"""Texts are encoded in blocks of about so much work, each written down at once: what a kill can cost."""

LARGEST_BLOCK = 8192
GATHERED = 4096
"""Rows copied at once into a matrix on disk."""


def digest_of(text: str) -> str:
    """The name of a text on every shelf."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def embedded(encoder: Encoder, texts: list[str], store: Store) -> Vectors:
    """The vectors of the texts, float32 [texts, dimensions]; each text is encoded once per encoder, in whatever run.

    They are kept as one matrix, which is memory-mapped, so that a later run opens a file and encodes nothing.
    """
    names = [digest_of(text) for text in texts]
    key = key_of(encoder.fingerprint, names)
    if store.root is None:
        shelf = _shelf(encoder, store)
        seconds = shelf.add(names, texts)
        return Vectors(shelf.rows(names), key, seconds)
    if not store.keeps("matrices", key):
        # Before anything is locked, so that processes which want the same corpus divide it between them.
        _shelf(encoder, store).add(names, texts)
    folder = store.folder("matrices", key, lambda path: _write_matrix(path, _shelf(encoder, store), names, texts))
    values, seconds = store.live("vectors", key, lambda: _read_matrix(folder))
    return Vectors(values, key, seconds)


def looked_up(encoder: Encoder, texts: list[str], store: Store) -> Floats:
    """The vectors of the texts as `embedded` gives them, without a matrix on disk: for sets that won't come again."""
    names = [digest_of(text) for text in texts]
    shelf = _shelf(encoder, store)
    shelf.add(names, texts)
    return shelf.rows(names)


def scored(scorer: Any, pairs: list[str], store: Store) -> tuple[Floats, float]:
    """A scorer's score of each pair, float32 [pairs], and the seconds that scoring these took, whenever it was."""
    names = [digest_of(pair) for pair in pairs]
    shelf = _shelf(scorer, store)
    seconds = shelf.add(names, pairs)
    return (shelf.rows(names)[:, 0] if names else np.zeros(0, np.float32)), seconds


def _shelf(encoder: Encoder, store: Store) -> Shelf:
    return store.live("shelf", encoder.fingerprint, lambda: Shelf(encoder, store))


def _write_matrix(folder: Path, shelf: Shelf, names: list[str], texts: list[str]) -> None:
    seconds = shelf.add(names, texts)
    shape = (len(names), shelf.dimensions if names else 0)
    with (folder / "vectors.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for start in range(0, len(names), GATHERED):
            file.write(shelf.rows(names[start : start + GATHERED]).astype("<f4").tobytes())
    (folder / "seconds").write_text(repr(seconds), "utf-8")


def _read_matrix(folder: Path) -> tuple[Floats, float]:
    matrix = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    return matrix, float((folder / "seconds").read_text("utf-8"))


class Shelf:
    """The vectors of one encoder, found by the hash of their text: blocks on disk, memory-mapped."""

    def __init__(self, encoder: Encoder, store: Store) -> None:
        self.encoder, self.store = encoder, store
        self.folder = None if store.root is None else store.root / "vectors" / encoder.fingerprint
        self._blocks: list[Floats] = []
        self._place: dict[str, tuple[int, int]] = {}
        self._cost: list[float] = []
        self._read: set[str] = set()

    @property
    def dimensions(self) -> int:
        return int(self._blocks[0].shape[1])

    def add(self, names: Sequence[str], texts: Sequence[str]) -> float:
        """Encode what is not there yet; returns the seconds that encoding all of these texts took, whenever it was.

        Processes that want the same texts share the work: each takes a block that no other has taken.
        """
        self._refresh()
        wanted = {name: text for name, text in zip(names, texts, strict=True) if name not in self._place}
        # Neighbours of like length make full batches of equal length.
        queue = sorted(wanted, key=lambda name: len(wanted[name]))
        self.encoder.prepare(len(queue))
        limit = FIRST_BLOCK
        with track(f"{self.encoder.name}: embedding", len(queue)) as advance:
            while queue:
                start = time.perf_counter()
                # Never more than half of what is left, so that another process finds some to do.
                made = self._encode(queue, wanted, max(FIRST_BLOCK, min(limit, len(queue) // 2)))
                if made:
                    speed = made / (time.perf_counter() - start)
                    limit = min(LARGEST_BLOCK, max(FIRST_BLOCK, int(speed * BLOCK_SECONDS)))
                else:
                    time.sleep(POLL)
                left = [name for name in queue if name not in self._place]
                advance(len(queue) - len(left))
                queue = left
        return float(sum(self._cost[self._place[name][0]] for name in set(names)))

    def rows(self, names: Sequence[str]) -> Floats:
        """float32 [names, dimensions]."""
        if not names:
            return np.zeros((0, 0), np.float32)
        return np.stack([self._blocks[block][row] for block, row in (self._place[name] for name in names)])

    def _encode(self, queue: list[str], wanted: dict[str, str], limit: int) -> int:
        """Encode some of the queue that no other process encodes; returns how many, 0 when all are taken."""
        if self.folder is None:
            self._encoded(queue[:limit], wanted)
            return min(limit, len(queue))
        with Claims(self.folder).take(lambda: self._missing(queue), limit) as names:
            if names:
                self._encoded(names, wanted)
        return len(names)

    def _missing(self, queue: list[str]) -> list[str]:
        self._refresh()
        return [name for name in queue if name not in self._place]

    def _encoded(self, names: Sequence[str], wanted: dict[str, str]) -> None:
        begin = time.perf_counter()
        vectors = self.encoder.encode([wanted[name] for name in names])
        seconds = time.perf_counter() - begin
        if self.folder is None:
            self._shelve(names, Table({"vector": vectors}, seconds))
            return
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
        with guarded(path):
            write_table(path, {"name": list(names), "vector": vectors}, seconds)
        self.store.written(size_of(path))
        self._refresh()

    def _refresh(self) -> None:
        """Take in the blocks that this or another process has written since."""
        if self.folder is None:
            return
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.name in self._read or path.name.startswith("."):
                continue
            try:
                touch(path)
                table = read_table(path)
            except FileNotFoundError:
                continue
            except DamagedError:
                self.store.damaged(path)
                continue
            self._read.add(path.name)
            self._shelve(table.columns["name"], table)

    def _shelve(self, names: Sequence[str], table: Table) -> None:
        self._place.update({name: (len(self._blocks), row) for row, name in enumerate(names)})
        self._blocks.append(table.columns["vector"])
        self._cost.append(table.seconds / max(1, len(names)))
