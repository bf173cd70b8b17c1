"""The way to language models that all components of a study share: kept replies, the budget, who counts or listens."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_opt.llm.replies import NOTHING, Expenses, Replies, Reply

if TYPE_CHECKING:
    from rag_opt.llm.budget import Budget

Heard = tuple[str, Any, Reply]
"""A stage, its request (components/llm/request.py), and the reply."""


@dataclass(frozen=True)
class Unpaid:
    """A call that would have to be paid for: the tokens that it is guessed to read and to write, `most` at most.

    `price` gives the dollars for tokens read and written; nan where not known.
    """

    reads: float
    writes: float
    most: float
    price: Callable[[float, float], float]


@dataclass
class Rehearsal:
    """Counts calls in place of making them: by stage the requests that would be paid for, by their keys."""

    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    new: dict[str, dict[str, Unpaid]] = field(default_factory=lambda: defaultdict(dict))
    kept: int = 0

    def count_call(self, stage: str, *, kept: bool) -> None:
        """Count a call of a stage, paid or not; `kept`: there is a reply to it already."""
        self.calls[stage] += 1
        self.kept += kept

    def count_request(self, stage: str, key: str, request: Unpaid) -> None:
        """Count a request that no reply is kept for."""
        # By its key: whoever asks the same again will find the reply and pay nothing.
        self.new[stage][key] = request

    def copy(self) -> Rehearsal:
        """What has been counted so far."""
        # With rows of its own, since counting goes on in the original.
        new = {stage: dict(rows) for stage, rows in self.new.items()}
        return Rehearsal(dict(self.calls), new, self.kept)


@dataclass(frozen=True)
class LLMClient:
    """What stands between components and the models that they ask, the same for all of a study.

    `replies` are those that are kept, `budget` what may be spent (None: nobody keeps account), `rehearsal` counts calls
    in place of making them, `troubles` says by stage why a call last failed.
    """

    replies: Replies
    budget: Budget | None = None
    rehearsal: Rehearsal | None = None
    troubles: dict[str, str | Exception] = field(default_factory=dict)
    _recorders: list[list[Heard]] = field(default_factory=list)
    _listening: threading.Lock = field(default_factory=threading.Lock)

    @property
    def asked(self) -> bool:
        """Whether any model's reply was looked for by this process."""
        return self.replies.opened

    @property
    def spent(self) -> Expenses:
        """What the budget's study has paid for so far."""
        # Before anything was asked nothing is looked up: that alone would make the file.
        return self.replies.get_spent(self.budget.study) if self.budget is not None and self.asked else NOTHING

    def check_budget(self) -> None:
        """Raise BudgetSpentError when nothing more may be paid for."""
        if self.budget is not None:
            self.budget.check()

    def record_payment(self, stage: str, reply: Reply, usd: float, guessed: int) -> None:
        """Enter what a call has cost, where account is kept; `guessed` are the tokens that it was expected to read."""
        if self.budget is not None:
            self.replies.record_payment(self.budget.study, stage, reply, usd, guessed)

    def record_reply(self, stage: str, request: Any, reply: Reply) -> None:
        """Let those hear a reply that listen."""
        for heard in tuple(self._recorders):
            heard.append((stage, request, reply))

    @contextmanager
    def collect_replies(self) -> Iterator[list[Heard]]:
        """What is said from now on, in the order in which it comes; the list grows, by kept replies as by new ones."""
        heard: list[Heard] = []
        with self._listening:
            self._recorders.append(heard)
        try:
            yield heard
        finally:
            with self._listening:
                # By identity: another thread's list may be equal, and may have come later.
                self._recorders[:] = [each for each in self._recorders if each is not heard]
