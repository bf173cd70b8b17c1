"""Calls to language models: looked up first, paid once, counted, within a budget."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rag_opt.components.checks import require, require_whole
from rag_opt.components.llm.reply_text import Shown, remove_thinking
from rag_opt.components.llm.request import (
    TOKENS_A_WORD,
    ReadTokens,
    Request,
    Sampling,
    estimate_tokens,
    explain_too_long,
    format_cut_short,
    format_prompt_size,
    is_cut_short,
)
from rag_opt.components.llm.talks import Talk, Talks
from rag_opt.components.stage import Part
from rag_opt.errors import ComponentError
from rag_opt.llm.client import Unpaid
from rag_opt.llm.replies import THOUGHT, Reply
from rag_opt.records.keys import compute_key
from rag_opt.system import signals
from rag_opt.text.tokenization import count_tokens, to_encodable

if TYPE_CHECKING:
    from rag_opt.llm.client import Rehearsal

T = TypeVar("T")
R = TypeVar("R")
GIVE_UP_AFTER = 5
"""Calls in a row that fail, their retries included, after which a trial's calls are given up."""

UNREADABLE = 10
"""Requests in a row of which nothing could be read, each asked for again, after which a stage is given up."""

NUMBERS = re.compile(r"\d[\d.,]*")
"""What may differ between two failed calls that have the same cause."""

LONG = 100_000
"""Characters of a prompt that are said where nothing is known of how much the model reads."""


SPENT_THINKING = re.compile(r"(?i)max_tokens or model output limit was reached")

PROOF, LEAST = "preflight", 16
"""The stage that a call is paid under which only shows that a model answers, and the tokens that it may write."""


class CallError(Exception):
    """A call that failed after all its retries; `fatal` when no other one can succeed either.

    `status` is the HTTP status that it was answered with, if it was.
    """

    def __init__(self, reason: str, *, fatal: bool = False, status: int | None = None) -> None:
        super().__init__(reason)
        self.fatal = fatal
        self.status = status


class UnreadableError(ComponentError):
    """A model that answers, and nothing that it says can be read."""


