"""Every text embedded once per encoder, by whichever process comes first."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.cache.artifact_files import SUFFIX, DamagedError, Table, get_size, read_table, touch, write_table
from rag_opt.cache.leases import POLL, Claims, lock_artifact
from rag_opt.console.progress import track
from rag_opt.records.documents import Floats
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Vectors
from rag_opt.system.permissions import catch_disk_errors

if TYPE_CHECKING:
    from rag_opt.cache.store import Store
    from rag_opt.components.embedders.encoder import Encoder

FIRST_BLOCK = 256
BLOCK_SECONDS = 4.0
"""Texts are encoded in blocks of about so much work, each written down at once: what a kill can cost."""

LARGEST_BLOCK = 8192


def hash_text(text: str) -> str:
    """The name of a text among the vectors of every encoder: 32 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def embed_texts(encoder: Encoder, texts: list[str], store: Store) -> Vectors:
    """The vectors of the texts, float32 [texts, dimensions]; each text is encoded once per encoder, in whatever run.

    They are kept in one block, which is memory-mapped, so that a later run opens a file and encodes nothing. No texts
    give [0, 0].
    """
    names = [hash_text(text) for text in texts]
    key = compute_key(encoder.fingerprint, names)
    sealed = store.read_sealed(f"vectors/{encoder.fingerprint}", key)
    if sealed is not None:
        # A block's seconds are those of all its rows, repeated texts included, each of which was encoded once.
        return Vectors(sealed.columns["vector"], key, sealed.seconds * len(set(names)) / len(names))
    cache = _get_cache(encoder, store)
    # In memory, or of nothing, there is no file to map.
    if store.root is None or not names:
        seconds = cache.add(names, texts)
        return Vectors(cache.get_vectors(names), key, seconds)
    values, seconds = cache.get_block(key, names, texts)
    return Vectors(values, key, seconds)


def get_embeddings(encoder: Encoder, texts: list[str], store: Store) -> Floats:
    """The vectors of the texts as `embed_texts` gives them, without a matrix on disk: for sets not seen again."""
    names = [hash_text(text) for text in texts]
    cache = _get_cache(encoder, store)
    cache.add(names, texts)
    return cache.get_vectors(names)


def score_pairs(scorer: Any, pairs: list[str], store: Store) -> tuple[Floats, float]:
    """A scorer's score of each pair, float32 [pairs], and the seconds that scoring these took, whenever it was."""
    names = [hash_text(pair) for pair in pairs]
    cache = _get_cache(scorer, store)
    seconds = cache.add(names, pairs)
    return (cache.get_vectors(names)[:, 0] if names else np.zeros(0, np.float32)), seconds


def _get_cache(encoder: Encoder, store: Store) -> EmbeddingCache:
    return store.get_object("embedding cache", encoder.fingerprint, lambda: EmbeddingCache(encoder, store))


