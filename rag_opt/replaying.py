"""One search over a table again: what a sampler would have found, by how many measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler

from rag_opt.history import RANDOM, drawn
from rag_opt.tables import Table

GIVE_UP_AFTER = 200
"""Draws in a row that were measured before, after which a search has nothing new to try."""

Regrets = NDArray[np.float64]
"""By number of measurements, 0: the best configuration, 1: the median one."""


@dataclass(frozen=True)
class Run:
    """The rows in the order in which a sampler came to them, each once, and what it took.

    `dev` and `test` are the regrets of the best on dev after each measurement; `reached` is the number of measurements
    until 99 % of the best dev value (nan: never), `random` the share of draws at random, `seconds` those of one draw.
    """

    rows: tuple[int, ...]
    dev: Regrets
    test: Regrets
    reached: float
    random: float
    seconds: float


@dataclass(frozen=True)
class Split:
    """Which questions are searched on, of these which are measured in a trial, and which stay unseen."""

    dev: NDArray[np.int_]
    test: NDArray[np.int_]
    measured: NDArray[np.int_]


def split(table: Table, seed: int, measured: int | None = None) -> Split:
    """Half of the questions dev, half test, drawn anew for every seed; trials measure so many of dev (None: all)."""
    order = np.random.default_rng([seed, 7]).permutation(table.scores.shape[1])
    dev, test = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    return Split(dev, test, order[: len(dev)][:measured])


def replayed(table: Table, sampler: BaseSampler, budget: int, questions: Split) -> Run:
    """A search of so many measurements, or of the whole table; a configuration drawn again costs nothing."""
    told = table.values(questions.measured)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rows: list[int] = []
    draws, by_chance, again, spent = 0, 0, 0, 0.0
    while len(rows) < min(budget, len(told)) and again < GIVE_UP_AFTER:
        start = time.perf_counter()
        trial = study.ask()
        row = table.asked(trial)
        spent += time.perf_counter() - start
        draws += 1
        by_chance += drawn(sampler, trial) == RANDOM
        again = again + 1 if row in rows else 0
        if not again:
            rows.append(row)
        study.tell(trial, float(told[row]))
    return _judged(table, questions, tuple(rows), budget, by_chance / draws, spent / draws)


def _judged(table: Table, questions: Split, rows: tuple[int, ...], budget: int, random: float, seconds: float) -> Run:
    told, dev, test = (table.values(part) for part in (questions.measured, questions.dev, questions.test))
    found = told[list(rows)]
    # The first of equals stays the best.
    best = np.array(rows)[np.array([int(found[: count + 1].argmax()) for count in range(len(rows))])]
    best = np.append(best, np.repeat(best[-1], budget - len(best)))
    near = np.flatnonzero(dev[best] >= dev.max() - 0.01 * abs(dev.max()))
    return Run(
        rows=rows,
        dev=_regret(dev, best),
        test=_regret(test, best),
        reached=float(near[0] + 1) if len(near) else np.nan,
        random=random,
        seconds=seconds,
    )


def _regret(values: NDArray[np.float64], chosen: NDArray[np.int_]) -> Regrets:
    span = values.max() - np.median(values)
    regret: Regrets = (values.max() - values[chosen]) / (span if span > 0 else 1.0)
    return regret


Maker = Callable[[int], BaseSampler]
"""A sampler from a seed."""
