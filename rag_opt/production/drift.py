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

EITHER, LOW = (-1.0, -0.5, 0.0, 0.5, 1.0), (-1.2, -0.6, 0.0)
"""How much is bet on high ranks (negative: on low ones) by each of the accounts: on a change, or on a fall alone."""

JUMP = 0.01
"""The share of each account that is divided among all before a bet: a change may come late, and end."""

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
    # A name of its own: whoever has drawn the values with the same seed has drawn other numbers.
    chance = random.Random(f"ties {seed}")
    known = sorted(value for value in reference if not math.isnan(value))
    accounts = [1 / len(bets)] * len(bets)
    path = []
    won = 0.0
    for value in (each for each in values if not math.isnan(each)):
        below, up_to = bisect_left(known, value), bisect_right(known, value)
        # Its own place counts among its equals: the rank is uniform in [0, 1].
        rank = (below + chance.random() * (up_to - below + 1)) / (len(known) + 1)
        whole = sum(accounts)
        accounts = [(1 - JUMP) * each + JUMP * whole / len(bets) for each in accounts]
        accounts = [each * (1 + size * (rank - 0.5)) for each, size in zip(accounts, bets, strict=True)]
        insort(known, value)
        path.append(sum(accounts))
        won += rank - 0.5
    return Drift(tuple(path), won < 0)


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
