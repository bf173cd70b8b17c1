"""What an encoder can't read of chunks, since they are longer than its window: counted once, kept and told."""

from __future__ import annotations

import numpy as np

from rag_opt.artifacts import Columns
from rag_opt.components.encoder import Encoder
from rag_opt.components.ranking import note
from rag_opt.keys import key_of
from rag_opt.progress import track
from rag_opt.records import Chunks
from rag_opt.store import Store

MARKS = 8
"""Tokens of its own that a model may put around a text, at most."""

COUNTED = 1024
"""Texts whose tokens are counted at once."""

WORTH_TELLING = 0.01
"""The share of chunks that are cut from which it is told."""


def say_cut(encoder: Encoder, chunks: Chunks, store: Store) -> None:
    """Say how many chunks are longer than the encoder reads, and what would fit, where they are many."""
    found = store.table("windows", key_of(encoder.fingerprint, chunks.key), lambda: _counted(encoder, chunks)).columns
    window, longer, fitting = (int(found[name][0]) for name in ("window", "longer", "fitting"))
    if longer > WORTH_TELLING * len(chunks):
        note(
            store,
            f"{encoder.name} reads {window} tokens: {longer:,} of {len(chunks):,} chunks are longer, the rest is not "
            f"embedded; splitter=tokens splitter.chunk_size={fitting} stays within",
        )


def _counted(encoder: Encoder, chunks: Chunks) -> Columns:
    window, longer, titles = encoder.window, 0, 0
    if window is not None:
        known = _lengths(encoder, chunks.contents, window)
        longer = sum(known.get(text, 0) > window for text in chunks.contents)
        titles = max(_lengths(encoder, [document.title for document in chunks.documents.items], 0).values(), default=0)
    fitting = max((window or 0) - titles, (window or 0) // 2)
    return {
        name: np.array([each]) for name, each in (("window", window or 0), ("longer", longer), ("fitting", fitting))
    }


def _lengths(encoder: Encoder, texts: list[str], least: int) -> dict[str, int]:
    """The tokens of the texts that may have more than `least`: a token is a byte at least."""
    behind = encoder.lengths([""])[0] + MARKS
    some = [text for text in dict.fromkeys(texts) if len(text.encode()) + behind > least]
    found: list[int] = []
    with track(f"{encoder.name}: counting tokens", len(some)) as advance:
        for start in range(0, len(some), COUNTED):
            found += encoder.lengths(some[start : start + COUNTED])
            advance(min(COUNTED, len(some) - start))
    return dict(zip(some, found, strict=True))
