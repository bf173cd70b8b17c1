"""Which single settings move nDCG@10, collection by collection: `python studies/settings.py --data FOLDER`.

FOLDER has one folder a collection in BEIR's layout, as studies/reference/make.py has it; python_docs needs none. Each
line of the table is the default pipeline with one setting changed: the difference from the default on all questions,
and over the collections its mean with a 95 % interval (random effects). Nothing is selected, so nothing is flattered.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from reference.make import WORDS

from rag_opt.analysis.collections import pool_differences
from rag_opt.analysis.paired import compute_differences
from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.settings import parse_settings
from rag_opt.console.progress import Screen
from rag_opt.console.screens import report_line
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.evaluator import Evaluator, load_dataset
from rag_opt.metrics.catalogue import get_metric

SETTINGS = (
    "splitter=word",
    "splitter=sliding_window splitter.overlap=20",
    "splitter=recursive",
    "splitter.chunk_size=50",
    "splitter.chunk_size=200",
    "retriever=bm25",
    "retriever=dense",
    "retriever.top_k=20",
    "retriever.k1=0.4",
    "retriever.k1=0.8",
    "retriever.k1=2.0",
    "retriever.k1=3.0",
    "retriever.b=0.0",
    "retriever.b=0.4",
    "retriever.b=1.0",
    "retriever.variant=bm25+",
    "retriever.fusion=rrf",
    "retriever.hybrid_weight=0.3",
    "retriever.hybrid_weight=0.4",
    "retriever.hybrid_weight=0.6",
    "retriever.hybrid_weight=0.7",
    "retriever.hybrid_weight=0.8",
    "retriever.scaling=zscore",
    "retriever.stemmer=null",
    "retriever.stopwords=null",
    "retriever.title_weight=0",
    "retriever.title_weight=2",
    "retriever.title_weight=4",
    "embedder=static",
    "query=rm3",
    "reranker=maxsim",
)
METRIC = get_metric("nDCG@10")
Effects = Mapping[str, tuple[float, float]]


def measure_collection(words: list[str], store: Path) -> Effects:
    """By setting the difference from the default pipeline and its standard error; "" has the default's own score."""
    config = compose_config(words)
    settings, dataset = parse_settings(config), load_dataset(config)
    questions = Questions.from_dataset(dataset, settings.batches, settings.seed)
    bench = Evaluator(tuple(words), questions, (METRIC,), Resources.from_store(Store(store)))
    plain = bench.measure_config(bench.compose_overrides([]))
    found = {"": (plain.means[METRIC.name], math.nan)}
    for setting in SETTINGS:
        scores = bench.measure_config(bench.compose_overrides(setting.split()))
        apart = compute_differences(scores.per_query[METRIC.name], plain.per_query[METRIC.name])
        found[setting] = float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart)))
        report_line(f"{setting}: {found[setting][0]:+.4f} ± {found[setting][1]:.4f}")
    return found


def tabulate(effects: Mapping[str, Effects]) -> Iterator[str]:
    """The lines of the table; a star marks a difference of more than two standard errors."""
    yield f"| setting | over all | {' | '.join(effects)} |"
    yield "| --- | --- |" + " --- |" * len(effects)
    yield "| (the default: its nDCG@10) |  | " + " | ".join(f"{each[''][0]:.4f}" for each in effects.values()) + " |"
    for setting in SETTINGS:
        measured = [each[setting] for each in effects.values()]
        # Titles change nothing where there are none: such a collection says nothing of them.
        telling = [each for each in measured if each[1] > 0]
        pooled = pool_differences(*zip(*telling, strict=True)) if telling else None
        over = f"{pooled.mean:+.4f} [{pooled.low:+.4f}, {pooled.high:+.4f}]" if pooled else "no difference"
        cells = (f"{mean:+.4f}{'*' if abs(mean) > 2 * error > 0 else ''}" for mean, error in measured)
        yield f"| `{setting}` | {over} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(WORDS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path("studies/.store"))
    given = parser.parse_args()
    effects = {}
    with Screen():
        for name in given.names:
            words = ["generator=none", *WORDS[name]]
            if name != "python_docs":
                words += ["dataset=beir", f"dataset.path={given.data / name}"]
            report_line(f"{name} …")
            effects[name] = measure_collection(words, given.store)
    print("\n".join(tabulate(effects)))


if __name__ == "__main__":
    main()