class Chat(Part):
    """Something that answers messages: `at_once` calls under way at a time, `prices` {model: {in, out}}.

    Prices are dollars a million tokens. What a call would change neither in kind nor in words (time limits, prices) is
    no part of the fingerprint. `window` is how many tokens the model reads and writes at most (None: not known),
    `thinking` how many it may think before it answers.
    """

    at_once: int = 1
    prices: Mapping[str, Mapping[str, float]]
    window: int | None = None
    thinking: int = 0
    reads_whole = False
    _failed = 0
    _unread = 0
    _given_up = ""
    _why: CallError | None = None
    _kind: type[ComponentError] = ComponentError

    def clone(self) -> Self:
        """The same, with no memory of calls that failed."""
        found = copy(self)
        found._failed, found._unread, found._given_up, found._why = 0, 0, "", None
        found._kind = ComponentError
        return found

    def call_model(self, request: Request) -> Reply:
        """The model's reply; raises CallError."""
        raise NotImplementedError

    def identify_model(self, model: str) -> Any:
        """What stands for a model in the key of its replies."""
        return model

    def can_vary(self, request: Request) -> bool:
        """Whether the same words with another seed may get another reply."""
        del request
        return True

    def is_free(self) -> bool:
        """Whether calls cost no money."""
        return False

    def compute_usd(self, model: str, tokens_in: float, tokens_out: float) -> float:
        """Dollars for so many tokens; nan where the model has no price."""
        if self.is_free():
            return 0.0
        price = self.prices.get(model)
        return math.nan if price is None else (tokens_in * price["in"] + tokens_out * price["out"]) / 1e6

    def stream_reply(self, request: Request, show: Callable[[str], None]) -> Reply:
        """As `call_model`; `show` is given the text piece by piece as it comes, or whole where a model can't."""
        reply = self.call_model(request)
        show(reply.text or "")
        return reply

    def get_reply(
        self,
        request: Request,
        stage: str,
        show: Callable[[str], None] | None = None,
        readable: Callable[[str], bool] = bool,
    ) -> Reply:
        """The kept reply to this request, else a new one, which is paid for and kept; what was thought is left out.

        `show` is given the text as it comes. What is not `readable` is kept, too, so that it is not paid for again. A
        call that fails gives a reply without a text, which costs nothing. Raises BudgetSpentError where nothing more
        may be paid for, and ComponentError where calls fail one after the other.
        """
        # The example is a guess for forecasts and no part of what is asked.
        key = compute_key(self.fingerprint, self.identify_model(request.model), {**asdict(request), "example": ""})
        replies, rehearsal = self.llm.replies, self.llm.rehearsal
        found = replies.get(key)
        if rehearsal is not None:
            rehearsal.count_call(stage, kept=found is not None)
            return _strip_reply(found) if found else self._forecast_reply(rehearsal, request, stage, key)
        if found is not None and show is not None:
            show(_strip_reply(found).text or "")
        if found is None:
            # Who asks the same meanwhile waits here and then finds the reply, which is paid for once.
            with replies.lock_request(key):
                found = replies.get(key) or self._request_reply(request, stage, show)
                # A failed call has cost nothing and is not kept: the next one may succeed.
                if found.text is not None or found.tokens_in:
                    # With all its thinking, as it was paid for; it is stripped whenever it is read.
                    replies.put(key, replace(found, reason=_explain_unreadable(_strip_reply(found), readable)))
        found = _strip_reply(found)
        self.llm.record_reply(stage, request, found)
        return found

    def _request_reply(self, request: Request, stage: str, show: Callable[[str], None] | None) -> Reply:
        if self._given_up:
            raise self._kind(self._given_up) from self._why
        self.llm.check_budget()
        signals.check_ending()
        try:
            self._check_size(request, stage)
            reply = self.call_model(request) if show is None else self._stream_visible(request, show)
        except CallError as error:
            self._failed += 1
            self.llm.troubles[stage] = error
            if error.fatal or self._failed >= GIVE_UP_AFTER:
                times = "" if error.fatal else f" {self._failed} calls in a row failed:"
                self._given_up = f"{stage}: {request.model} can't be asked:{times} {error}"
                self._why = error
                raise ComponentError(self._given_up) from error
            line = f"{stage}: a call to {request.model} failed: {error}"
            self.notices.report_once(line, about=NUMBERS.sub("#", line))
            return Reply(None, reason=str(error))
        # Kept replies never come this far: only a real call shows that the endpoint answers again.
        self._failed = 0
        self._pay(request, stage, reply)
        # Shared by the chats of all trials: only many prompts show what a window holds.
        reads: ReadTokens = self.store.get_object(
            "tokens read", compute_key(self.fingerprint, request.model), ReadTokens
        )
        # What runs here reads all that it is given, or refuses it.
        whole = self.reads_whole
        if not whole and (is_cut_short(request, reply.tokens_in) or reads.is_stuck(request, reply.tokens_in)):
            line = f"{stage}: {format_cut_short(request, reply.tokens_in)}"
            self.notices.report_once(line, about=f"cut short: {stage}")
        # Half of a surrogate pair could be written down nowhere.
        return reply if reply.text is None else replace(reply, text=to_encodable(reply.text))

    def _stream_visible(self, request: Request, show: Callable[[str], None]) -> Reply:
        shown = Shown(show)
        reply = self.stream_reply(request, shown)
        shown.flush()
        return reply

    def _check_size(self, request: Request, stage: str) -> None:
        """Raise CallError for a prompt that the model can't read whole; say a long one where that is not known."""
        if self.window is not None and (why := explain_too_long(request, self.thinking, self.window)):
            raise CallError(why)
        if self.window is None and request.characters > LONG:
            self.notices.report_once(
                f"{stage}: a prompt of {format_prompt_size(request)} goes to {request.model}; set llm.window to how "
                "many tokens "
                "it reads, and what is longer is not sent",
                about="long prompt",
            )

    def record_unreadable(self, stage: str, model: str, why: str) -> None:
        """Take note that nothing of a request could be read; raises ComponentError after too many in a row."""
        self.llm.troubles[stage] = why
        self._unread += 1
        self.notices.report_once(f"{stage}: {model}: {why}; it goes on without", about=f"unreadable {stage}")
        if self._unread >= UNREADABLE:
            # Of the calls under way another may be refused first.
            self._kind = UnreadableError
            self._given_up = (
                f"{stage}: nothing that {model} says can be read, {self._unread} times in a row: {why}; once that "
                "is mended, have it asked again: python -m rag_opt.store forget"
            )
            raise UnreadableError(self._given_up)

    def record_readable(self) -> None:
        """Take note that a reply could be read."""
        self._unread = 0

    def probe_model(self, model: str) -> None:
        """Ask the least there is, and pay for it; raises CallError, ComponentError, or BudgetSpentError."""
        self.llm.check_budget()
        request = Request(model, (("user", "Say yes."),), Sampling(max_tokens=LEAST))
        try:
            self._pay(request, PROOF, self.call_model(request))
        except CallError as error:
            # So OpenAI says that a model which thinks has not come to its answer: it can be asked.
            if error.status != 400 or not SPENT_THINKING.search(str(error)):
                raise

    def _pay(self, request: Request, stage: str, reply: Reply) -> None:
        usd = self.compute_usd(request.model, reply.tokens_in, reply.tokens_out)
        self.llm.record_payment(stage, reply, usd, estimate_tokens(request))

    def _forecast_reply(self, rehearsal: Rehearsal, request: Request, stage: str, key: str) -> Reply:
        # Like a real answer it differs from what is said to another request, so what is asked about it differs, too.
        # A guess, about a third of the room: a quarter of it in words, TOKENS_A_WORD each.
        text = request.example or " ".join([key, *["word"] * max(1, request.sampling.max_tokens // 4)])
        reads, writes = estimate_tokens(request), TOKENS_A_WORD * count_tokens(text)
        most = request.sampling.max_tokens + self.thinking
        rehearsal.count_request(stage, key, Unpaid(reads, writes, most, partial(self.compute_usd, request.model)))
        return Reply(text, reads, round(writes))

    def map_items(self, stage: str, work: Callable[[Talk, T], R], items: Sequence[T]) -> Talks[R]:
        """What `work(talk, item)` gives for each item, `at_once` at a time; raises what the first one raises."""
        talks = [Talk(self, stage) for _ in items]
        with ThreadPoolExecutor(max(1, self.at_once)) as pool:
            results = list(pool.map(work, talks, items))
        return Talks(stage, results, talks)


def _strip_reply(reply: Reply) -> Reply:
    """A reply without what was thought; without a text where nothing else was said."""
    text = None if reply.text is None else remove_thinking(reply.text)
    return reply if text == reply.text else replace(reply, text=text or None, reason="" if text else THOUGHT)


def _explain_unreadable(reply: Reply, readable: Callable[[str], bool]) -> str:
    """Why nothing could be made of a reply; "" where something could."""
    if reply.text is None:
        return reply.reason or "no text"
    return "" if readable(reply.text) else "a reply that can't be read"


def check_token_limits(thinking: Any, window: Any) -> None:
    """Raise ValueError unless these are numbers of tokens; a window may be unknown."""
    require_whole("llm.thinking", thinking, 0)
    if window is not None:
        require_whole("llm.window", window)


def check_prices(prices: Any) -> None:
    """Raise ValueError unless prices are {model: {in, out}}, numbers of at least 0."""
    for model, price in prices.items():
        fine = isinstance(price, Mapping) and {*price} == {"in", "out"}
        fine = fine and all(isinstance(each, int | float) and each >= 0 for each in price.values())
        require(fine, f"price.{model}={price}: dollars a million tokens are expected: {{in: 0.2, out: 0.6}}")
