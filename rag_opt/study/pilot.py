"""The first calls of a study: what models write, and how long that takes, is known once a few have answered.

They are calls that its first trials would make, so their replies are kept for these and nothing is paid twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from rag_opt.console.progress import track
from rag_opt.console.screens import report_line
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.study.rehearsal import count_calls, select_paying, take_questions

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.evaluation.evaluate import Questions
    from rag_opt.study.plan import Plan
    from rag_opt.study.rehearsal import Rehearsed

QUESTIONS, MOST = 5, 8
"""How many each configuration is asked, and how many where they are asked at the same time."""


PRIOR = 5
"""So many calls that are paid once are taken to have been made before the first: five questions are few."""


@dataclass(frozen=True)
class Pilot:
    """By stage the calls that were paid for, and how many a rehearsal of the same questions counts.

    More are paid where replies can't be read, and are asked for again.
    """

    paid: Mapping[str, int] = field(default_factory=Counter)
    counted: Mapping[str, int] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """All calls that were paid for."""
        return sum(self.paid.values())

    def get_repeats(self, stage: str) -> float:
        """Calls paid for one counted, at least 1; few questions move it half of the way from 1, or less."""
        counted = self.counted.get(stage, 0)
        return max(1.0, (self.paid.get(stage, 0) + PRIOR) / (counted + PRIOR))


def ask_first(plan: Plan, resources: Resources, rehearsed: Rehearsed, stages: Iterable[str]) -> Pilot:
    """Have those of these stages that no call was paid for answer a few questions.

    Each is asked in the first configuration that uses it.
    """
    known = resources.llm.replies.get_means()
    unknown = [name for name in stages if name not in known]
    first = {tuple(words) for name in unknown if (words := rehearsed.find_first(name)) is not None}
    asked, metrics = _take_first(plan.dev.questions), select_paying(plan.dev)
    few = replace(plan.dev, questions=asked, metrics=metrics, resources=resources, times=False)
    before, counted = Counter(resources.llm.replies.mine), Counter[str]()
    with track("forecast: first questions asked", len(first)) as advance:
        # Sorted: the order of a set of texts differs from process to process.
        for words in sorted(first):
            config = few.compose_overrides(words)
            # Counted before they are paid: a reply that is kept would count as none.
            rehearsal, counting = count_calls(resources)
            try:
                replace(few, resources=counting).measure_config(config)
                counted.update({stage: len(rows) for stage, rows in rehearsal.new.items()})
                few.measure_config(config)
            except BudgetSpentError:
                # The study ends with it before its first trial, and says so.
                break
            except Exception as error:
                # Whatever a component may raise: its trial will fail, and the study goes on.
                report_line(f"forecast: {' '.join(words)} can't be asked: {type(error).__name__}: {error}"[:300])
            advance(1)
    return Pilot(Counter(resources.llm.replies.mine) - before, counted)


def _take_first(questions: Questions) -> Questions:
    """The questions that a trial begins with, which are asked even where it is pruned, so many at a time as there."""
    size = len(questions.batches[0])
    rows = np.arange(min(max(QUESTIONS, min(size, MOST)), questions.count), dtype=np.int32)
    chosen = take_questions(questions, rows.tolist())
    return replace(chosen, batches=tuple(rows[start : start + size] for start in range(0, len(rows), size)))
