"""Every offline reranker and query transformation against none: quality with paired intervals, and seconds a question.

python studies/stages.py <words of a dataset>, such as
python studies/stages.py dataset=beir dataset.path=path/to/squad_articles dataset.num_queries=500 splitter=sentence

Prints a Markdown table: the metric's mean over all questions, the difference from the same retriever without the stage
with its 95 % bootstrap interval, and the time of one question, alone, nothing cached.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rag_opt.analysis import paired
from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.settings import parse_settings
from rag_opt.console.progress import Screen
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.evaluator import Evaluator, load_dataset
from rag_opt.metrics.catalogue import get_metric

CANDIDATES = 30
COMPARED = {
    "retriever=hybrid": [
        "reranker=mmr reranker.diversity=0.1",
        "reranker=mmr reranker.diversity=0.3",
        "reranker=mmr reranker.diversity=0.5",
        "reranker=maxsim",
        "query=rm3",
        "query=rm3 query.documents=10 query.terms=10 query.own_weight=0.8",
    ],
    "retriever=bm25": [
        "reranker=maxsim",
        "query=rm3",
        "query=rm3 query.documents=3 query.terms=10 query.own_weight=0.8",
        "query=rm3 query.documents=10 query.terms=10 query.own_weight=0.8",
        "query=rm3 query.documents=10 query.terms=40 query.own_weight=0.5",
    ],
    "retriever=dense": ["reranker=mmr reranker.diversity=0.3", "reranker=maxsim"],
}
METRIC = get_metric("nDCG@10")


def rows(words: list[str]) -> list[str]:
    """The table's rows for a dataset."""
    config = compose_config(words)
    settings, dataset = parse_settings(config), load_dataset(config)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        questions = Questions.from_dataset(dataset, settings.batches, settings.seed)
        bench = Evaluator(tuple(words), questions, (METRIC,), Resources.from_store(Store(Path(folder))))
        for base, stages in COMPARED.items():
            begin = [base, f"retriever.top_k={CANDIDATES}", "generator=none"]
            plain = bench.measure_config(bench.compose_overrides(begin))
            found.append(row(bench, begin, base, plain.means[METRIC.name], ""))
            for stage in stages:
                given = [*begin, *stage.split()]
                scores = bench.measure_config(bench.compose_overrides(given))
                apart = paired.compute_differences(scores.per_query[METRIC.name], plain.per_query[METRIC.name])
                low, high = paired.bootstrap_interval(apart, 0)
                told = f"{apart.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
                found.append(row(bench, given, f"{base} {stage}", scores.means[METRIC.name], told))
    return found


def row(bench: Evaluator, given: list[str], name: str, value: float, told: str) -> str:
    latency = bench.measure_latency(bench.compose_overrides(given))
    assert latency is not None
    return f"| {name} | {value:.4f} | {told} | {1000 * latency.p50:.0f} |"


def main() -> None:
    with Screen():
        table = rows(sys.argv[1:])
    print("| configuration | nDCG@10 | against none | ms a question |\n| --- | --- | --- | --- |")
    print("\n".join(table))


if __name__ == "__main__":
    main()
