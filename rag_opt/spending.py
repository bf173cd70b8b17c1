"""What a study spends on calls to models: its purse while it runs, and what that will come to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

import optuna
from optuna.trial import TrialState

from rag_opt import history
from rag_opt.attributes import note_payment, study_attributes
from rag_opt.moment import Trials
from rag_opt.plan import Plan
from rag_opt.replies import BudgetSpentError, Purse, Spent

ENOUGH = 4
"""Trials after which their pace says what the others will cost."""


@dataclass
class Spending:
    """The spending of one process at work on a study."""

    plan: Plan
    study: optuna.Study
    _after: list[Spent] = field(default_factory=list)

    @property
    def purse(self) -> Purse:
        """What the study may spend."""
        assert self.plan.resources.store.purse is not None
        return self.plan.resources.store.purse

    def allowed(self, now: Trials) -> bool:
        """Whether another trial may begin, what the confirmation needs put aside."""
        limit = self.plan.settings.budget_seconds
        if limit is not None:
            # Of what trials have left over each that is under way has its part.
            at_once = 1 + len(now.get_trials(states=(TrialState.RUNNING,)))
            self.purse.deadline = time.monotonic() + (limit - history.seconds_of(now)) / at_once
        if not self.plan.shares_folder and self.plan.resources.store.asked:
            self._reconcile()
        self.purse.reserve = history.confirmation_cost(
            now, self.plan.settings.ties, self.plan.dev.questions.count, self.plan.test.questions.count
        )
        try:
            self.purse.check()
        except BudgetSpentError:
            return False
        return True

    def _reconcile(self) -> None:
        """Tell the storage what this machine's store has paid for, and hear what others have."""
        replies = self.plan.resources.store.replies
        note_payment(self.study, replies.identity, [*astuple(replies.paid(self.purse.study))])
        others = [paid for store, paid in study_attributes(self.study).payments.items() if store != replies.identity]
        self.purse.elsewhere = Spent(*map(sum, zip(*others, strict=True))) if others else Spent()

    def paid(self) -> dict[str, int]:
        """By stage how many calls this process has paid for."""
        store = self.plan.resources.store
        return dict(store.replies.mine) if store.asked else {}

    def paid_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """By stage how many calls have been paid for since then."""
        return {stage: count - before.get(stage, 0) for stage, count in self.paid().items()}

    def outlook(self, left: int) -> str:
        """After a trial: what was paid, and what that will come to with so many left; "" where no model was asked."""
        if not self.plan.resources.store.asked:
            return ""
        now = self.plan.resources.store.replies.paid(self.purse.study)
        self._after.append(now)
        told = f" · {now.tokens:,.0f} tokens paid" + (f", ${now.usd:.4g}" if now.usd else "")
        if len(self._after) < ENOUGH:
            return told
        # The first trials ask most of what is new; the later half sets the pace.
        half = len(self._after) // 2
        pace = (now.tokens - self._after[half - 1].tokens) / (len(self._after) - half)
        whole = now.tokens + left * pace + self.purse.reserve.tokens
        more = f", about {float(f'{whole:.2g}'):,.0f} in all"
        return f"{told}{more}" + (f" (${now.usd / now.tokens * whole:.2g})" if now.usd else "")


def enlarged(plan: Plan, now: Trials) -> dict[str, float]:
    """By key the budget with which a search that its budget has ended goes on: twice what is needed by now.

    {} where no budget has ended it.
    """
    purse, settings = plan.resources.store.purse, plan.settings
    if purse is None or not purse.empty:
        return {}
    paid = purse.store.replies.paid(purse.study) if plan.resources.store.asked else Spent()
    minutes = None if settings.budget_seconds is None else settings.budget_seconds / 60
    needed = {
        "budget.tokens": (settings.budget_tokens, paid.tokens + purse.elsewhere.tokens + purse.reserve.tokens),
        "budget.usd": (settings.budget_usd, paid.usd + purse.elsewhere.usd + purse.reserve.usd),
        "budget.minutes": (minutes, (history.seconds_of(now) + purse.reserve.seconds) / 60),
    }
    reached = {key: (limit, used) for key, (limit, used) in needed.items() if limit is not None}
    ended = {key: max(pair) for key, pair in reached.items() if purse.empty.startswith(key)}
    return {key: float(f"{2 * most:.2g}") for key, most in ended.items()}
