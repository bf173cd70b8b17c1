"""The precision and the batch size at which this machine runs a transformer fastest: measured once, then kept."""

from __future__ import annotations

import platform
import random
import statistics
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.stage import IN_MEMORY
from rag_opt.records.documents import Floats
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from rag_opt.cache.store import Store

SAMPLE = 64
SAMPLE_WORDS = 60
WORDS = "the of and passage where water was found in old city government after which company people made more than"
WORTH_IT = 1.5
"""How much faster bfloat16's matrix products must be to be worth its rounding."""

PRODUCT = (2048, 384, 1536)
"""The matrix product that precisions are compared by: a batch of MiniLM's in its feed-forward layer."""

CPU_TOKENS = (1024, 2048, 4096)
GPU_TOKENS = (4_096, 16_384, 65_536)
GPU_SAMPLE = 2_048
GPU_SCALE = 8
"""A GPU is done with the CPU's product before it is asked whether it is."""

TOKENIZED = 1024
"""Texts tokenised at once."""

ENDLESS = 1_000_000
"""Tokens from which a window is none: tokenizers without a limit name an astronomic one."""

STEP = 8
"""Texts are padded to a multiple of so many tokens: a few shapes make large batches, and little is computed in vain.

Batches of exactly equal length were 0.6 of the library's speed beside two busy processes: more, smaller batches meet at
more barriers.
"""


def get_fast_precision(store: Store, device: str | None = None) -> str:
    """bfloat16 where matrix products in it are much faster than in float32, else float32.

    `device` is where a model will run (None: the GPU where there is one). Measured once and kept on disk, since the
    precision is part of what an embedding is.
    """
    # All GPUs of a machine count as one kind.
    place = (device or get_device()).partition(":")[0]
    key = compute_key("precision", _describe_machine(place))
    # The machine is the same whatever the store, so a process asks once.
    memory = IN_MEMORY.store
    found: str = memory.get_object(
        "pace", key, lambda: store.get_table("paces", key, lambda: _time_precisions(place)).columns["precision"][0]
    )
    return found


def _time_precisions(place: str) -> dict[str, Any]:
    seconds = {name: _time_product(name, place) for name in ("float32", "bfloat16")}
    fast = seconds["float32"] > WORTH_IT * seconds["bfloat16"]
    return {"precision": ["bfloat16" if fast else "float32"], **{name: np.array([s]) for name, s in seconds.items()}}


def _time_product(precision: str, place: str) -> float:
    """The median time of a few matrix products."""
    import torch

    rows, inner, columns = (GPU_SCALE * size for size in PRODUCT) if place == "cuda" else PRODUCT
    left, right = (
        torch.ones(shape, dtype=getattr(torch, precision), device=place) for shape in ((rows, inner), (inner, columns))
    )
    spans = []
    for _ in range(6):
        start = time.perf_counter()
        # Reading a number waits for the device.
        float((left @ right)[0, 0])
        spans.append(time.perf_counter() - start)
    # The first product compiles its kernel.
    return statistics.median(spans[1:])


def get_fast_batch(model: Any, name: str, store: Store) -> int:
    """The tokens a batch with which this model (its content key) is fastest on this machine; measured once and kept."""
    key = compute_key("batch tokens", _describe_machine(get_device()), name)
    found: int = IN_MEMORY.store.get_object(
        "pace", key, lambda: int(store.get_table("paces", key, lambda: _time_batches(model)).columns["batch_tokens"][0])
    )
    return found


def _time_batches(model: Any) -> dict[str, Any]:
    """Tokens a batch, the fastest first, with the texts per second."""
    on_gpu = model.device.type == "cuda"
    texts = make_texts(GPU_SAMPLE if on_gpu else SAMPLE)
    # The first run is slow and says nothing of the batch size.
    encode_texts(model, texts[:8], CPU_TOKENS[0])
    speeds: dict[int, float] = {}
    # Each size twice, with the others in between, and its better time: a busy moment decides nothing.
    for tokens in 2 * (GPU_TOKENS if on_gpu else CPU_TOKENS):
        start = time.perf_counter()
        encode_texts(model, texts, tokens)
        speeds[tokens] = max(speeds.get(tokens, 0.0), len(texts) / (time.perf_counter() - start))
    order = sorted(speeds, key=lambda tokens: -speeds[tokens])
    return {"batch_tokens": np.array(order), "texts_per_second": np.array([speeds[tokens] for tokens in order])}


def make_texts(count: int) -> list[str]:
    """Texts to measure with: 60 words each."""
    # The same texts in each process, so that measurements can be compared.
    chooser = random.Random(0)
    return [" ".join(chooser.choices(WORDS.split(), k=SAMPLE_WORDS)) for _ in range(count)]


