"""Is late chunking worth having? A text is embedded once, token by token, and any chunk is the mean of its tokens.

Günther et al. 2024 (arXiv 2409.04701) found that it helps models of long context. This measures it for the embedder
that is the default here, on whole articles with questions whose answers' characters are known, against ordinary
embedding of the same chunks: a chunk is relevant when it overlaps the answer.

Usage: python studies/late_chunking.py <squad_articles folder> [number of questions]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch

from rag_opt.components.encoders import MiniLM
from rag_opt.components.splitters import SentenceSplitter
from rag_opt.confirm import interval
from rag_opt.datasets import beir
from rag_opt.datasets.checks import documents_of
from rag_opt.records import Chunks, Floats, Query

SIZES = (25, 50, 100, 200)
WINDOWS = (128, 254, 510)
CUTOFF = 10
Tokens = tuple[np.ndarray, Floats]
"""Of one document: characters [start, end) of each token, and the token's vector."""


def token_vectors(model: object, text: str, window: int) -> Tokens:
    """Every token's vector, each taken from the window in which it stands nearest to the middle."""
    tokenizer, transformer = model.tokenizer, model[0].auto_model
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    ids, step = read["input_ids"], window // 2
    vectors = np.zeros((len(ids), transformer.config.hidden_size), np.float32)
    depth = np.full(len(ids), -1)
    for start in range(0, max(1, len(ids) - step), step):
        part = ids[start : start + window]
        row = torch.tensor([[tokenizer.cls_token_id, *part, tokenizer.sep_token_id]])
        with torch.inference_mode():
            found = transformer(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state[0, 1:-1].float()
        places = np.arange(len(part))
        here = np.minimum(places, len(part) - 1 - places)
        # The ends of the text are the middle of nothing, and still the best there is.
        here[: step if start == 0 else 0] = window
        here[len(part) - step if start + window >= len(ids) else len(part) :] = window
        better = here > depth[start : start + len(part)]
        vectors[start : start + len(part)][better] = found.numpy()[better]
        depth[start : start + len(part)][better] = here[better]
    return np.array(read["offset_mapping"], np.int32).reshape(-1, 2), vectors


def late(chunks: Chunks, tokens: list[Tokens]) -> Floats:
    """The mean of each chunk's token vectors, at length 1."""
    vectors = []
    for row, start, end in zip(chunks.document_rows, chunks.starts, chunks.ends, strict=True):
        spans, values = tokens[row]
        inside = (spans[:, 0] < end) & (spans[:, 1] > start)
        vectors.append(values[inside].mean(axis=0) if inside.any() else np.zeros(values.shape[1], np.float32))
    stacked = np.stack(vectors)
    return stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)


def reciprocal_ranks(chunks: Chunks, vectors: Floats, questions: list[Query], asked: Floats) -> np.ndarray:
    """Per question 1 / the rank of the first chunk that overlaps the answer, 0 beyond the cut-off."""
    order = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :CUTOFF]
    ids, values = chunks.document_ids, []
    for question, rows in zip(questions, order, strict=True):
        hits = [
            any(
                ids[row] == e.document_id and chunks.starts[row] < e.end and chunks.ends[row] > e.start
                for e in question.evidence
            )
            for row in rows
        ]
        values.append(1 / (1 + hits.index(True)) if any(hits) else 0.0)
    return np.array(values)


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    dataset = beir.load(str(folder))
    documents, encoder = documents_of(dataset), MiniLM()
    questions = random.Random(0).sample(list(dataset.queries), min(count, len(dataset.queries)))
    asked = encoder.encode([question.text for question in questions])
    model = encoder.loaded()
    tokens = {w: [token_vectors(model, document.text, w) for document in documents.items] for w in WINDOWS}
    print(f"RR@{CUTOFF} of the chunk with the answer, {len(questions)} questions, {encoder.dtype}")
    print("| chunk size (words) | ordinary | " + " | ".join(f"late, windows of {w} tokens" for w in WINDOWS) + " |")
    print("| --- |" + " --- |" * (1 + len(WINDOWS)))
    for size in SIZES:
        chunks = SentenceSplitter(size, 0).run(documents)["chunks"]
        order = sorted(range(len(chunks)), key=lambda row: len(chunks.texts[row]))
        vectors = np.zeros((len(chunks), asked.shape[1]), np.float32)
        vectors[order] = encoder.encode([chunks.texts[row] for row in order])
        ordinary = reciprocal_ranks(chunks, vectors, questions, asked)
        cells = [f"{ordinary.mean():.4f}"]
        for w in WINDOWS:
            difference = reciprocal_ranks(chunks, late(chunks, tokens[w]), questions, asked) - ordinary
            low, high = interval(difference, 0)
            cells.append(f"{(ordinary + difference).mean():.4f} ({difference.mean():+.4f} [{low:+.4f}, {high:+.4f}])")
        print(f"| {size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
