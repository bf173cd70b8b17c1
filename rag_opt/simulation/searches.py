"""One search over a table again: what a sampler would have found, by how many measurements."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from rag_opt.analysis.history import RANDOM, find_origin
from rag_opt.samplers import RagSampler
from rag_opt.samplers.costs import ATTRIBUTE, STORED, Key, make_stage_key
from rag_opt.study.terminator import CANDIDATES, estimate_noise

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores
    from rag_opt.simulation.tables import Table
    from rag_opt.study.racing import Race

ONCE = {
    "indexing": ("splitter", "embedder", "index"),
    "evaluation": ("splitter", "embedder", "index", "reranker", "query", "generator"),
}
"""By stage, the groups on whose parameters what takes its time depends: token vectors of a reranker, say.

What a language model is asked anew for another context is not counted.
"""

# The default of evaluation.batches.
BATCHES = 10
"""In which a trial's questions are asked where it may be pruned."""

GIVE_UP_AFTER = 200
"""Draws in a row that were measured before, after which a search has nothing new to try."""

Regrets = NDArray[np.float64]
"""By number of measurements, 0: the best configuration, 1: the median one."""


@dataclass(frozen=True)
class Run:
    """The rows in the order in which a sampler came to them, each once, and what it took.

    `dev` and `test` are the regrets of the best on dev after each measurement; `reached` is the number of measurements
    until 99 % of the best dev value (nan: never), `wall` the seconds that these would have taken beside what was
    stored before (to the end, where it was never reached), `asked` the share of their questions that was asked before
    they were pruned, `random` that of draws at random, `seconds` those of one draw. `ratios` are, after each
    measurement, what another one was expected to gain over the noise, where asked for.
    """

    rows: tuple[int, ...]
    dev: Regrets
    test: Regrets
    reached: float
    wall: float
    asked: float
    random: float
    seconds: float
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True)
class Split:
    """Which questions are searched on, of these which are measured in a trial, and which stay unseen."""

    dev: NDArray[np.int_]
    test: NDArray[np.int_]
    measured: NDArray[np.int_]


def split_questions(table: Table, seed: int, measured: int | None = None) -> Split:
    """Half of the questions dev, half test, drawn anew for every seed; trials measure so many of dev (None: all)."""
    # 7 keeps these draws apart from others of the same seed.
    order = np.random.default_rng([seed, 7]).permutation(table.scores.shape[1])
    dev, test = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    # Those measured stay in their drawn order: WilcoxonPruner wants questions shuffled, and pruners see the first few.
    return Split(dev, test, order[: len(dev)][:measured])


