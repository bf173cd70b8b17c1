"""Hashed words as vectors: no model at all."""

from __future__ import annotations

import zlib

import numpy as np

from rag_opt.components.checks import require_whole
from rag_opt.components.embedders.encoder import Encoder
from rag_opt.records.documents import Floats
from rag_opt.records.keys import compute_key
from rag_opt.records.products import normalize_vectors
from rag_opt.text.tokenization import READING, split_words


class Hashing(Encoder):
    """Counts of words, each hashed to one of `dimensions` places: no model, no download; a floor to compare with."""

    algorithm = "rag_opt.components.encoders.Hashing"

    def __init__(self, dimensions: int = 512) -> None:
        require_whole("dimensions", dimensions)
        self.dimensions = dimensions
        self.name = "hashing"

    @property
    def fingerprint(self) -> str:
        # The rules that cut words have a version of their own.
        return compute_key(super().fingerprint, READING)

    def encode(self, texts: list[str]) -> Floats:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for word in split_words(text):
                # Not hash(), which differs from process to process.
                vectors[row, zlib.crc32(word.encode()) % self.dimensions] += 1
        return normalize_vectors(vectors)
