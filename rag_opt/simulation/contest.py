"""Samplers against each other on recorded tables: what each would have found, by how many measurements."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from scipy import special

from rag_opt.config.compose import compose_config
from rag_opt.config.trust import build
from rag_opt.simulation.searches import Run, Search, simulate_search, split_questions
from rag_opt.study.sampling import build_pruner, build_sampler
from rag_opt.system import environment
from rag_opt.workers.launchers import ignore_interrupts

if TYPE_CHECKING:
    from rag_opt.console.progress import Screen
    from rag_opt.reporting.tables import Rows
    from rag_opt.simulation.tables import Table

BUDGETS = (10, 20, 30)
"""Measurements after which the regret is told, beside those at the end."""

ENOUGH = 0.9
"""Of the searches that have come within 1 % of the best where a number of trials is called enough."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_tables: list[Table] = []
"""Of a process that replays."""


@dataclass(frozen=True)
class Entry:
    """All searches of one table by one sampler, in the order of their seeds."""

    table: str
    sampler: str
    runs: tuple[Run, ...]

    def get_regret(self, at: int, questions: str = "dev") -> NDArray[np.float64]:
        """One value a run: after so many measurements."""
        return np.array([getattr(run, questions)[at - 1] for run in self.runs])

    @property
    def reached(self) -> NDArray[np.float64]:
        """Measurements until 99 % of the best, inf where it was not reached."""
        return np.array([np.inf if np.isnan(run.reached) else run.reached for run in self.runs])


@dataclass(frozen=True)
class Rules:
    """So many searches of so many measurements each; `questions`: of dev so many are measured, None: all.

    `ratios`: after each measurement it is asked whether the search would stop there. `stored`: so many configurations,
    at random, were computed by others before.
    """

    seeds: int
    budget: int
    questions: int | None = None
    ratios: bool = False
    stored: int = 0


@dataclass(frozen=True)
class Contest:
    """The entries, table by table, and what they are about."""

    entries: tuple[Entry, ...]
    about: Mapping[str, str]
    rules: Rules

    @property
    def budget(self) -> int:
        """Measurements of each search."""
        return self.rules.budget

    @property
    def tables(self) -> list[str]:
        """The tables' names."""
        return list(dict.fromkeys(entry.table for entry in self.entries))

    @property
    def samplers(self) -> list[str]:
        """The samplers' names."""
        return list(dict.fromkeys(entry.sampler for entry in self.entries))

    def get_entries(self, sampler: str) -> list[Entry]:
        """This sampler's entries, one a table."""
        return [entry for entry in self.entries if entry.sampler == sampler]


def run_contest(tables: Sequence[Table], samplers: Sequence[str], rules: Rules, screen: Screen) -> Contest:
    """Every sampler on every table, so many times; raises ConfigError for an unknown name.

    Names are of conf/sampler; after a + stands one of conf/pruner, such as rag+race.
    """
    # A wrong name is said before any work, and not by a process of the pool.
    for name in samplers:
        _make_sampler(name.partition("+")[0], 0)
        build_pruner(compose_config([f"pruner={name.partition('+')[2] or 'none'}"]))
    names = list(dict.fromkeys(samplers))
    jobs = [(row, name, seed) for row in range(len(tables)) for name in names for seed in range(rules.seeds)]
    runs: dict[tuple[int, str], list[Run]] = {}
    with _limit_threads(), screen.show_task("replays", len(jobs)) as advance:
        # A fork would have this process's BLAS, which read the number of its threads when it was loaded.
        context = multiprocessing.get_context("spawn")
        count = min(os.cpu_count() or 1, len(jobs))
        with ProcessPoolExecutor(count, context, _init_worker, (tables,)) as pool:
            # The processes start as jobs are submitted: they ignore Ctrl-C, and this one answers it for all.
            with ignore_interrupts():
                measured = pool.map(_simulate, *zip(*((*job, rules) for job in jobs), strict=True))
            try:
                for (row, name, _), run in zip(jobs, measured, strict=True):
                    runs.setdefault((row, name), []).append(run)
                    advance(1)
            except BaseException:
                # Leaving the block would wait for every job in the queue.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    entries = tuple(Entry(tables[row].name, name, tuple(found)) for (row, name), found in runs.items())
    about = {table.name: describe_table(table) for table in tables}
    return Contest(entries, about, rules)


def describe_table(table: Table) -> str:
    """A table in a line: how much it holds, and what replaying what it lacks costs in truth."""
    configurations, questions = table.scores.shape
    told = f"{configurations} configurations, {questions} questions, {table.metric}"
    if table.whole:
        return f"{told}; the whole grid"
    error = table.compute_surrogate_error()
    return f"{told}; what was not measured is taken from the nearest, which is off by {error:.0%} of the range"


def _init_worker(tables: Sequence[Table]) -> None:
    environment.silence_optuna()
    _tables[:] = tables


def _simulate(row: int, sampler: str, seed: int, rules: Rules) -> Run:
    table = _tables[row]
    name, _, pruner = sampler.partition("+")
    pruners = build_pruner(compose_config([f"pruner={pruner or 'none'}"]))
    # 11 keeps these draws apart from those of the same seed that halve the questions.
    others = np.random.default_rng([seed, 11]).permutation(len(table.configurations))[: rules.stored].tolist()
    search = Search(table, _make_sampler(name, seed), split_questions(table, seed, rules.questions), pruners, others)
    return simulate_search(search, rules.budget, rules.ratios)


