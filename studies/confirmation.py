"""How often each way to confirm claims what is not there, and what it finds: `python studies/confirmation.py`.

Simulated studies of 30 trials by the default sampler. Questions are drawn from a normal distribution with the means and
the covariance that a recorded grid's configurations have over its questions, so the truth is known; for studies without
a difference all means are the baseline's. Cost is chunk_size × top_k, as a stand-in for tokens. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rag_opt.analysis.crossfit import crossfit
from rag_opt.analysis.paired import bootstrap_interval, compute_p_value
from rag_opt.analysis.selection import Candidate, select_finalists
from rag_opt.samplers import RagSampler
from rag_opt.simulation.searches import Search, Split, simulate_search
from rag_opt.simulation.tables import Table, load_table
from rag_opt.system import environment

GRIDS = Path(__file__).parent / "samplers" / "grids"
NAMES = ("python_docs", "mlflow_docs", "msmarco_qa", "nfcorpus", "squad_articles")
BASELINE = {
    "splitter": "sentence",
    "splitter.chunk_size": 100,
    "retriever": "hybrid",
    "retriever.fusion": "weighted",
    "retriever.hybrid_weight": 0.5,
    "retriever.top_k": 10,
    "embedder": "minilm",
    "reranker": "none",
}
TRIALS, SHARE, RESAMPLES = 30, 0.3, 1000


class Outcome(NamedTuple):
    """A study's estimate with its interval, the truth that it is of, and whether a difference was claimed."""

    difference: float
    low: float
    high: float
    truth: float
    better: bool
    worse: bool


class Population(NamedTuple):
    """A grid as a distribution of questions."""

    table: Table
    means: NDArray[np.float64]
    factors: NDArray[np.float64]
    costs: NDArray[np.float64]
    baseline: int

    @classmethod
    def load(cls, name: str, *, equal: bool) -> Population:
        table = load_table(GRIDS / f"{name}.parquet")
        scores = np.where(np.isfinite(table.scores), table.scores, np.nanmean(table.scores, axis=1, keepdims=True))
        rows = table.configurations
        baseline = next(n for n, row in enumerate(rows) if all(row.get(k, v) == v for k, v in BASELINE.items()))
        means = scores.mean(axis=1)
        factors = (scores - means[:, None]) / np.sqrt(scores.shape[1] - 1)
        costs = [float(row.get("splitter.chunk_size", 100)) * float(row.get("retriever.top_k", 10)) for row in rows]
        means = np.full_like(means, means[baseline]) if equal else means
        return cls(table, means, factors, np.array(costs), baseline)

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Configurations × questions."""
        drawn: NDArray[np.float64] = self.means[:, None] + self.factors @ rng.normal(
            size=(self.factors.shape[1], count)
        )
        return drawn

    def search(self, scores: NDArray[np.float64], seed: int) -> list[Candidate]:
        """The trials of a study on these questions, the baseline first, as what may be selected."""
        every = np.arange(scores.shape[1])
        search = Search(replace(self.table, scores=scores), RagSampler(seed=seed), Split(every, every, every))
        search.study.enqueue_trial(dict(self.table.configurations[self.baseline]))
        simulate_search(search, TRIALS)
        return [Candidate(int(row), scores[row], self.costs[row]) for row in search.rows]


def confirm(name: str, seed: int, count: int, *, equal: bool) -> dict[str, Outcome]:
    """What a split and a crossfit say of one study."""
    population = Population.load(name, equal=equal)
    scores = population.draw(np.random.default_rng([seed, count, equal]), count)
    return {
        "split": _split(population, scores, seed),
        "crossfit": _crossfit(population, scores, seed),
    }


def _split(population: Population, scores: NDArray[np.float64], seed: int) -> Outcome:
    held = round(SHARE * scores.shape[1])
    found = population.search(scores[:, held:], seed)
    chosen = select_finalists(sorted(found, key=lambda each: -each.scores.mean()), 1.0, 0).recommended
    apart = scores[chosen, :held] - scores[population.baseline, :held]
    low, high = bootstrap_interval(apart, seed, RESAMPLES)
    shown = compute_p_value(apart, seed, RESAMPLES) <= 0.05
    truth = population.means[chosen] - population.means[population.baseline]
    return Outcome(float(apart.mean()), low, high, float(truth), shown and low > 0, shown and high < 0)


def _crossfit(population: Population, scores: NDArray[np.float64], seed: int) -> Outcome:
    every = np.arange(scores.shape[1])
    found = crossfit(population.search(scores, seed), population.baseline, 1.0, every, seed)
    difference = float(np.mean(scores[found.trials, every] - scores[population.baseline]))
    low, high = found.compute_interval(difference)
    shown = found.compute_p_value(difference) <= 0.05
    truth = float(np.mean(population.means[found.trials] - population.means[population.baseline]))
    return Outcome(difference, low, high, truth, shown and low > 0, shown and high < 0)


def _confirm(job: tuple[str, int, int, bool]) -> dict[str, Outcome]:
    environment.silence_optuna()
    name, seed, count, equal = job
    return confirm(name, seed, count, equal=equal)


def tabulate(studies: int, counts: list[int]) -> Iterator[str]:
    """The table's lines."""
    yield "| truth | questions | confirmed by | called better | called worse | intervals that hold | bias | width |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    with ProcessPoolExecutor(initializer=environment.use_threads, initargs=(1,)) as pool:
        for equal in (True, False):
            for count in counts:
                jobs = [(name, seed, count, equal) for name in NAMES for seed in range(studies // len(NAMES))]
                found = list(pool.map(_confirm, jobs, chunksize=4))
                for way in ("split", "crossfit"):
                    yield _format_row("no difference" if equal else "the grids'", count, way, [f[way] for f in found])


def _format_row(truth: str, count: int, way: str, found: list[Outcome]) -> str:
    held = np.mean([each.low <= each.truth <= each.high for each in found])
    bias = np.mean([each.difference - each.truth for each in found])
    width = np.mean([each.high - each.low for each in found])
    better, worse = np.mean([each.better for each in found]), np.mean([each.worse for each in found])
    return f"| {truth} | {count} | {way} | {better:.1%} | {worse:.1%} | {held:.1%} | {bias:+.4f} | {width:.4f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--questions", type=int, nargs="+", default=[180, 288])
    given = parser.parse_args()
    for line in tabulate(given.studies, given.questions):
        print(line, flush=True)
