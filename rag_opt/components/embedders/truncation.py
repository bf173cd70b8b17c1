"""What a model can't read of chunks, since they are longer than its window: counted once, kept and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag_opt.console.progress import track
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks

if TYPE_CHECKING:
    from rag_opt.cache.artifact_files import Columns
    from rag_opt.components.resources import Resources

MARKS = 8
"""Tokens of its own that a model may put around a text, at most."""

COUNTED = 1024
"""Texts whose tokens are counted at once."""

WORTH_TELLING = 0.01
"""The share of chunks that are cut from which it is told."""


class Reader(Protocol):
    """A model that reads so many tokens of a text (`window`, None: all), as `count_lengths` counts them."""

    name: str

    @property
    def fingerprint(self) -> str: ...

    @property
    def window(self) -> int | None: ...

    def count_lengths(self, texts: list[str]) -> list[int]: ...


def report_unembedded(encoder: Reader, chunks: Chunks, resources: Resources) -> None:
    """Say how many chunks are longer than the encoder reads, and what would fit, where they are many."""
    _report(encoder, chunks, resources, "embedded; splitter=tokens splitter.chunk_size={fitting} stays within")


def report_unread(reranker: Reader, chunks: Chunks, resources: Resources) -> None:
    """Say how many chunks are longer than the reranker reads, where they are many; the question takes its part, too."""
    _report(reranker, chunks, resources, "read; a smaller splitter.chunk_size stays within")


def _report(reader: Reader, chunks: Chunks, resources: Resources, lost: str) -> None:
    if not resources.notices.reporting:
        # To know a reader's window its model has to be loaded, and all texts are tokenised.
        return
    found = resources.store.get_table(
        "windows", compute_key(reader.fingerprint, chunks.key), lambda: _count_longer(reader, chunks)
    ).columns
    window, longer, fitting = (int(found[name][0]) for name in ("window", "longer", "fitting"))
    if longer > WORTH_TELLING * len(chunks):
        many = f"{reader.name} reads {window} tokens: {longer:,} of {len(chunks):,} chunks are longer"
        resources.notices.record_notice(f"{many}, the rest is not {lost.format(fitting=fitting)}")


def _count_longer(reader: Reader, chunks: Chunks) -> Columns:
    window, longer, titles = reader.window, 0, 0
    if window is not None:
        known = _count_lengths(reader, chunks.contents, window)
        longer = sum(known.get(text, 0) > window for text in chunks.contents)
        titles = max(
            _count_lengths(reader, [document.title for document in chunks.documents.items], 0).values(), default=0
        )
    # A title stands before each chunk and takes its part of the window; long titles leave half of it all the same.
    fitting = max((window or 0) - titles, (window or 0) // 2)
    return {
        name: np.array([each]) for name, each in (("window", window or 0), ("longer", longer), ("fitting", fitting))
    }


def _count_lengths(reader: Reader, texts: list[str], least: int) -> dict[str, int]:
    """The tokens of the texts that may have more than `least`: a token is a byte at least."""
    # What stands around every text, a prompt included, and some slack for marks.
    behind = reader.count_lengths([""])[0] + MARKS
    # A tokenizer reads only what can be long enough at all.
    some = [text for text in dict.fromkeys(texts) if len(text.encode()) + behind > least]
    found: list[int] = []
    with track(f"{reader.name}: counting tokens", len(some)) as advance:
        for start in range(0, len(some), COUNTED):
            found += reader.count_lengths(some[start : start + COUNTED])
            advance(min(COUNTED, len(some) - start))
    return dict(zip(some, found, strict=True))
