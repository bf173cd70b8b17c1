"""What a command beside a study pays for: an account of its own, within the configuration's budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_opt.config.settings import parse_settings
from rag_opt.errors import ConfigError
from rag_opt.llm.budget import Budget
from rag_opt.llm.replies import Expenses

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rag_opt.components.resources import Resources


@dataclass(frozen=True)
class Account:
    """Resources whose calls are paid by this account; `before` is what it had paid when it was opened."""

    name: str
    resources: Resources
    before: Expenses

    @property
    def paid(self) -> Expenses:
        """What was paid since it was opened."""
        after = self.resources.llm.replies.get_spent(self.name)
        return Expenses(**{name: getattr(after, name) - getattr(self.before, name) for name in vars(after)})


def open_account(config: DictConfig, resources: Resources, name: str, model: str, price: float) -> Account:
    """An account that may spend the configuration's budget beside what it has paid before.

    Raises ConfigError where that is in dollars and the model has no `price` (nan).
    """
    limits = parse_settings(config)
    if limits.budget_usd is not None and math.isnan(price):
        raise ConfigError(
            f"budget.usd is set, but {model} has no price: add it to a file in conf/price, or set budget.tokens"
        )
    replies = resources.llm.replies
    # A budget counts all that was ever paid under its name, so what stands there already is added to the limits.
    before = replies.get_spent(name)
    tokens = None if limits.budget_tokens is None else limits.budget_tokens + before.tokens
    usd = None if limits.budget_usd is None else limits.budget_usd + before.usd
    budget = Budget.from_limits(name, replies, tokens, usd)
    return Account(name, replace(resources, llm=replace(resources.llm, budget=budget)), before)
