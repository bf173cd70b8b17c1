"""Which of the measured configurations to select: rules compared on recorded grids. `python studies/selection.py`.

Each search draws halves of the questions anew, as in studies/samplers: 40 trials of the default sampler on one half,
then the regret of what each rule selects on the other (0: the best of the table, 1: its median), and by how much the
value that the rule believes in exceeds the one there. Cost is chunk_size × top_k, a stand-in for tokens. Prints tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag_opt.samplers import RagSampler
from rag_opt.samplers.gaussian_process import compute_distances, sample_prior
from rag_opt.simulation.contest import student_interval
from rag_opt.simulation.searches import Search, simulate_search, split_questions
from rag_opt.simulation.tables import Table, load_table
from rag_opt.system import environment

GRIDS = Path(__file__).parent / "samplers" / "grids"
CHOSEN_ON = ("python_docs", "mlflow_docs", "python_docs_mixed", "mlflow_docs_mixed")
"""What the numbers below were chosen on; the others were looked at once."""

HELD_BACK = ("msmarco_qa", "nfcorpus", "squad_articles")
BUDGETS = (20, 30, 40)
DRAWS, SIGNALS = 256, (0.1, 0.3, 1.0, 3.0)
"""Of the sampler's prior; signal variances, in variances of the means."""

Floats = NDArray[np.float64]


def best(scores: Floats, costs: Floats, apart: Floats) -> tuple[int, Floats]:  # noqa: ARG001
    """The greatest mean."""
    return int(scores.mean(axis=1).argmax()), scores.mean(axis=1)


def cheapest_tied(scores: Floats, costs: Floats, apart: Floats) -> tuple[int, Floats]:  # noqa: ARG001
    """Today's rule: the cheapest of those behind the best by no more than the difference's standard error."""
    means = scores.mean(axis=1)
    behind = scores[means.argmax()] - scores
    error = behind.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    tied = np.flatnonzero(behind.mean(axis=1) <= error)
    return int(tied[np.lexsort((-means[tied], costs[tied]))[0]]), means


def believed(scores: Floats, costs: Floats, apart: Floats) -> tuple[int, Floats]:  # noqa: ARG001
    """The greatest posterior mean of a Gaussian process whose noise is what the questions' scores themselves show."""
    count, means = scores.shape[1], scores.mean(axis=1)
    # Question effects are common to all, since all answered the same ones.
    rest = scores - scores.mean(axis=0) - (means - means.mean())[:, None]
    noise = float(((rest**2).sum(axis=1) / (count - 1) / count).mean())
    centred, spread = means - means.mean(), float(means.var()) or 1e-12
    kernels = sample_prior(np.random.default_rng(0), DRAWS, len(apart)).compute_kernel(apart)
    logs, found = [], []
    for kernel in kernels:
        for signal in SIGNALS:
            lower = np.linalg.cholesky(signal * spread * kernel + (noise + 1e-9 * spread) * np.eye(len(means)))
            solved = np.linalg.solve(lower.T, np.linalg.solve(lower, centred))
            logs.append(-np.log(np.diag(lower)).sum() - 0.5 * centred @ solved)
            found.append(signal * spread * kernel @ solved)
    weights = np.exp(np.array(logs) - max(logs))
    values = means.mean() + weights @ np.array(found) / weights.sum()
    return int(values.argmax()), values


def believed_cheapest(scores: Floats, costs: Floats, apart: Floats) -> tuple[int, Floats]:
    """The cheapest of those that are believed to be behind by no more than the standard error."""
    first, values = believed(scores, costs, apart)
    behind = scores[first] - scores
    tied = np.flatnonzero(values[first] - values <= behind.std(axis=1, ddof=1) / np.sqrt(scores.shape[1]))
    return int(tied[np.lexsort((-values[tied], costs[tied]))[0]]), values


RULES = {
    "the best": best,
    "the cheapest tied": cheapest_tied,
    "GP": believed,
    "GP, the cheapest tied": believed_cheapest,
}
Found = dict[tuple[int, str], tuple[float, float]]


def simulate(job: tuple[str, int]) -> Found:
    """By budget and rule the regret on unseen questions, and by how much the believed value was too great."""
    environment.silence_optuna()
    name, seed = job
    table = load_table(GRIDS / f"{name}.parquet")
    split = split_questions(table, seed)
    search = Search(table, RagSampler(seed=seed), split)
    simulate_search(search, max(BUDGETS))
    unseen = table.compute_values(split.test)
    scores, costs = _get_scores(table), np.array([_estimate_cost(row) for row in table.configurations])
    found: Found = {}
    for budget in BUDGETS:
        rows = np.array(search.rows[:budget])
        apart = compute_distances(table.space.axes, table.units[rows], table.units[rows])
        for rule, select in RULES.items():
            chosen, values = select(scores[rows][:, split.dev], costs[rows], apart)
            regret = (unseen.max() - unseen[rows[chosen]]) / (unseen.max() - np.median(unseen))
            found[budget, rule] = float(regret), float(values[chosen] - unseen[rows[chosen]])
    return found


def _get_scores(table: Table) -> Floats:
    scores = np.where(np.isfinite(table.scores), table.scores, np.nanmean(table.scores, axis=1, keepdims=True))
    return scores if table.maximize else -scores


def _estimate_cost(row: object) -> float:
    assert isinstance(row, dict)
    return float(row.get("splitter.chunk_size", 100)) * float(row.get("retriever.top_k", 10))


def tabulate(names: Sequence[str], seeds: int) -> Iterator[str]:
    """The lines of a table: regret, and the difference from today's rule with its interval over seeds."""
    with ProcessPoolExecutor(initializer=environment.use_threads, initargs=(1,)) as pool:
        jobs = [(name, seed) for name in names for seed in range(seeds)]
        runs = dict(zip(jobs, pool.map(simulate, jobs, chunksize=4), strict=True))
    yield f"| trials | rule | regret | less today's rule | {' | '.join(names)} | believed too much |"
    yield "| --- | --- | --- | --- |" + " --- |" * (len(names) + 1)
    for budget in BUDGETS:
        regret = {
            rule: np.array([[runs[name, seed][budget, rule][0] for seed in range(seeds)] for name in names])
            for rule in RULES
        }
        today = regret["the cheapest tied"].mean(axis=0)
        for rule, each in regret.items():
            mean, low, high = student_interval(each.mean(axis=0) - today)
            excess = np.mean([runs[job][budget, rule][1] for job in jobs])
            apart = "" if rule == "the cheapest tied" else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
            cells = " | ".join(f"{value:.3f}" for value in each.mean(axis=1))
            yield f"| {budget} | {rule} | {each.mean():.3f} | {apart} | {cells} | {excess:+.4f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60)
    given = parser.parse_args()
    for names in (CHOSEN_ON, HELD_BACK):
        print(*tabulate(names, given.seeds), "", sep="\n", flush=True)
