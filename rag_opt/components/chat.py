"""Calls to language models: looked up first, paid once, counted, within a budget; and what several calls add up to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Self, TypeVar

import numpy as np

from rag_opt.components.ranking import say_once
from rag_opt.components.stage import Part, require
from rag_opt.errors import ComponentError
from rag_opt.keys import key_of
from rag_opt.records import Usage
from rag_opt.replies import Reply
from rag_opt.text import count_tokens, valid

T = TypeVar("T")
R = TypeVar("R")
GIVE_UP_AFTER = 5
"""Calls in a row that fail, their retries included, after which a trial's calls are given up."""

ATTEMPTS = 3
"""How often a reply that can't be read is asked for."""

TOKENS_A_WORD = 1.3
"""Of a model's tokens so many are expected for a word or punctuation mark, before the first reply tells."""

MESSAGE_TOKENS = 4
"""What a message costs beside its text."""


class CallError(Exception):
    """A call that failed after all its retries; `fatal` when no other one can succeed either.

    `spent` is what it cost all the same.
    """

    def __init__(self, reason: str, *, fatal: bool = False, spent: Reply | None = None) -> None:
        super().__init__(reason)
        self.fatal = fatal
        self.spent = spent


def check_model(model: Any) -> None:
    """Raise ValueError unless a model is named."""
    require(
        isinstance(model, str) and bool(model.strip()),
        f"a model must be named, such as llm.model=gpt-4o-mini, not {model}",
    )


