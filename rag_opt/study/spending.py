"""What a study spends on calls to models: its budget while it runs, and what that will come to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from rag_opt.analysis import history
from rag_opt.llm.budget import Budget, BudgetSpentError
from rag_opt.llm.replies import Expenses
from rag_opt.storages.attributes import get_study_attributes, save_payment

if TYPE_CHECKING:
    from rag_opt.llm.client import LLMClient
    from rag_opt.storages.snapshot import Trials
    from rag_opt.study.plan import Plan

ENOUGH = 4
"""Trials after which their pace says what the others will cost."""


@dataclass
class Spending:
    """The spending of one process at work on a study."""

    plan: Plan
    study: optuna.Study
    _after: list[Expenses] = field(default_factory=list)

    @property
    def llm(self) -> LLMClient:
        """By which the study's models are asked."""
        return self.plan.resources.llm

    @property
    def budget(self) -> Budget:
        """What the study may spend."""
        assert self.llm.budget is not None
        return self.llm.budget

    def can_start_trial(self, now: Trials) -> bool:
        """Whether another trial may begin, what the confirmation needs put aside."""
        limit = self.plan.settings.budget_seconds
        if limit is not None:
            # Of what trials have left over each that is under way has its part.
            at_once = 1 + len(now.get_trials(states=(TrialState.RUNNING,)))
            self.budget.deadline = time.monotonic() + (limit - history.sum_seconds(now)) / at_once
        # Who shares the folder pays from one store's ledger; machines with their own meet in the storage only.
        if not self.plan.shares_folder and self.llm.asked:
            self._reconcile()
        # A crossfit confirms with what the search has asked for.
        if not self.plan.settings.crossfits:
            self.budget.reserve = history.estimate_confirmation(
                now, self.plan.settings.ties, self.plan.dev.questions.count, self.plan.test.questions.count
            )
        try:
            self.budget.check()
        except BudgetSpentError:
            return False
        return True

    def _reconcile(self) -> None:
        """Tell the storage what this machine's store has paid for, and hear what others have."""
        replies = self.llm.replies
        # The whole sum under the store's name, no increment: said twice, as after a kill, it still counts once.
        save_payment(self.study, replies.identity, [*astuple(replies.get_spent(self.budget.study))])
        others = [
            paid for store, paid in get_study_attributes(self.study).payments.items() if store != replies.identity
        ]
        self.budget.elsewhere = Expenses(*map(sum, zip(*others, strict=True))) if others else Expenses()

    def count_paid(self) -> dict[str, int]:
        """By stage how many calls this process has paid for."""
        return dict(self.llm.replies.mine)

    def count_paid_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """By stage how many calls have been paid for since then."""
        return {stage: count - before.get(stage, 0) for stage, count in self.count_paid().items()}

    def format_spending(self, left: int) -> str:
        """After a trial: what was paid, and what that will come to with so many left; "" where no model was asked."""
        if not self.llm.asked:
            return ""
        now = self.llm.spent
        self._after.append(now)
        # Calls without a price are entered at 0 dollars, of which nothing is said.
        told = f" · {now.tokens:,.0f} tokens paid" + (f", ${now.usd:.4g}" if now.usd else "")
        if len(self._after) < ENOUGH:
            return told
        # The first trials ask most of what is new; the later half sets the pace.
        half = len(self._after) // 2
        pace = (now.tokens - self._after[half - 1].tokens) / (len(self._after) - half)
        whole = now.tokens + left * pace + self.budget.reserve.tokens
        more = f", about {float(f'{whole:.2g}'):,.0f} in all"
        return f"{told}{more}" + (f" (${now.usd / now.tokens * whole:.2g})" if now.usd else "")


def propose_budget(plan: Plan, now: Trials) -> dict[str, float]:
    """By key the budget with which a search that its budget has ended goes on: twice what is needed by now.

    {} where no budget has ended it.
    """
    budget, settings = plan.resources.llm.budget, plan.settings
    if budget is None or not budget.empty:
        return {}
    paid = plan.resources.llm.spent
    minutes = None if settings.budget_seconds is None else settings.budget_seconds / 60
    needed = {
        "budget.tokens": (settings.budget_tokens, paid.tokens + budget.elsewhere.tokens + budget.reserve.tokens),
        "budget.usd": (settings.budget_usd, paid.usd + budget.elsewhere.usd + budget.reserve.usd),
        "budget.minutes": (minutes, (history.sum_seconds(now) + budget.reserve.seconds) / 60),
    }
    # The limit as well: beside trials under way the minutes end before all of them were used.
    reached = {key: (limit, used) for key, (limit, used) in needed.items() if limit is not None}
    # Budget.check begins its reason with the key of the limit that was reached.
    ended = {key: max(pair) for key, pair in reached.items() if budget.empty.startswith(key)}
    return {key: float(f"{2 * most:.2g}") for key, most in ended.items()}
