"""What a query asks of a model in several calls: asked again where nothing can be read, and what that adds up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from rag_opt.components.llm.reply_text import parse_json
from rag_opt.components.llm.request import Request, build_retry
from rag_opt.llm.replies import THOUGHT, Reply
from rag_opt.records.products import Usage

R = TypeVar("R")
ATTEMPTS = 3
"""How often a reply that can't be read is asked for."""


class Asked(Protocol):
    """What a talk needs of a model (see Chat)."""

    def get_reply(
        self,
        request: Request,
        stage: str,
        show: Callable[[str], None] | None = ...,
        readable: Callable[[str], bool] = ...,
    ) -> Reply: ...

    def compute_usd(self, model: str, tokens_in: int, tokens_out: int) -> float: ...

    def can_vary(self, request: Request) -> bool: ...

    def record_readable(self) -> None: ...

    def record_unreadable(self, stage: str, model: str, why: str) -> None: ...


@dataclass
class Talk:
    """The calls that one query needs from one stage, one after the other.

    `asked` counts what was wanted of the model, `lost` how much of that never came, `broken` the calls that failed or
    gave nothing that can be read.
    """

    chat: Asked
    stage: str
    replies: list[Reply] = field(default_factory=list)
    usd: float = 0.0
    broken: int = 0
    asked: int = 0
    lost: int = 0

    def ask(self, request: Request, show: Callable[[str], None] | None = None) -> str | None:
        """The model's text, which `show` is given as it comes; None where there was none.

        An answer that comes without a text is asked for again, with another seed, at most twice.
        """
        return self._ask_with_retries(request, lambda text: text, show)

    def ask_json(self, request: Request, read: Callable[[Any], R | None]) -> R | None:
        """What `read` makes of the model's JSON; where it makes None of it, it is asked for again, at most twice."""
        return self._ask_with_retries(request, lambda text: parse_json(text, read))

    def _ask_with_retries(
        self, request: Request, read: Callable[[str], R | None], show: Callable[[str], None] | None = None
    ) -> R | None:
        self.asked += 1
        why = ""
        # A local model at temperature 0 says the same to the same words; where JSON is wanted a retry has other words.
        for attempt in range(ATTEMPTS if self.chat.can_vary(request) or request.schema else 1):
            reply = self._get_reply(build_retry(request, attempt), read, show)
            found = None if reply.text is None else read(reply.text)
            if found is not None:
                self.chat.record_readable()
                return found
            self.broken += 1
            if reply.text is None and not reply.tokens_in:
                # A call that failed is told and counted by the chat, and was tried again by the endpoint.
                self.lost += 1
                return None
            why = reply.reason if reply.text is None else f"a reply could not be read: {_shorten(reply.text)!r}"
            # It has spent all its tokens on thinking, as it would again.
            if reply.text is None and reply.reason == THOUGHT:
                break
        self.lost += 1
        self.chat.record_unreadable(self.stage, request.model, why)
        return None

    def _get_reply(self, request: Request, read: Callable[[str], Any], show: Callable[[str], None] | None) -> Reply:
        reply = self.chat.get_reply(request, self.stage, show, lambda text: read(text) is not None)
        self.replies.append(reply)
        # Kept replies count as what they once cost, so a configuration's price is the same whoever paid it.
        self.usd += self.chat.compute_usd(request.model, reply.tokens_in, reply.tokens_out)
        return reply


def _shorten(text: str) -> str:
    return " ".join(text.split())[:80]


@dataclass(frozen=True)
class Talks(Generic[R]):
    """What a stage's calls gave for each query, and what they cost."""

    stage: str
    results: list[R]
    talks: list[Talk]

    @property
    def usage(self) -> Usage:
        spent = [talk.replies for talk in self.talks]
        columns = (
            [len(replies) for replies in spent],
            [sum(reply.tokens_in for reply in replies) for replies in spent],
            [sum(reply.tokens_out for reply in replies) for replies in spent],
        )
        calls, tokens_in, tokens_out = (np.array(column, np.int32) for column in columns)
        usd = np.array([talk.usd for talk in self.talks], np.float64)
        broken, asked, lost = (
            np.array([getattr(talk, name) for talk in self.talks], np.int32) for name in ("broken", "asked", "lost")
        )
        return Usage(self.stage, calls, tokens_in, tokens_out, usd, broken, asked, lost)

    @property
    def seconds(self) -> float:
        """What a query's calls take, whenever they were made: the median, since the first ones may start a server."""
        spent = [sum(reply.seconds for reply in talk.replies) for talk in self.talks]
        return float(np.median(spent)) if spent else 0.0