def get_device() -> str:
    """What transformers run on here: cuda or cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def _describe_machine(place: str) -> list[Any]:
    import torch

    name = torch.cuda.get_device_name() if place == "cuda" else _describe_processor()
    # Each of these changes what is fastest.
    return [name, torch.__version__, torch.get_num_threads()]


def _describe_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    # The flags say whether there is AVX512-BF16 or AMX, on which the speed of bfloat16 depends.
    # ARM calls them Features.
    about = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return compute_key(about)


def encode_texts(
    model: Any, texts: list[str], batch_tokens: int, prompt: str | None = None, task: str | None = None
) -> Floats:
    """Unit vectors of a sentence-transformers model, float32 [texts, dimensions].

    Each text stands behind the prompt, and is encoded for the task (query, document, None: neither), as the library's
    own encode has it. How far a text is padded depends on its own length alone, and so its vector does not depend on
    what else is encoded.
    """
    vectors = _encode_all(model, texts, batch_tokens, "sentence_embedding", prompt, {"task": task} if task else {})
    return np.stack(vectors) if vectors else np.zeros((0, model.get_embedding_dimension()), np.float32)


def compute_token_vectors(model: Any, texts: list[str], batch_tokens: int) -> list[Floats]:
    """Unit vectors of each text's tokens, the special ones included, float32 [tokens, dimensions]."""
    return _encode_all(model, texts, batch_tokens, "token_embeddings", model.prompts.get(model.default_prompt_name), {})


def _encode_all(
    model: Any, texts: list[str], batch_tokens: int, output: str, prompt: str | None, task: dict[str, str]
) -> list[Floats]:
    import torch

    with torch.inference_mode():
        model.eval()
        blocks = (texts[start : start + TOKENIZED] for start in range(0, len(texts), TOKENIZED))
        return [
            vector for block in blocks for vector in _encode_block(model, block, batch_tokens, output, prompt, task)
        ]


def _encode_block(
    model: Any, texts: list[str], batch_tokens: int, output: str, prompt: str | None, task: dict[str, str]
) -> list[Floats]:
    import torch

    features = model.preprocess(texts, prompt=prompt, **task)
    mask = features.get("attention_mask")
    if mask is None or mask.ndim != 2:
        # Models without attention (static embeddings) have no padding either.
        given = {"prompt": prompt, "normalize_embeddings": True, "show_progress_bar": False, **task}
        return list(np.asarray(model.encode(texts, **given), np.float32))
    lengths = mask.sum(dim=1)
    tokenizer = getattr(model, "tokenizer", None)
    left = getattr(tokenizer, "padding_side", "right") == "left"
    # A model may have no position beyond its window; where it has none, its tokenizer names an astronomic number.
    longest = max(int(lengths.max()), min(model.max_seq_length or ENDLESS, ENDLESS))
    widths = ((lengths + STEP - 1) // STEP * STEP).clamp(max=longest)
    # What is not a number a token (the kind of input, say) goes along as it is.
    each_token = {name for name, value in features.items() if getattr(value, "shape", None) == mask.shape}
    # The attention mask hides the padding, but the embedding table is asked for its number all the same.
    fillings = {"input_ids": getattr(tokenizer, "pad_token_id", None) or 0}
    wide = {name: _pad(features[name], int(widths.max()), fillings.get(name, 0), left=left) for name in each_token}
    vectors: list[Any] = [None] * len(texts)
    for width in widths.unique().tolist():
        rows = torch.nonzero(widths == width).flatten()
        for part in torch.split(rows, max(1, batch_tokens // max(1, width))):
            cut = slice(-width, None) if left else slice(width)
            given = {name: wide[name][part][:, cut].to(model.device) for name in each_token}
            found = model({**features, **given}, **task)[output]
            # NumPy has no bfloat16.
            unit = torch.nn.functional.normalize(found.float(), dim=-1).cpu().numpy()
            for row, vector in zip(part.tolist(), unit, strict=True):
                vectors[row] = _drop_padding(vector, int(lengths[row]), left=left) if vector.ndim > 1 else vector
    return vectors


def _pad(values: Any, width: int, filling: int, *, left: bool) -> Any:
    """The tokens' numbers, [texts, tokens] → [texts, width]."""
    import torch

    missing = max(0, width - values.shape[1])
    return torch.nn.functional.pad(values, (missing, 0) if left else (0, missing), value=filling)


def _drop_padding(vectors: Floats, length: int, *, left: bool) -> Floats:
    """The vectors of a text's own tokens."""
    return vectors[-length:] if left else vectors[:length]