class EmbeddingCache:
    """The vectors of one encoder, found by the hash of their text: blocks on disk, memory-mapped."""

    def __init__(self, encoder: Encoder, store: Store) -> None:
        self.encoder, self.store = encoder, store
        self.folder = None if store.root is None else store.root / "vectors" / encoder.fingerprint
        # By the number of a block: its rows, its file (on disk alone), the seconds of one row. A text's place is
        # (block, row).
        self._blocks: list[Floats] = []
        self._files: list[Path] = []
        self._place: dict[str, tuple[int, int]] = {}
        self._cost: list[float] = []
        self._read: set[str] = set()

    def add(self, names: Sequence[str], texts: Sequence[str]) -> float:
        """Encode what is not there yet; returns the seconds that encoding all of these texts took, whenever it was.

        Processes that want the same texts share the work: each takes a block that no other has taken.
        """
        self._refresh()
        wanted = {name: text for name, text in zip(names, texts, strict=True) if name not in self._place}
        # Neighbours of like length make full batches with little padding.
        queue = sorted(wanted, key=lambda name: len(wanted[name]))
        if queue:
            # Before anything is timed, and not at all where every text is known: no model is loaded for nothing.
            self.encoder.prepare(len(queue))
        limit = FIRST_BLOCK
        with track(f"{self.encoder.name}: embedding", len(queue)) as advance:
            while queue:
                start = time.perf_counter()
                # Never more than half of what is left, so that another process finds some to do.
                made = self._encode_unclaimed(queue, wanted, max(FIRST_BLOCK, min(limit, len(queue) // 2)))
                if made:
                    speed = made / (time.perf_counter() - start)
                    limit = min(LARGEST_BLOCK, max(FIRST_BLOCK, int(speed * BLOCK_SECONDS)))
                else:
                    # All that is left is claimed by other processes: their blocks come soon.
                    time.sleep(POLL)
                left = [name for name in queue if name not in self._place]
                advance(len(queue) - len(left))
                queue = left
        return float(sum(self._cost[self._place[name][0]] for name in set(names)))

    def get_vectors(self, names: Sequence[str]) -> Floats:
        """float32 [names, dimensions], a copy; of no names [0, 0]. Raises KeyError for a text that was not added."""
        if not names:
            return np.zeros((0, 0), np.float32)
        return np.stack([self._blocks[block][row] for block, row in (self._place[name] for name in names)])

    def get_block(self, key: str, names: Sequence[str], texts: Sequence[str]) -> tuple[Floats, float]:
        """The rows of these texts, and the seconds they took: from a block of their own, made under `key`.

        It takes the place of the blocks in which they were written down as they were encoded.
        """
        root, folder = self.store.root, self.folder
        assert root is not None
        assert folder is not None
        path = folder / f"{key}{SUFFIX}"
        # Before the look-up: from here on eviction spares what is touched.
        self.store.lease()
        found = self._read_block(path)
        self.store.count_lookup("vectors", hit=found is not None)
        self.store.used.add(path)
        if found is None:
            # Before anything is locked, so that processes which want the same corpus divide it between them.
            seconds = self.add(names, texts)
            with lock_artifact(root, "vectors", key):
                # Another process may have merged it while this one waited for the lock.
                found = self._read_block(path) or self._merge_blocks(path, names, seconds)
        return found.columns["vector"], found.seconds * len(set(names)) / len(names)

    def _read_block(self, path: Path) -> Table | None:
        with catch_disk_errors(path):
            try:
                touch(path)
                return read_table(path)
            except FileNotFoundError:
                return None
            except DamagedError:
                self.store.remove_damaged(path)
                return None

    def _merge_blocks(self, path: Path, names: Sequence[str], seconds: float) -> Table:
        """The block of these texts written, pieces that hold nothing else removed."""
        wanted = set(names)
        others = {block for name, (block, _) in self._place.items() if name not in wanted}
        # Whole ones are other corpora's.
        pieces = [block for block, file in enumerate(self._files) if "-" in file.name and block not in others]
        with catch_disk_errors(path):
            # Equal texts were encoded once; a block's seconds are those of all its rows.
            seconds *= len(names) / len(wanted)
            write_table(path, {"name": list(names), "vector": self.get_vectors(names)}, seconds)
            self.store.count_written(get_size(path))
            # The new block is taken in before its pieces go, so that every text keeps a place.
            self._refresh()
            for block in pieces:
                # Frees the memory; the entry stays, since places count blocks by their number.
                self._blocks[block] = np.zeros((0, 0), np.float32)
                with suppress(OSError):
                    # Some systems keep what is open.
                    self._files[block].unlink(missing_ok=True)
            return read_table(path)

    def _encode_unclaimed(self, queue: list[str], wanted: dict[str, str], limit: int) -> int:
        """Encode some of the queue that no other process encodes; returns how many, 0 when all are taken."""
        if self.folder is None:
            self._encode_block(queue[:limit], wanted)
            return min(limit, len(queue))
        # What is missing is looked up under the lock of claims: what was just written is not encoded twice.
        with Claims(self.folder).claim_names(lambda: self._find_missing(queue), limit) as names:
            if names:
                self._encode_block(names, wanted)
        return len(names)

    def _find_missing(self, queue: list[str]) -> list[str]:
        self._refresh()
        return [name for name in queue if name not in self._place]

    def _encode_block(self, names: Sequence[str], wanted: dict[str, str]) -> None:
        begin = time.perf_counter()
        vectors = self.encoder.encode([wanted[name] for name in names])
        seconds = time.perf_counter() - begin
        if self.folder is None:
            self._add_block(names, Table({"vector": vectors}, seconds))
            return
        # In the order of names the oldest comes first. The dash marks a piece: the key of a whole block has none.
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
        with catch_disk_errors(path):
            write_table(path, {"name": list(names), "vector": vectors}, seconds)
        self.store.count_written(get_size(path))
        self._refresh()

    def _refresh(self) -> None:
        """Take in the blocks that this or another process has written since."""
        if self.folder is None:
            return
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            # Names with a dot in front are files that are still being written.
            if path.name in self._read or path.name.startswith("."):
                continue
            try:
                # Before it is read, so that eviction does not take it in between.
                touch(path)
                table = read_table(path)
            except FileNotFoundError:
                # Merged into a whole block, or evicted, since it was listed.
                continue
            except DamagedError:
                self.store.remove_damaged(path)
                continue
            self._read.add(path.name)
            self._files.append(path)
            self._add_block(table.columns["name"], table)

    def _add_block(self, names: Sequence[str], table: Table) -> None:
        self._place.update({name: (len(self._blocks), row) for row, name in enumerate(names)})
        self._blocks.append(table.columns["vector"])
        self._cost.append(table.seconds / max(1, len(names)))
