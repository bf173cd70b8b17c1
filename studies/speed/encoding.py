"""MiniLM's passages a second in a process of its own: `python encoding.py ours|library MODEL CORPUS`.

`MODEL` is the folder of the weights, `CORPUS` a corpus.jsonl. The library runs as it comes, without rag_opt.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def build_library(model: str) -> Callable[[list[str]], Any]:
    """The library with its defaults."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model)
    return lambda texts: encoder.encode(texts, normalize_embeddings=True)


def build_ours(folder: str) -> Callable[[list[str]], Any]:
    """rag_opt's encoder, as a study uses it."""
    from rag_opt.system.environment import set_environment

    set_environment()
    from rag_opt.cache.store import Store
    from rag_opt.components.embedders.encoders import MiniLM
    from rag_opt.components.resources import Resources

    encoder = MiniLM()
    encoder.use(Resources.from_store(Store(Path(folder))))
    return encoder.encode


def main() -> None:
    way, model, corpus = sys.argv[1:]
    texts = [json.loads(line)["text"] for line in Path(corpus).read_text("utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        encode = build_ours(folder) if way == "ours" else build_library(model)
        encode(texts[:64])
        start = time.perf_counter()
        encode(texts)
        print(len(texts) / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