@dataclass
class Search:
    """One search over a table; `pruner` stops trials early: one of Optuna's, and a race beside it or None.

    `stored` are rows that others have computed before.
    """

    table: Table
    sampler: BaseSampler
    questions: Split
    pruner: tuple[BasePruner, Race | None] = (NopPruner(), None)
    stored: Sequence[int] = ()
    rows: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    asked: int = 0
    draws: int = 0
    random: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        sign = 1.0 if self.table.maximize else -1.0
        self.scores = sign * self.table.scores[:, self.questions.measured]
        self.means = self.table.compute_values(self.questions.measured)
        # Scores and means are turned so that more is better, whatever the table's metric.
        self.study = optuna.create_study(direction="maximize", sampler=self.sampler, pruner=self.pruner[0])
        known = [[dict(self.table.configurations[row]), dict(self.table.seconds[row])] for row in self.stored]
        self.study.set_user_attr(STORED, known)

    def step(self) -> bool:
        """Draw and measure a configuration; whether it is a new one."""
        start = time.perf_counter()
        trial = self.study.ask()
        # Timed with the asking: samplers draw some parameters only when these are asked for.
        row = self.table.sample_row(trial)
        self.seconds += time.perf_counter() - start
        self.draws += 1
        self.random += find_origin(self.sampler, trial) == RANDOM
        # Before it is told: Optuna takes no attributes of a trial that has ended.
        trial.set_user_attr(ATTRIBUTE, dict(self.table.seconds[row]))
        new = row not in self.rows
        lost = self._run_batches(trial, row) if new else self.values[self.rows.index(row)] == -np.inf
        # The mean of a part of the questions competes with no whole one, so what was pruned is never the best.
        if new:
            self.rows.append(row)
            self.values.append(-np.inf if lost else float(self.means[row]))
        # What is drawn again is told again, as in a study: it teaches the sampler and takes no place in the budget.
        if lost:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, float(self.means[row]))
        return new

    def _run_batches(self, trial: optuna.Trial, row: int) -> bool:
        """Ask the questions batch by batch, until the trial has lost or none is left."""
        scores, (pruner, race) = self.scores[row], self.pruner
        if isinstance(pruner, NopPruner) and race is None:
            self.asked += len(scores)
            return False
        before = 0
        for batch, part in enumerate(np.array_split(np.arange(len(scores)), BATCHES), 1):
            count = before + len(part)
            self.asked += len(part)
            # After the last batch there is nothing left to spare.
            if count == len(scores):
                return False
            # WilcoxonPruner pairs scores by the question's place, the others compare means so far. A race reads no
            # report, but without any a pruned trial would tell the sampler nothing.
            reports = enumerate(scores[before:count], before) if isinstance(pruner, WilcoxonPruner) else ()
            for step, score in reports or [(batch, np.nanmean(scores[:count]))]:
                if np.isfinite(score):
                    trial.report(float(score), step)
            before = count
            if (race is not None and self._has_lost_race(race, scores[:count])) or trial.should_prune():
                return True
        return False

    def _has_lost_race(self, race: Race, scores: Scores) -> bool:
        best = [{"": self.scores[self.rows[int(np.argmax(self.values))]]}] if self.rows else []
        return race.is_dominated({"": scores}, best, {"": 1.0})

    def compute_ratio(self) -> float:
        """What another measurement is expected to gain over the noise."""
        order = np.array(self.rows)[np.argsort(-np.array(self.values), kind="stable")]
        noise = estimate_noise(self.scores[order[0]], list(self.scores[order[1:CANDIDATES]]))
        # Whichever sampler the search has, as stopping=regret does it.
        return RagSampler(seed=0).expected_gain(self.study) / noise


def simulate_search(search: Search, budget: int, ratios: bool = False) -> Run:
    """A search of so many measurements, or of the whole table; a configuration drawn again costs nothing."""
    gains: list[float] = []
    again = 0
    while len(search.rows) < min(budget, len(search.means)) and again < GIVE_UP_AFTER:
        new = search.step()
        again = 0 if new else again + 1
        if new and ratios:
            gains.append(search.compute_ratio())
    return _build_run(search, budget, gains)


def _build_run(search: Search, budget: int, gains: Sequence[float]) -> Run:
    dev, test = (search.table.compute_values(part) for part in (search.questions.dev, search.questions.test))
    rows, values = np.array(search.rows), np.array(search.values)
    # Chosen by what was measured, judged below on all questions of each half.
    # The first of equals stays the best.
    best = rows[np.array([int(values[: count + 1].argmax()) for count in range(len(rows))])]
    # A search that ended early keeps its best: runs of one length can be averaged.
    best = np.append(best, np.repeat(best[-1], budget - len(best)))
    # Losses are negative here, so 1 % is taken of the absolute value.
    near = np.flatnonzero(dev[best] >= dev.max() - 0.01 * abs(dev.max()))
    reached = float(near[0] + 1) if len(near) else np.nan
    return Run(
        rows=tuple(search.rows),
        dev=_compute_regret(dev, best),
        test=_compute_regret(test, best),
        reached=reached,
        wall=_compute_wall_time(search.table, search.rows[: int(reached) if len(near) else None], search.stored),
        asked=search.asked / (len(rows) * len(search.questions.measured)),
        random=search.random / search.draws,
        seconds=search.seconds / search.draws,
        ratios=tuple(gains),
    )


def _compute_wall_time(table: Table, rows: Sequence[int], stored: Sequence[int]) -> float:
    """The seconds of these configurations one after the other: the most noted of what is computed once."""
    total = 0.0
    for stage, groups in ONCE.items():
        keys = [make_stage_key(configuration, groups) for configuration in table.configurations]
        first: dict[Key, float] = {}
        for key, seconds in zip(keys, table.seconds, strict=True):
            first[key] = max(first.get(key, 0.0), seconds.get(stage, 0.0))
        total += sum(first[key] for key in {keys[row] for row in rows} - {keys[row] for row in stored})
    return total


def _compute_regret(values: NDArray[np.float64], chosen: NDArray[np.int_]) -> Regrets:
    span = values.max() - np.median(values)
    regret: Regrets = (values.max() - values[chosen]) / (span if span > 0 else 1.0)
    return regret
