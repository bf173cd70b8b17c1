"""Which word stands how often in which chunk, a title's words weighed: counted once, kept, memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from rag_opt.components.tokenization import Reading, tokenize_texts
from rag_opt.records.documents import Record, Scores
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks
from rag_opt.text.tokenization import READING

if TYPE_CHECKING:
    from rag_opt.cache.store import Store

KEPT = 2
"""Counts that stay in memory: each k1 and b shares them, another chunking or reading has its own."""

ARRAYS = ("frequencies", "chunk_rows", "starts", "lengths")


@dataclass(frozen=True, eq=False)
class Counts(Record):
    """How often each word stands in each chunk: word w in chunks chunk_rows[starts[w]:starts[w + 1]].

    `frequencies` is float32 beside chunk_rows, `lengths` the words of each chunk (float64 where titles are weighed).
    """

    words: list[str]
    frequencies: NDArray[np.float32]
    chunk_rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64] | Scores

    @cached_property
    def places(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}


def get_counts(chunks: Chunks, reading: Reading, store: Store, title_weight: float = 1.0) -> Counts:
    """The word counts of chunks, counted once and kept, memory-mapped; a title's words count `title_weight` times."""
    key = make_counts_key(chunks, reading, title_weight)
    folder = store.get_folder(
        "bm25 counts", key, lambda path: _write_counts(path, count_chunks(chunks, reading, title_weight))
    )
    return store.get_object("bm25 counts read", key, lambda: _read_counts(folder), KEPT)


def make_counts_key(chunks: Chunks, reading: Reading, title_weight: float) -> str:
    """The key under which these counts are kept."""
    # A weight of 1 is none: what was counted before there were weights stays.
    weighed = () if title_weight == 1 else (title_weight,)
    return compute_key("bm25 counts", READING, chunks.key, reading.key, *weighed)


def count_chunks(chunks: Chunks, reading: Reading, title_weight: float) -> Counts:
    """The word counts of chunks, each word of a title weighed.

    That is BM25F with one k1 and one b for both fields (Robertson, Zaragoza and Taylor 2004).
    """
    if title_weight == 1:
        return count_terms(chunks.contents, reading)
    body, titles = count_terms(chunks.texts, reading), count_terms(chunks.titles, reading)
    return add_counts(body, titles, title_weight) if title_weight else body


def add_counts(body: Counts, titles: Counts, weight: float) -> Counts:
    """The counts of both, those of the titles times their weight; row i of both is the same chunk."""
    words = list(dict.fromkeys([*body.words, *titles.words]))
    places = {word: place for place, word in enumerate(words)}
    shape = (len(words), len(body.lengths))
    parts = []
    for counts, weighed in ((body, 1.0), (titles, weight)):
        of_word = np.repeat([places[word] for word in counts.words], np.diff(counts.starts))
        parts.append(csr_array((counts.frequencies * weighed, (of_word, counts.chunk_rows)), shape=shape))
    # By chunk within each word, as `count_terms` has them.
    found = (parts[0] + parts[1]).sorted_indices()
    frequencies, rows = found.data.astype(np.float32), found.indices.astype(np.int32)
    lengths = (body.lengths + weight * titles.lengths).astype(np.float64)
    return Counts(words, frequencies, rows, found.indptr.astype(np.int64), lengths)


def count_terms(texts: list[str], reading: Reading) -> Counts:
    """The word counts of these texts."""
    read = tokenize_texts(texts, reading)
    places_of = {word: place for place, word in enumerate(dict.fromkeys(word for each in read for word in each))}
    known = list(places_of)
    lengths = np.array([len(each) for each in read], np.int64)
    chosen = np.fromiter((places_of[word] for each in read for word in each), np.int64, int(lengths.sum()))
    # One number for a word in a chunk: sorted, they stand by word, then by chunk.
    places = chosen * len(texts) + np.repeat(np.arange(len(texts)), lengths)
    found, times = np.unique(places, return_counts=True)
    of_word, rows = np.divmod(found, max(1, len(texts)))
    starts = np.searchsorted(of_word, np.arange(len(known) + 1))
    return Counts(known if len(found) else [], times.astype(np.float32), rows.astype(np.int32), starts, lengths)


def _write_counts(folder: Path, counts: Counts) -> None:
    # No word holds a line's end.
    (folder / "words.txt").write_text("\n".join(counts.words), "utf-8")
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(counts, name), allow_pickle=False)


def _read_counts(folder: Path) -> Counts:
    known = (folder / "words.txt").read_text("utf-8")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    return Counts(known.split("\n") if known else [], **arrays)