def _make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of a file of conf/sampler or, with its defaults, of a class such as optuna.samplers.TPESampler."""
    if "." in name:
        return build({"_target_": name, "seed": seed})  # type: ignore[no-any-return]
    return build_sampler(compose_config([f"sampler={name}", f"seed={seed}"]), 0)  # type: ignore[no-any-return]


@contextmanager
def _limit_threads() -> Iterator[None]:
    """Processes that begin meanwhile use one core each: the matrices are small."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def compare_samplers(contest: Contest, sampler: str, other: str, at: int) -> tuple[float, float, float]:
    """The mean over tables of `sampler` less `other` in dev regret after `at` measurements, and its 95 % interval.

    Both searched the same halves of the questions, so the seeds are paired; the interval is over seeds, the tables
    being those that are there.
    """
    pairs = zip(contest.get_entries(sampler), contest.get_entries(other), strict=True)
    each = np.mean([mine.get_regret(at) - theirs.get_regret(at) for mine, theirs in pairs], axis=0)
    return student_interval(each)


def student_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean and its 95 % interval by Student's t; nan for that of fewer than two values."""
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return mean, np.nan, np.nan
    # Not scipy.stats, which has it too and takes far longer to load.
    half = float(special.stdtrit(count - 1, 0.975) * values.std(ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def tabulate_samplers(contest: Contest, tables: Sequence[str]) -> Rows:
    """One row a sampler: over the runs of these tables, with standard errors over seeds; TOLD says what it shows."""
    budgets = [at for at in BUDGETS if at < contest.budget]
    header = ["sampler", "to 99 %", *(f"at {at}" for at in [*budgets, contest.budget])]
    header += [f"unseen, {contest.budget}", "asked", "random", "ms"]
    return header, [_format_row(contest, name, tables, [*budgets, contest.budget]) for name in contest.samplers]


def _format_row(contest: Contest, sampler: str, tables: Sequence[str], budgets: Sequence[int]) -> list[str]:
    entries = [entry for entry in contest.get_entries(sampler) if entry.table in tables]
    reached = np.concatenate([entry.reached for entry in entries])
    runs = [run for entry in entries for run in entry.runs]
    return [
        sampler,
        # Not interpolated: what was never reached is inf.
        " / ".join(_format_count(np.quantile(reached, share, method="higher")) for share in (0.5, ENOUGH)),
        *(_format_mean([entry.get_regret(at) for entry in entries]) for at in budgets),
        _format_mean([entry.get_regret(budgets[-1], "test") for entry in entries]),
        f"{np.mean([run.asked for run in runs]):.0%}",
        f"{np.mean([run.random for run in runs]):.0%}",
        f"{1000 * np.mean([run.seconds for run in runs]):.1f}",
    ]


def _format_mean(regrets: Sequence[NDArray[np.float64]]) -> str:
    """The mean of the tables' means; its error over seeds, which are the tables' in common."""
    each = np.mean(regrets, axis=0)
    error = f" ± {each.std(ddof=1) / np.sqrt(len(each)):.3f}" if len(each) > 1 else ""
    return f"{each.mean():.3f}{error}"


def _format_count(number: float) -> str:
    return "-" if np.isinf(number) else f"{number:.0f}"


def format_table_verdict(contest: Contest, table: str) -> str:
    """Which sampler, and how many trials, would have been enough for this data; and what more of them bought."""
    entries = [entry for entry in contest.entries if entry.table == table]
    # Of those that need the same number the one with less regret on the way.
    best = min(entries, key=lambda entry: (_count_enough(entry), np.mean([run.dev.mean() for run in entry.runs])))
    enough = _count_enough(best)
    if np.isinf(enough):
        share = np.isfinite(best.reached).mean()
        first = (
            f"{table}: {contest.budget} trials would not have been enough; with {_format_sampler(best.sampler)} "
            f"{share:.0%} of the searches came within 1 % of the best"
        )
    else:
        first = (
            f"{table}: {_format_sampler(best.sampler)} and {enough:.0f} trials would have been enough "
            f"({ENOUGH:.0%} of the searches were within 1 % of the best)"
        )
    if len(best.runs) < 2:
        return f"{first}."
    unseen = np.array([run.test for run in best.runs])
    # [1] is the interval's lower end: a gain is shown where that is above 0.
    later = [student_interval(unseen[:, at] - unseen[:, -1])[1] for at in range(contest.budget)]
    # At the last step the difference is 0, so there is always one.
    settled = next(at for at, low in enumerate(later, 1) if not low > 0)
    told = f"on unseen questions no gain can be shown after {settled} (regret {unseen[:, -1].mean():.2f})"
    return f"{first}; {told}."


def _format_sampler(sampler: str) -> str:
    """What is typed for it, where there is a word for it."""
    name, _, pruner = sampler.partition("+")
    return f"{name if '.' in name else f'sampler={name}'}{f' pruner={pruner}' if pruner else ''}"


def _count_enough(entry: Entry) -> float:
    return float(np.quantile(entry.reached, ENOUGH, method="higher"))
