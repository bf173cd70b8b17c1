"""The precision and the batch size at which this machine runs a transformer fastest: measured once, then kept."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rag_opt.keys import key_of
from rag_opt.progress import say
from rag_opt.records import Floats
from rag_opt.store import Store

SAMPLE = 64
SAMPLE_WORDS = 60
WORDS = "the of and passage where water was found in old city government after which company people made more than"
WORTH_IT = 1.2
"""How much faster bfloat16 must be to be worth its rounding."""

CPU_TOKENS = (512, 1024, 2048, 4096)
GPU_TOKENS = (16_384, 65_536)
TOKENIZED = 1024
"""Texts tokenised at once."""


@dataclass(frozen=True)
class Pace:
    """How a model is run: precision (float32 or bfloat16), tokens a batch, and the texts per second measured."""

    precision: str
    batch_tokens: int
    texts_per_second: float


def fastest(model: str, load: Callable[[str], Any], store: Store, precision: str = "auto") -> Pace:
    """The fastest way to run this model (its content key) on this machine; `load(precision)` loads it."""
    key = key_of("pace", _machine(), model, precision)
    # What is measured is kept on disk: the precision is part of what an embedding is.
    columns = store.table("paces", key, lambda: _columns(load, precision)).columns
    return Pace(columns["precision"][0], int(columns["batch_tokens"][0]), float(columns["speed"][0]))


def _columns(load: Callable[[str], Any], precision: str) -> dict[str, Any]:
    chosen = _measured(load, precision)
    say(f"this machine is fastest in {chosen.precision}: {chosen.texts_per_second:,.0f} texts of 60 words a second")
    return {
        "precision": [chosen.precision],
        "batch_tokens": np.array([chosen.batch_tokens]),
        "speed": np.array([chosen.texts_per_second]),
    }


def _measured(load: Callable[[str], Any], precision: str) -> Pace:
    precisions = _precisions() if precision == "auto" else (precision,)
    best = None
    for name in precisions:
        paces = list(_paces(load(name), name))
        here = max(paces, key=lambda pace: pace.texts_per_second)
        if best is None or here.texts_per_second > WORTH_IT * best.texts_per_second:
            best = here
    assert best is not None
    return best


def _paces(model: Any, precision: str) -> Iterator[Pace]:
    texts = sample()
    encoded(model, texts[:8], CPU_TOKENS[0])
    for tokens in GPU_TOKENS if model.device.type == "cuda" else CPU_TOKENS:
        start = time.perf_counter()
        encoded(model, texts, tokens)
        yield Pace(precision, tokens, len(texts) / (time.perf_counter() - start))


def sample() -> list[str]:
    """Texts to measure with: 60 words each."""
    chooser = random.Random(0)
    return [" ".join(chooser.choices(WORDS.split(), k=SAMPLE_WORDS)) for _ in range(SAMPLE)]


def _precisions() -> tuple[str, ...]:
    return ("float32", "bfloat16") if fast_bfloat16() else ("float32",)


def fast_bfloat16() -> bool:
    """Whether this machine has hardware for bfloat16 (AVX512-BF16, AMX, a GPU's); elsewhere it is many times slower."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


@cache
def _machine() -> list[Any]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return [device, torch.__version__, torch.get_num_threads()]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    about = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return key_of(about)


def encoded(model: Any, texts: list[str], batch_tokens: int) -> Floats:
    """Unit vectors of a sentence-transformers model, float32 [texts, dimensions].

    Texts of equally many tokens form a batch: nothing is padded, so nothing is computed in vain, and a text's vector
    does not depend on what else is in its batch.
    """
    import torch

    with torch.inference_mode():
        model.eval()
        parts = [
            _block(model, texts[start : start + TOKENIZED], batch_tokens) for start in range(0, len(texts), TOKENIZED)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, model.get_embedding_dimension()), np.float32)


def _block(model: Any, texts: list[str], batch_tokens: int) -> Floats:
    import torch

    features = model.preprocess(texts, prompt=model.prompts.get(model.default_prompt_name))
    mask = features.get("attention_mask")
    if mask is None or mask.ndim != 2:
        # Models without attention (static embeddings) have no padding either.
        return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float32)
    lengths = mask.sum(dim=1)
    left = bool((mask[:, -1] == 1).all() and (mask[:, 0] == 0).any())
    vectors: list[Any] = [None] * len(texts)
    for length in lengths.unique().tolist():
        rows = torch.nonzero(lengths == length).flatten()
        for part in torch.split(rows, max(1, batch_tokens // max(1, length))):
            cut = slice(-length, None) if left else slice(length)
            # What is not a number a token (the kind of input, say) goes along as it is.
            each = {
                name: value[part][:, cut].to(model.device) if getattr(value, "shape", None) == mask.shape else value
                for name, value in features.items()
            }
            found = model(each)
            unit = torch.nn.functional.normalize(found["sentence_embedding"].float(), dim=1).cpu().numpy()
            for row, vector in zip(part.tolist(), unit, strict=True):
                vectors[row] = vector
    return np.stack(vectors)
