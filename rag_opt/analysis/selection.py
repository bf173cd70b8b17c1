"""Dev selects: who is tied with the best within noise, who of them is recommended, who answers the unseen questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.analysis import paired
from rag_opt.analysis.formats import NEGLIGIBLE

if TYPE_CHECKING:
    from rag_opt.records.documents import Ints, Scores


@dataclass(frozen=True)
class Candidate:
    """A finished trial with its scores of the first objective, question by question, and its mean cost.

    `handed` are the same scores of what is handed on alone, where the objective measures a ranking.
    """

    number: int
    scores: Scores
    cost: float
    handed: Scores | None = None


@dataclass(frozen=True)
class Selection:
    """Trials by their part in the confirmation; `recommended` is the cheapest of all that are tied with the best.

    `alike` counts the candidates where all of them have the very same scores; 0 elsewhere, and for one alone.
    """

    best: int
    tied: tuple[int, ...]
    recommended: int
    all_tied: int
    alike: int = 0


def select_finalists(candidates: Sequence[Candidate], sign: float, ties: int, groups: Ints | None = None) -> Selection:
    """What dev selects of candidates given best first; `ties` of the tied ones go along, the best of them first.

    The one-standard-error rule decides who is tied (`paired.is_tied`), by what is handed on, too: handing on less is
    cheaper, and leaves a ranking as good as it is. Questions of one of the `groups` count as one. Of costs that are
    equal, or nearly so, the better one. Candidates must not be empty.
    """
    best = candidates[0]
    level = [other for other in candidates if other is best or _is_tied(best, other, sign, groups)]
    # What is cheaper by less than would be told as a change is no reason to give up what is better.
    limit = (1 + NEGLIGIBLE) * min(each.cost for each in level)
    # The best of the cheap ones, since candidates come best first; all are where no cost is known (inf).
    recommended = next(each for each in level if each.cost <= limit)
    # Both places are kept, also where the best is the recommended one: the tied ones begin at the third.
    chosen = [best, recommended]
    for each in level:
        # Of configurations with the very same scores one is enough.
        if not any(np.array_equal(each.scores, other.scores, equal_nan=True) for other in chosen):
            chosen.append(each)
    others = tuple(each.number for each in chosen[2 : 2 + ties])
    same = all(np.array_equal(best.scores, other.scores, equal_nan=True) for other in candidates)
    alike = len(candidates) if same and len(candidates) > 1 else 0
    return Selection(best.number, others, recommended.number, len(level) - 1, alike)


def _is_tied(best: Candidate, other: Candidate, sign: float, groups: Ints | None) -> bool:
    pairs = [(best.scores, other.scores)]
    if best.handed is not None:
        # What it hands on was not measured, so nothing says that it is as good.
        if other.handed is None:
            return False
        pairs.append((best.handed, other.handed))
    return all(paired.is_tied(ours, theirs, sign, groups) for ours, theirs in pairs)
