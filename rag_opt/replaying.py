"""One search over a table again: what a sampler would have found, by how many measurements."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler

from rag_opt.enough import RIVALS, noise_of
from rag_opt.history import RANDOM, drawn
from rag_opt.samplers import RagSampler
from rag_opt.samplers.costs import ATTRIBUTE, Key, key_of
from rag_opt.tables import Table

ONCE = {
    "indexing": ("splitter", "embedder", "index"),
    "evaluation": ("splitter", "embedder", "index", "reranker", "query", "generator"),
}
"""By stage, the groups on whose parameters its results depend: what a store keeps."""

GIVE_UP_AFTER = 200
"""Draws in a row that were measured before, after which a search has nothing new to try."""

Regrets = NDArray[np.float64]
"""By number of measurements, 0: the best configuration, 1: the median one."""


@dataclass(frozen=True)
class Run:
    """The rows in the order in which a sampler came to them, each once, and what it took.

    `dev` and `test` are the regrets of the best on dev after each measurement; `reached` is the number of measurements
    until 99 % of the best dev value (nan: never), `wall` the seconds that these would have taken with nothing stored
    before (to the end, where it was never reached), `random` the share of draws at random, `seconds` those of one draw.
    `ratios` are, after each measurement, what another one was expected to gain over the noise, where asked for.
    """

    rows: tuple[int, ...]
    dev: Regrets
    test: Regrets
    reached: float
    wall: float
    random: float
    seconds: float
    ratios: tuple[float, ...] = ()


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


def replayed(table: Table, sampler: BaseSampler, budget: int, questions: Split, ratios: bool = False) -> Run:
    """A search of so many measurements, or of the whole table; a configuration drawn again costs nothing."""
    told = table.values(questions.measured)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rows: list[int] = []
    gains: list[float] = []
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
        trial.set_user_attr(ATTRIBUTE, dict(table.seconds[row]))
        study.tell(trial, float(told[row]))
        if ratios and not again:
            gains.append(_ratio(table, questions, rows, study))
    found = _judged(table, questions, tuple(rows), budget, by_chance / draws, spent / draws)
    return replace(found, ratios=tuple(gains))


def _ratio(table: Table, questions: Split, rows: Sequence[int], study: optuna.Study) -> float:
    scores = table.scores[:, questions.measured]
    order = sorted(rows, key=lambda row: -np.nanmean(scores[row]) if table.maximize else np.nanmean(scores[row]))
    noise = noise_of(scores[order[0]], [scores[row] for row in order[1 : RIVALS + 1]])
    return RagSampler(seed=0).expected_gain(study) / noise


def _judged(table: Table, questions: Split, rows: tuple[int, ...], budget: int, random: float, seconds: float) -> Run:
    told, dev, test = (table.values(part) for part in (questions.measured, questions.dev, questions.test))
    found = told[list(rows)]
    # The first of equals stays the best.
    best = np.array(rows)[np.array([int(found[: count + 1].argmax()) for count in range(len(rows))])]
    best = np.append(best, np.repeat(best[-1], budget - len(best)))
    near = np.flatnonzero(dev[best] >= dev.max() - 0.01 * abs(dev.max()))
    reached = float(near[0] + 1) if len(near) else np.nan
    return Run(
        rows=rows,
        dev=_regret(dev, best),
        test=_regret(test, best),
        reached=reached,
        wall=_wall(table, rows[: int(reached) if len(near) else None]),
        random=random,
        seconds=seconds,
    )


def _wall(table: Table, rows: Sequence[int]) -> float:
    """The seconds of these configurations one after the other: the most noted of what is computed once."""
    total = 0.0
    for stage, groups in ONCE.items():
        keys = [key_of(configuration, groups) for configuration in table.configurations]
        first: dict[Key, float] = {}
        for key, seconds in zip(keys, table.seconds, strict=True):
            first[key] = max(first.get(key, 0.0), seconds.get(stage, 0.0))
        total += sum(first[key] for key in {keys[row] for row in rows})
    return total


def _regret(values: NDArray[np.float64], chosen: NDArray[np.int_]) -> Regrets:
    span = values.max() - np.median(values)
    regret: Regrets = (values.max() - values[chosen]) / (span if span > 0 else 1.0)
    return regret
