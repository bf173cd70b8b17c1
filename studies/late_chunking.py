"""Late chunking (Günther et al. 2024, arXiv 2409.04701) against ordinary embedding, with MiniLM on whole articles.

python studies/late_chunking.py <BEIR folder with evidence> [questions]

A document is read in overlapping windows, each token's vector taken from the window where it stands nearest the middle;
a chunk is the mean of its tokens. Prints RR@10 of the first chunk that overlaps the evidence, by chunk size and method,
and the paired difference from ordinary embedding with its 95 % interval.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from rag_opt.analysis import paired
from rag_opt.cache.store import Store
from rag_opt.components.embedders.encoders import MiniLM
from rag_opt.components.resources import Resources
from rag_opt.components.splitters.chunkers import SentenceSplitter
from rag_opt.datasets import beir
from rag_opt.datasets.checks import get_corpus
from rag_opt.records.documents import Floats, Query
from rag_opt.records.products import Chunks

SIZES = (25, 50, 100, 200)
WINDOWS = (128, 254, 510)
BATCH_TOKENS = 4096


def token_vectors(model: SentenceTransformer, text: str, window: int) -> tuple[Floats, Floats]:
    """Vectors of a text's tokens, and the characters [start, end) of each."""
    tokens = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = tokens["input_ids"], np.array(tokens["offset_mapping"], np.int32).reshape(-1, 2)
    starts = list(range(0, max(1, len(ids) - window // 2), window // 2))
    special = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    parts = [[special[0], *ids[start : start + window], special[1]] for start in starts]
    vectors = np.zeros((len(ids), 384), np.float32)
    nearest = np.full(len(ids), np.inf)
    # Windows of the same length form a batch: all but the last.
    for length in sorted({len(part) for part in parts}):
        rows = [row for row, part in enumerate(parts) if len(part) == length]
        for first in range(0, len(rows), max(1, BATCH_TOKENS // length)):
            batch = rows[first : first + max(1, BATCH_TOKENS // length)]
            given = torch.tensor([parts[row] for row in batch])
            with torch.inference_mode():
                found = model[0].model(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state
            for row, values in zip(batch, found.float().numpy(), strict=True):
                places = np.arange(starts[row], starts[row] + length - 2)
                distance = np.abs(places - (starts[row] + length / 2))
                better = distance < nearest[places]
                vectors[places[better]] = values[1:-1][better]
                nearest[places[better]] = distance[better]
    return vectors, offsets


def late(model: SentenceTransformer, chunks: Chunks, window: int, read: dict[int, tuple[Floats, Floats]]) -> Floats:
    """Unit vectors of chunks, each the mean of its tokens."""
    rows = []
    for document, start, end in zip(chunks.document_rows.tolist(), chunks.starts, chunks.ends, strict=True):
        if document not in read:
            read[document] = token_vectors(model, chunks.documents.items[document].text, window)
        vectors, offsets = read[document]
        inside = (offsets[:, 0] < end) & (offsets[:, 1] > start)
        rows.append(vectors[inside].mean(axis=0) if inside.any() else np.zeros(384, np.float32))
    found = np.stack(rows)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def reciprocal_ranks(vectors: Floats, asked: Floats, chunks: Chunks, queries: list[Query]) -> np.ndarray:
    """RR@10 of the first chunk that holds a character of the evidence."""
    ids, scores = chunks.document_ids, []
    for query, row in zip(queries, asked @ vectors.T, strict=True):
        best = np.argsort(-row, kind="stable")[:10].tolist()
        hits = (
            rank
            for rank, chunk in enumerate(best, 1)
            if any(
                ids[chunk] == e.document_id and chunks.starts[chunk] < e.end and e.start < chunks.ends[chunk]
                for e in query.evidence
            )
        )
        scores.append(1 / next(hits, np.inf))
    return np.array(scores)


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    dataset = beir.load(str(folder))
    queries = random.Random(0).sample([query for query in dataset.queries if query.evidence], count)
    documents, encoder = get_corpus(dataset), MiniLM()
    encoder.use(Resources.from_store(Store()))
    model = encoder.load_model()
    asked = encoder.encode([query.text for query in queries])
    cut = {}
    for size in SIZES:
        splitter = SentenceSplitter(chunk_size=size, overlap=0)
        cut[size] = splitter.run(documents=documents)["chunks"]
    ordinary = {}
    for size, chunks in cut.items():
        ordinary[size] = reciprocal_ranks(encoder.encode(chunks.texts), asked, chunks, queries)
        print(f"{size} words, {len(chunks)} chunks: ordinary {ordinary[size].mean():.4f}", flush=True)
    for window in WINDOWS:
        read: dict[int, tuple[Floats, Floats]] = {}
        for size, chunks in cut.items():
            found = reciprocal_ranks(late(model, chunks, window, read), asked, chunks, queries)
            low, high = paired.bootstrap_interval(found - ordinary[size], 0)
            change = f"{(found - ordinary[size]).mean():+.4f} [{low:+.4f}, {high:+.4f}]"
            print(f"{size} words, late over {window} tokens: {found.mean():.4f}, {change}", flush=True)


if __name__ == "__main__":
    main()
