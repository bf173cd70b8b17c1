"""Samplers on the recorded grids → studies/samplers/README.md and regret.svg: `nox -s bench -- samplers`.

`--seeds 5` makes a small run, into studies/samplers/quick; `--draws` takes the time of draws alone anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
from threadpoolctl import threadpool_limits

from rag_opt.console.progress import Screen
from rag_opt.reporting.tables import format_pipe_table
from rag_opt.samplers import RagSampler, StageSeconds
from rag_opt.simulation import contest
from rag_opt.simulation.contest import Contest, Rules
from rag_opt.simulation.tables import Table, read_parquet
from rag_opt.system import environment

mpl.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
TPE = "optuna.samplers.TPESampler"
BASELINES = ("random", "qmc", TPE, "tpe", "greedy", "gp")
BUDGETS = (10, 20, 30)
BUDGET = 40
NOISY = 20
"""Questions of a noisy search."""

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Of the noise, below which an expected gain ends a search."""

STORED = 20
"""Configurations that others have computed, where the store is not empty."""

TIMED = ("rag", "rag_seconds")
CHOSEN_ON = ("python_docs", "mlflow_docs")
"""The tables on which it was chosen what a free configuration counts for beside a dear one."""

LEAST = 15
"""Measurements before which no search ends."""

NAMES = {TPE: "TPE (Optuna's defaults)", "tpe": "TPE (multivariate, group)", "gp": "GPSampler", "greedy": "greedy"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--draws", action="store_true")
    given = parser.parse_args()
    environment.silence_optuna()
    if given.draws:
        text = (HERE / "README.md").read_text("utf-8")
        before, after = text.partition("\n## A draw\n")[0], text.partition("\n## Whole grids\n")[2]
        (HERE / "README.md").write_text("\n".join([before, *_draws(), "\n## Whole grids\n"]) + after, "utf-8")
        return
    tables = [read_parquet(path) for path in sorted((HERE / "grids").glob("*.parquet"))]
    grids = [table for table in tables if table.whole]
    mixed = [table for table in tables if not table.whole]
    place = HERE if given.seeds == 30 else HERE / "quick"
    place.mkdir(exist_ok=True)
    rules, every = Rules(given.seeds, BUDGET), (*BASELINES, "rag")
    near = [sum(table.compute_values() >= _near(table.compute_values().max())) for table in tables]
    told = [[table.name, contest.describe_table(table), f"{count}"] for table, count in zip(tables, near, strict=True)]
    data = format_pipe_table((["table", "what it is", "within 1 % of the best"], told))
    parts = [HEAD.format(**_about(given.seeds)), "## The data\n", *data]
    parts += _draws()
    with Screen() as screen:
        whole = contest.run_contest(grids, every, rules, screen)
        _drawn(whole, place / "regret.svg")
        verdicts = [f"- {contest.format_table_verdict(whole, table)}" for table in whole.tables]
        _kept(place, parts, [*_compared("## Whole grids\n", whole), *verdicts, ""])
        ratios = dataclasses.replace(rules, ratios=True)
        _kept(place, parts, _stops(contest.run_contest(grids, ("rag",), ratios, screen), grids))
        fewer = dataclasses.replace(rules, questions=NOISY)
        title = f"## Noisy: {NOISY} questions a trial\n\nRegret is that of all dev questions.\n"
        _kept(place, parts, _compared(title, contest.run_contest(grids, every, fewer, screen)))
        for stored in (0, STORED):
            before = dataclasses.replace(rules, stored=stored)
            _kept(place, parts, _walls(contest.run_contest(grids, TIMED, before, screen), stored))
        pruned = contest.run_contest(grids, ("rag", "rag+race", "rag+median", "rag+wilcoxon"), rules, screen)
        _kept(place, parts, ["\n## Pruners\n", *format_pipe_table(contest.tabulate_samplers(pruned, pruned.tables))])
        _kept(
            place, parts, _compared("## Spaces with real numbers\n", contest.run_contest(mixed, every, rules, screen))
        )
    print(f"open:      {place / 'README.md'}")


def _near(best: float) -> float:
    return best - 0.01 * abs(best)


def _kept(place: Path, parts: list[str], more: Sequence[str]) -> None:
    """What is known so far, in the README: the rest may take long."""
    parts.extend(more)
    notes = (HERE / "notes.md").read_text("utf-8")
    (place / "README.md").write_text("\n".join([*parts, "", notes]), "utf-8")


HEAD = """# Samplers, replayed on recorded grids

Made by `nox -s bench -- samplers` from the tables in [grids](grids), which [record.py](record.py) recorded. {seeds}
seeds; each draws halves of the questions anew, searches on one and looks at the other. Regret: 0 is the best
configuration, 1 the median one. {when}, {cores} cores, CPython {python}, optuna {optuna}.

![regret by number of measured configurations](regret.svg)
"""


def _about(seeds: int) -> dict[str, object]:
    return {
        "seeds": seeds,
        "when": f"{datetime.now(UTC):%d %B %Y}",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "optuna": optuna.__version__,
    }


def _compared(title: str, held: Contest) -> list[str]:
    """The mean over tables, and what rag is better by at each budget, against each and the best of the others."""
    told = f"\nregret of rag less the other's, mean of {len(held.tables)} tables, with 95 % intervals over seeds:\n"
    header = ["against", *(f"at {at}" for at in BUDGETS)]
    rows = [[_name(other), *(_interval(held, other, at) for at in BUDGETS)] for other in BASELINES]
    best = ["the best of them", *(_interval(held, _best(held, at), at) for at in BUDGETS)]
    table = contest.tabulate_samplers(held, held.tables)
    named = (table[0], [[_name(row[0]), *row[1:]] for row in table[1]])
    against = format_pipe_table((header, [*rows, best]))
    return [f"\n{title}", *format_pipe_table(named), told, *against, *_beside(held)]


def _best(held: Contest, at: int) -> str:
    return min(
        BASELINES, key=lambda name: float(np.mean([entry.get_regret(at).mean() for entry in held.get_entries(name)]))
    )


def _interval(held: Contest, other: str, at: int) -> str:
    mean, low, high = contest.compare_samplers(held, "rag", other, at)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _beside(held: Contest) -> list[str]:
    """Table by table, rag beside TPE, and whether it is worse by more than a standard error anywhere."""
    header = ["table", *(f"rag at {at}" for at in BUDGETS), *(f"TPE at {at}" for at in BUDGETS), "worse by > 1 SE"]
    rows = []
    for mine, theirs in zip(held.get_entries("rag"), held.get_entries(TPE), strict=True):
        apart = [mine.get_regret(at) - theirs.get_regret(at) for at in BUDGETS]
        worse = [each.mean() > each.std(ddof=1) / np.sqrt(len(each)) for each in apart]
        values = [f"{entry.get_regret(at).mean():.3f}" for entry in (mine, theirs) for at in BUDGETS]
        rows.append([mine.table, *values, "yes" if any(worse) else "no"])
    return ["\ntable by table:\n", *format_pipe_table((header, rows)), ""]


def _walls(held: Contest, stored: int) -> list[str]:
    rows = []
    for entry in held.entries:
        walls = np.array([run.wall for run in entry.runs])
        share = np.isfinite(entry.reached).mean()
        rows.append([entry.table, entry.sampler, f"{np.median(walls):.0f} s", f"{walls.mean():.0f} s", f"{share:.0%}"])
    header = ["table", "sampler", "median wall", "mean wall", f"reached in {BUDGET}"]
    others = [table for table in held.tables if table not in CHOSEN_ON]
    told = (
        f"\nTime with rag_seconds against rag in searches in which both arrived: {_spared(held, held.tables)} over all "
        f"tables (geometric means, 95 % intervals over seeds), {_spared(held, others)} over {', '.join(others)}, on "
        f"which none of its constants was chosen. In the table a search that did not arrive has the time of its "
        f"{BUDGET} measurements.\n"
    )
    title = "\n## Improvement per second\n\nSeconds until 99 % of the best, by the stages' timings, nothing stored.\n"
    if stored:
        title = f"\n### Where {stored} configurations, drawn at random, were stored before\n"
    return [title, *format_pipe_table((header, rows)), told]


def _spared(held: Contest, tables: Sequence[str]) -> str:
    walls, arrived = (
        np.array(
            [
                [[each(run) for run in entry.runs] for entry in held.get_entries(name) if entry.table in tables]
                for name in TIMED
            ]
        )
        for each in (lambda run: run.wall, lambda run: np.isfinite(run.reached))
    )
    ratios = np.where(arrived.all(axis=0), np.log(walls[1] / walls[0]), np.nan)
    mean, low, high = np.expm1(contest.student_interval(np.nanmean(ratios, axis=0)))
    return f"{mean:+.0%} [{low:+.0%}, {high:+.0%}]"


def _stops(held: Contest, tables: Sequence[Table]) -> list[str]:
    """What ending a search at a share of the noise spares, and how often what it misses is more than the noise."""
    rows = []
    noise = {table.name: _noise(table) for table in tables}
    for name in held.samplers:
        for share in SHARES:
            ends, missed, unseen, wrong = [], [], [], []
            for entry in held.get_entries(name):
                for run in entry.runs:
                    below = [at for at, ratio in enumerate(run.ratios, 1) if at >= LEAST and ratio < share]
                    end = below[0] if below else BUDGET
                    ends.append(end)
                    missed.append(run.dev[end - 1] - run.dev[-1])
                    unseen.append(run.test[end - 1] - run.test[-1])
                    wrong.append(missed[-1] > noise[entry.table])
            figures = [f"{np.mean(ends):.1f}", f"{1 - np.mean(ends) / BUDGET:.0%}", f"{np.mean(missed):.4f}"]
            rows.append([name, f"{share:g}", *figures, f"{np.mean(unseen):+.4f}", f"{np.mean(wrong):.1%}"])
    header = ["sampler", "share", "trials", f"spared of {BUDGET}", "dev regret missed", "unseen regret missed", "wrong"]
    told = (
        f"\n## Ending early (stopping=regret, after {LEAST} trials)\n\nWrong: {BUDGET} trials found what is better on "
        "dev by more than the noise, the standard error of the difference between the best ones.\n"
    )
    return [told, *format_pipe_table((header, rows)), ""]


def _noise(table: Table) -> float:
    """In units of regret, on half of the questions."""
    from rag_opt.study.terminator import CANDIDATES, estimate_noise

    values = table.compute_values()
    order = np.argsort(-values)
    noise = np.sqrt(2) * estimate_noise(table.scores[order[0]], table.scores[order[1:CANDIDATES]])
    return float(noise / (values.max() - np.median(values)))


def _draws() -> list[str]:
    """Milliseconds of a draw, by what the sampler is to think of."""
    kinds = ("names and numbers", "two constraints", "improvement per second", "two objectives")
    with threadpool_limits(1):
        rows = [[kind, f"{_draw(kind):.0f}"] for kind in kinds]
    header = ["100 trials × 15 parameters", "ms a draw"]
    return ["\n## A draw\n\nMedian of 15, one thread.\n", *format_pipe_table((header, rows)), ""]


def _draw(kind: str) -> float:
    directions = ["maximize", "minimize"][: 2 if kind == "two objectives" else 1]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(0))

    def objective(trial: optuna.Trial) -> list[float]:
        value = sum(trial.suggest_categorical(f"c{index}", ["a", "b", "c", "d"]) == "a" for index in range(6))
        value -= sum((trial.suggest_float(f"f{index}", 0, 1) - 0.3) ** 2 for index in range(5))
        numbers = [trial.suggest_int(f"i{index}", 1, 20) for index in range(4)]
        trial.set_user_attr("seconds", {"making": float(numbers[0])})
        for index in range(2 if kind == "two constraints" else 0):
            trial.set_constraint(f"small{index}", numbers[index] - 15)
        return [value + sum(numbers) / 20, float(numbers[1])][: len(directions)]

    study.optimize(objective, n_trials=100)
    cost = StageSeconds({"making": ["c0", "c1", "i0"]}) if kind == "improvement per second" else None
    study.sampler = RagSampler(seed=0, cost=cost)
    taken = []
    for _ in range(15):
        trial = study.ask()
        start = time.perf_counter()
        objective(trial)
        taken.append(time.perf_counter() - start)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # of no report, so nothing is learnt from it
    return 1000 * float(np.median(taken))


def _drawn(held: Contest, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    steps = np.arange(1, BUDGET + 1)
    for name in held.samplers:
        dev = np.mean([[run.dev for run in entry.runs] for entry in held.get_entries(name)], axis=0)
        test = np.mean([[run.test for run in entry.runs] for entry in held.get_entries(name)], axis=0)
        for axes, runs in ((left, dev), (right, test)):
            mean, error = runs.mean(axis=0), runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
            (line,) = axes.plot(steps, mean, label=_name(name), linewidth=2.5 if name == "rag" else 1.2)
            axes.fill_between(steps, mean - error, mean + error, color=line.get_color(), alpha=0.15, linewidth=0)
    left.set(title="on the questions searched", ylabel="regret", xlabel="measured configurations", ylim=(0, 1))
    right.set(title="on unseen questions", xlabel="measured configurations")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _name(sampler: str) -> str:
    return NAMES.get(sampler, sampler)


if __name__ == "__main__":
    main()
    environment.exit_process()