@dataclass(frozen=True)
class Sampling:
    """How a model is to answer: temperature, top_p, seed, and at most so many tokens."""

    temperature: float = 0.0
    max_tokens: int = 256
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.temperature <= 2, f"temperature must be from 0 to 2, not {self.temperature}")
        require(0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, not {self.top_p}")
        require(type(self.max_tokens) is int and self.max_tokens > 0, f"max_tokens must be above 0: {self.max_tokens}")
        require(type(self.seed) is int, f"seed must be a whole number, not {self.seed}")


@dataclass(frozen=True)
class Request:
    """Messages (role, text) to a model, and the JSON schema that the reply must have.

    `attempt` tells repeated requests apart; `example`, no part of the request, is a reply such as may be expected.
    """

    model: str
    messages: tuple[tuple[str, str], ...]
    sampling: Sampling
    schema: Mapping[str, Any] | None = None
    attempt: int = 0
    example: str = ""


class Chat(Part):
    """Something that answers messages: `at_once` calls under way at a time, `prices` {model: {in, out}}.

    Prices are dollars a million tokens. What a call would change neither in kind nor in words (time limits, prices) is
    no part of the fingerprint.
    """

    at_once: int = 1
    prices: Mapping[str, Mapping[str, float]]
    _failed = 0
    _given_up = ""

    def fresh(self) -> Self:
        """The same, with no memory of calls that failed."""
        found = copy(self)
        found._failed, found._given_up = 0, ""
        return found

    def called(self, request: Request) -> Reply:
        """The model's reply; raises CallError."""
        raise NotImplementedError

    def identity(self, model: str) -> Any:
        """What stands for a model in the key of its replies."""
        return model

    def free(self) -> bool:
        """Whether calls cost no money."""
        return False

    def usd(self, model: str, tokens_in: int, tokens_out: int) -> float:
        """Dollars for so many tokens; nan where the model has no price."""
        if self.free():
            return 0.0
        price = self.prices.get(model)
        return math.nan if price is None else (tokens_in * price["in"] + tokens_out * price["out"]) / 1e6

    def streamed(self, request: Request, show: Callable[[str], None]) -> Reply:
        """As `called`; `show` is given the text piece by piece as it comes, or whole where a model can't do that."""
        reply = self.called(request)
        show(reply.text or "")
        return reply

    def reply(
        self,
        request: Request,
        stage: str,
        show: Callable[[str], None] | None = None,
        readable: Callable[[str], bool] = bool,
    ) -> Reply:
        """The kept reply to this request, else a new one, which is paid for and kept.

        `show` is given the text as it comes; a text that is not `readable` is not kept. A call that fails gives a reply
        without a text. Raises BudgetSpentError where nothing more may be paid for, and ComponentError where calls fail
        one after the other.
        """
        key = key_of(self.fingerprint, self.identity(request.model), {**asdict(request), "example": ""})
        replies, rehearsal = self.store.replies, self.store.rehearsal
        found = replies.get(key)
        if rehearsal is not None:
            rehearsal.asked(stage)
            return found or self._expected(request, stage, key)
        if found is not None and show is not None:
            show(found.text or "")
        if found is None:
            with replies.alone(key):
                found = replies.get(key) or self._asked(request, stage, show)
                if found.text is not None and readable(found.text):
                    replies.put(key, found)
        if self.store.listening is not None:
            self.store.listening.append((stage, request, found))
        return found

    def _asked(self, request: Request, stage: str, show: Callable[[str], None] | None) -> Reply:
        if self._given_up:
            raise ComponentError(self._given_up)
        if self.store.purse is not None:
            self.store.purse.check()
        try:
            reply = self.called(request) if show is None else self.streamed(request, show)
        except CallError as error:
            self._failed += 1
            self.store.troubles[stage] = str(error)
            if error.spent is not None:
                self._pay(request, stage, error.spent)
            if error.fatal or self._failed >= GIVE_UP_AFTER:
                times = "" if error.fatal else f" {self._failed} calls in a row failed:"
                self._given_up = f"{stage}: {request.model} can't be asked:{times} {error}"
                raise ComponentError(self._given_up) from error
            say_once(self.store, f"{stage}: a call to {request.model} failed: {error}")
            return Reply(None, reason=str(error))
        # A reply without a text is paid for, but never kept.
        self._failed = 0
        if reply.text is None:
            self.store.troubles[stage] = reply.reason
        self._pay(request, stage, reply)
        return reply if reply.text is None else replace(reply, text=valid(reply.text))

    def _pay(self, request: Request, stage: str, reply: Reply) -> None:
        if self.store.purse is not None:
            usd = self.usd(request.model, reply.tokens_in, reply.tokens_out)
            self.store.replies.pay(self.store.purse.study, stage, reply, usd, tokens_of(request))

    def _expected(self, request: Request, stage: str, key: str) -> Reply:
        rehearsal = self.store.rehearsal
        assert rehearsal is not None
        # Like a real answer it differs from what is said to another request, so what is asked about it differs, too.
        text = request.example or " ".join([key, *["word"] * max(1, request.sampling.max_tokens // 4)])
        ratio, written = rehearsal.expected.get(stage, (1.0, TOKENS_A_WORD * count_tokens(text)))
        tokens_in, tokens_out = round(ratio * tokens_of(request)), round(written)
        rehearsal.paid(stage, key, tokens_in, tokens_out, self.usd(request.model, tokens_in, tokens_out))
        return Reply(text, tokens_in, tokens_out)

    def each(self, stage: str, work: Callable[[Talk, T], R], items: Sequence[T]) -> Talks[R]:
        """What `work(talk, item)` gives for each item, `at_once` at a time; raises what the first one raises."""
        assert self.store.replies is not None  # opened once, before there are threads
        talks = [Talk(self, stage) for _ in items]
        with ThreadPoolExecutor(max(1, self.at_once)) as pool:
            results = list(pool.map(work, talks, items))
        return Talks(stage, results, talks)


def tokens_of(request: Request) -> int:
    """About how many tokens a request has."""
    texts = [text for _, text in request.messages] + ([json.dumps(request.schema)] if request.schema else [])
    return int(TOKENS_A_WORD * sum(map(count_tokens, texts))) + MESSAGE_TOKENS * len(request.messages)


@dataclass
class Talk:
    """The calls that one query needs from one stage, one after the other."""

    chat: Chat
    stage: str
    replies: list[Reply] = field(default_factory=list)
    usd: float = 0.0
    broken: int = 0

    def ask(
        self,
        request: Request,
        show: Callable[[str], None] | None = None,
        readable: Callable[[str], bool] = bool,
    ) -> str | None:
        """The model's text, which `show` is given as it comes; None where the call failed.

        An answer that comes without a text is asked for again, at most twice.
        """
        for _ in range(ATTEMPTS):
            reply = self.chat.reply(request, self.stage, show, readable)
            self.replies.append(reply)
            self.usd += self.chat.usd(request.model, reply.tokens_in, reply.tokens_out)
            self.broken += reply.text is None
            if reply.text is not None or not reply.tokens_in:
                return reply.text
        return None

    def ask_json(self, request: Request, read: Callable[[Any], R | None]) -> R | None:
        """What `read` makes of the model's JSON; a reply of which it makes None is asked for again, at most twice."""
        for attempt in range(ATTEMPTS):
            asked = replace(request, attempt=request.attempt + attempt)
            text = self.ask(asked, readable=lambda said: read(json_in(said)) is not None)
            if text is None:
                return None
            found = read(json_in(text))
            if found is not None:
                return found
            self.broken += 1
            self.chat.store.troubles[self.stage] = f"a reply could not be read: {' '.join(text.split())[:80]!r}"
        return None


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
        broken = np.array([talk.broken for talk in self.talks], np.int32)
        return Usage(self.stage, calls, tokens_in, tokens_out, usd, broken)

    @property
    def seconds(self) -> float:
        """What a query's calls take on average, whenever they were made."""
        spent = [sum(reply.seconds for reply in talk.replies) for talk in self.talks]
        return float(np.mean(spent)) if spent else 0.0


def json_in(text: str) -> Any:
    """The JSON object in a text that may have words or a fence around it; None where there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        return json.loads(text[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        return None
