"""Whether a stream of values has changed, looked at as often as one likes: conformal test martingales.

Each value is ranked among the reference and all that came before it; without a change every rank is as likely as any
other, whatever the values' distribution, so that a bet against that gains nothing in the long run. What the bets have
made of 1 exceeds 1 / alpha with a probability of at most alpha, ever (Ville 1939): looking again and again costs no
error. The bets are those of the simple jumper of Vovk et al. 2021 (Retrain or not retrain, COPA, PMLR 152).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EITHER, LOW = (-1.0, -0.5, 0.0, 0.5, 1.0), (-0.6, 0.0)
"""How much is bet on high ranks (negative: on low ones) by each of the accounts: on a change, or on a fall alone.

Larger bets on a fall that were tried noticed a drop of 0.10 no more often (`alarms` in studies/production).
"""

JUMP = 0.005
"""The share of each account that is divided among all before a bet: a change may come late, and end."""

DRAWS = 8
"""Ties are broken so many times, each by other draws, and the mean of what is won is looked at: as valid as one draw,
and less a matter of luck."""

RUNS = 10
"""Values of the usual rule's recent mean, and four times as many of the mean that it is compared with."""

DROP = 0.9


@dataclass(frozen=True)
class Drift:
    """What betting against "nothing has changed" has made of 1: `path` after each value, `reached` at most.

    `low`: what was won was mostly won with low ranks, so values have become smaller.
    """

    path: tuple[float, ...]
    low: bool

    @property
    def reached(self) -> float:
        """The most that it ever was: 1 without values."""
        return max(self.path, default=1.0)


def bet(reference: Sequence[float], values: Sequence[float], bets: Sequence[float] = EITHER, seed: int = 0) -> Drift:
    """The martingale of these values, in the order in which they came, after those of the reference; nan is left out.

    Ties are broken at random, by `seed`, so that ranks are spread evenly also where there are few different values.
    """
    known = [value for value in reference if not math.isnan(value)]
    kept = [value for value in values if not math.isnan(value)]
    drawn = [_draw_ranks(known, kept, f"ties {seed} {draw}") for draw in range(DRAWS)]
    paths = [_bet_on(ranks, bets) for ranks in drawn]
    won = sum(rank - 0.5 for ranks in drawn for rank in ranks)
    return Drift(tuple(sum(row) / DRAWS for row in zip(*paths, strict=True)), won < 0)


def _draw_ranks(reference: Sequence[float], values: Sequence[float], seed: str) -> list[float]:
    """Of each value its rank among the reference and all before it, in [0, 1]."""
    # A name of its own: whoever has drawn the values with the same seed has drawn other numbers.
    chance, known, found = random.Random(seed), sorted(reference), list[float]()
    for value in values:
        below, up_to = bisect_left(known, value), bisect_right(known, value)
        # Its own place counts among its equals: the rank is uniform in [0, 1].
        found.append((below + chance.random() * (up_to - below + 1)) / (len(known) + 1))
        insort(known, value)
    return found


def _bet_on(ranks: Sequence[float], bets: Sequence[float]) -> list[float]:
    """What the accounts hold together after each rank."""
    accounts, path = [1 / len(bets)] * len(bets), list[float]()
    for rank in ranks:
        whole = sum(accounts)
        accounts = [(1 - JUMP) * each + JUMP * whole / len(bets) for each in accounts]
        # With uniform ranks a factor's mean is 1, so the bet is fair; none is below 0.5, so no account is ever empty.
        accounts = [each * (1 + size * (rank - 0.5)) for each, size in zip(accounts, bets, strict=True)]
        path.append(sum(accounts))
    return path


def apply_usual_rule(values: Iterable[float]) -> int:
    """After how many values the mean of the last 10 first fell below 0.9 of that of the 40 before; -1 for never.

    What dashboards often have. It is shown beside the martingale: without a change it fires sooner or later.
    """
    rows = [value for value in values if not math.isnan(value)]
    for end in range(5 * RUNS, len(rows) + 1):
        recent, before = rows[end - RUNS : end], rows[end - 5 * RUNS : end - RUNS]
        if sum(recent) / RUNS < DROP * sum(before) / len(before):
            return end
    return -1
