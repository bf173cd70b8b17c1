"""Which parameters move the score: what is said of it, against recorded grids. `python studies/importance.py`.

Each search draws halves of the questions anew, as in studies/samplers, and measures 30 configurations. Then the size of
each parameter's effect, as the report tells it, is compared with that on the whole grid, and so are the orders that
Optuna's PED-ANOVA and fANOVA give. Prints a table.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from scipy import stats

from rag_opt.samplers import RagSampler
from rag_opt.samplers.effects import draw_pairs, estimate_effects
from rag_opt.simulation.searches import Search, simulate_search, split_questions
from rag_opt.simulation.tables import Table, load_table
from rag_opt.system import environment

GRIDS = Path(__file__).parent / "samplers" / "grids"
NAMES = ("python_docs", "mlflow_docs", "msmarco_qa", "nfcorpus", "squad_articles")
TRIALS, REPEATS = 30, 20
SAMPLERS = {"rag": RagSampler, "TPE": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}


class Compared(NamedTuple):
    """Kendall's tau with the truth and whether the first is the first, by method; how many of the intervals hold it."""

    taus: Mapping[str, float]
    firsts: Mapping[str, bool]
    held: float
    ratio: float


def compute_truth(table: Table, values: NDArray[np.float64]) -> dict[str, float]:
    """The effect of each parameter on the grid itself."""
    rows = {row.tobytes(): number for number, row in enumerate(table.units)}
    found = {}
    for column, axis in enumerate(table.space.axes):
        apart = []
        for seed in range(REPEATS):
            before, after = draw_pairs(table.space, column, np.random.default_rng([column, seed]))
            places = [np.array([rows[row.tobytes()] for row in part], int) for part in (before, after)]
            apart.append(values[places[1]] - values[places[0]])
        found[axis.name] = float(np.sqrt((np.concatenate(apart) ** 2).mean()))
    return found


def simulate(job: tuple[str, str, int]) -> Compared:
    """One search, and what is said after it."""
    name, kind, seed = job
    environment.silence_optuna()
    warnings.simplefilter("ignore")
    table = load_table(GRIDS / f"{name}.parquet")
    split = split_questions(table, seed)
    search = Search(table, SAMPLERS[kind](seed=seed), split)
    simulate_search(search, TRIALS)
    truth = compute_truth(table, table.compute_values(split.dev))
    effects = estimate_effects(search.study.directions, search.study.get_trials(deepcopy=False))
    said: dict[str, Mapping[str, float]] = {
        "ours": {each: effect.size for each, effect in effects.items()},
        "PED-ANOVA": get_param_importances(search.study, evaluator=PedAnovaImportanceEvaluator()),
        "fANOVA": get_param_importances(search.study, evaluator=FanovaImportanceEvaluator(seed=0)),
    }
    names = [each for each in truth if each in effects]
    true = [truth[each] for each in names]
    orders = {method: [sizes.get(each, 0.0) for each in names] for method, sizes in said.items()}
    return Compared(
        {method: float(stats.kendalltau(order, true).statistic) for method, order in orders.items()},
        {method: int(np.argmax(order)) == int(np.argmax(true)) for method, order in orders.items()},
        float(np.mean([effects[each].low <= truth[each] <= effects[each].high for each in names])),
        float(np.mean([effects[each].size for each in names]) / np.mean(true)),
    )


def tabulate(seeds: int) -> Iterator[str]:
    """The lines of the table, as the searches end."""
    methods = ("ours", "PED-ANOVA", "fANOVA")
    named = " / ".join(methods)
    yield f"| grid | sampler | tau: {named} | right first: {named} | intervals hold | size |"
    yield "| --- | --- | --- | --- | --- | --- |"
    with ProcessPoolExecutor(initializer=environment.use_threads, initargs=(1,)) as pool:
        for name in NAMES:
            for kind in SAMPLERS:
                found = list(pool.map(simulate, [(name, kind, seed) for seed in range(seeds)]))
                taus = " / ".join(f"{np.nanmean([each.taus[method] for each in found]):.2f}" for method in methods)
                firsts = " / ".join(f"{np.mean([each.firsts[method] for each in found]):.0%}" for method in methods)
                held = np.mean([each.held for each in found])
                yield f"| {name} | {kind} | {taus} | {firsts} | {held:.0%} | {np.mean([e.ratio for e in found]):.2f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    for line in tabulate(parser.parse_args().seeds):
        print(line, flush=True)
