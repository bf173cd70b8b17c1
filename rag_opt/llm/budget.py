"""What a study may spend on calls to language models, and when that is used up."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rag_opt.llm.replies import NOTHING, Expenses, Replies


class BudgetSpentError(Exception):
    """A study's budget is used up: not an error of its own, so it stands outside the tree of errors."""


@dataclass
class Budget:
    """What a study may spend; `reserve` is kept for its confirmation until `open_reserve`.

    `elsewhere` was paid for by machines with stores of their own; `deadline` is on the monotonic clock.
    """

    study: str
    replies: Replies
    tokens: float = math.inf
    usd: float = math.inf
    deadline: float = math.inf
    reserve: Expenses = NOTHING
    elsewhere: Expenses = NOTHING
    empty: str = ""

    @classmethod
    def from_limits(cls, study: str, replies: Replies, tokens: float | None, usd: float | None) -> Budget:
        """The budget of a study that has these limits; None is none."""
        return cls(study, replies, math.inf if tokens is None else tokens, math.inf if usd is None else usd)

    def check(self) -> None:
        """Raise BudgetSpentError when nothing more may be paid for."""
        # Without a limit of tokens or dollars the ledger need not be read before every call.
        spent = self.replies.get_spent(self.study) if min(self.tokens, self.usd) < math.inf else NOTHING
        for name, limit, used, kept in (
            ("tokens", self.tokens, spent.tokens + self.elsewhere.tokens, self.reserve.tokens),
            ("usd", self.usd, spent.usd + self.elsewhere.usd, self.reserve.usd),
        ):
            # Checked before a call only, so the calls that are under way may end above the limit.
            if used + kept >= limit:
                held = f", {kept:,.6g} kept for the confirmation" if kept else ""
                self.empty = f"budget.{name}={limit:,.10g} is spent: {used:,.6g} paid{held}"
        if time.monotonic() + self.reserve.seconds >= self.deadline:
            self.empty = "budget.minutes is used up" + (
                ", the confirmation's share kept" if self.reserve.seconds else ""
            )
        # The reason stays: the study's loop reads it, and then gives the trial back instead of having it fail.
        if self.empty:
            raise BudgetSpentError(self.empty)

    def open_reserve(self) -> None:
        """From now on what was kept for the confirmation may be spent, also where the search has used up the rest."""
        self.reserve = NOTHING
        self.empty = ""
