"""Language models behind any OpenAI-compatible endpoint, by Haystack's generator and the openai client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from rag_opt.components.chat import TOKENS_A_WORD, CallError, Chat, Request, tokens_of
from rag_opt.components.stage import require, require_whole
from rag_opt.hiding import know_variable
from rag_opt.keys import key_of
from rag_opt.replies import Reply
from rag_opt.text import count_tokens
from rag_opt.trust import names_variable

ADVICE = "a key belongs into the environment variable that {} names"

FATAL = (401, 403, 404)
"""Statuses after which another call with the same settings has no chance either."""

MANY = 1e9
"""Tokens beyond which a server's count is nonsense."""

MALFORMED = 3
"""How often a call is made whose answer is no completion: the client itself retries statuses and broken connections."""


class MalformedError(CallError):
    """An answer of 200 that is no completion, which the client does not ask for again."""


class OpenAIChat(Chat):
    """Chat completions at `base_url`. `key` names the environment variable that holds the key (None: none is needed).

    `timeout` is in seconds; a call is tried up to `tries` times, with jittered waits, as long as Retry-After says.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        timeout: float,
        tries: int,
        at_once: int,
        prices: Mapping[str, Mapping[str, float]],
    ) -> None:
        require(urlsplit(base_url).scheme in ("http", "https"), f"llm.base_url must be an http(s) URL, not {base_url}")
        require(
            "@" not in urlsplit(base_url).netloc, "llm.base_url holds a password; name a variable with llm.key instead"
        )
        require(not urlsplit(base_url).query, f"llm.base_url has a query; {ADVICE.format('llm.key')}")
        check_key("llm.key", key)
        require(timeout > 0, f"llm.timeout must be above 0 seconds, not {timeout}")
        require_whole("llm.tries", tries)
        require_whole("llm.at_once", at_once)
        check_prices(prices)
        self.base_url = base_url
        self.key = key
        self.timeout = timeout
        self.tries = tries
        self.at_once = at_once
        self.prices = prices

    @property
    def fingerprint(self) -> str:
        return key_of("openai chat", self.base_url.rstrip("/"))

    def free(self) -> bool:
        return is_loopback(urlsplit(self.base_url).hostname or "")

    def called(self, request: Request) -> Reply:
        start = time.perf_counter()
        return self._answered(request, start, None)

    def streamed(self, request: Request, show: Callable[[str], None]) -> Reply:
        return self._answered(request, time.perf_counter(), lambda chunk: show(chunk.content or ""))

    def _answered(self, request: Request, start: float, each: Callable[[Any], None] | None) -> Reply:
        for left in reversed(range(MALFORMED)):
            try:
                found = self._run(request, each)
            except MalformedError:
                if not left:
                    raise
                continue
            usage = found.meta.get("usage")
            usage = usage if isinstance(usage, dict) else {}
            # A server that says nothing of tokens must not make a budget endless.
            read = _count(usage.get("prompt_tokens")) or tokens_of(request)
            wrote = _count(usage.get("completion_tokens")) or int(TOKENS_A_WORD * count_tokens(found.text or ""))
            # A reply is kept, so a key that a server puts into one must go.
            text = self._without_key(found.text) if found.text and found.text.strip() else None
            reason = "" if text else f"no text (finish reason {found.meta.get('finish_reason')})"
            return Reply(text, read, wrote, time.perf_counter() - start, reason)
        raise AssertionError  # the last round returns or raises

    def _run(self, request: Request, each: Callable[[Any], None] | None) -> Any:
        from haystack.dataclasses import ChatMessage
        from openai import APIStatusError, OpenAIError

        make = {
            "system": ChatMessage.from_system,
            "user": ChatMessage.from_user,
            "assistant": ChatMessage.from_assistant,
        }
        said = [make[role](text) for role, text in request.messages]
        generator = self.store.live(
            "endpoint",
            key_of(self.base_url, self.key, request.model, self.timeout, self.tries),
            lambda: self._generator(request.model),
        )
        try:
            found = generator.run(said, generation_kwargs=_options(request, each is not None), streaming_callback=each)
        except APIStatusError as error:
            raise CallError(
                self._clean(f"HTTP {error.status_code}: {error.message}"), fatal=error.status_code in FATAL
            ) from None
        except OpenAIError as error:
            # Retried by the client as often as it may be; an answer that was cut off has its price all the same.
            told = getattr(getattr(error, "completion", None), "usage", None)
            spent = Reply(None, _count(told.prompt_tokens), _count(told.completion_tokens)) if told else None
            raise CallError(self._clean(f"{type(error).__name__}: {error}"), spent=spent) from None
        except (ValueError, TypeError, AssertionError, AttributeError, LookupError) as error:
            # What Haystack and the client raise for an answer of 200 that is no completion.
            raise MalformedError(
                self._clean(f"the answer is no completion ({type(error).__name__}: {error})")
            ) from None
        if not found["replies"]:
            raise MalformedError("the answer has no choices")
        message = found["replies"][0]
        try:
            text = message.text
        except (TypeError, AttributeError, ValueError):
            text = 0
        if not isinstance(text, str | None) or not message.meta.get("finish_reason"):
            raise MalformedError("the answer was cut off" if isinstance(text, str | None) else "the answer is no text")
        return message

    def _generator(self, model: str) -> Any:
        from haystack.components.generators.chat import OpenAIChatGenerator
        from haystack.utils import Secret

        secret = Secret.from_env_var(self.key) if self.key else Secret.from_token("none is needed")
        made = OpenAIChatGenerator(
            api_key=secret, model=model, api_base_url=self.base_url, timeout=self.timeout, max_retries=self.tries - 1
        )
        made.warm_up()
        return made

    def _clean(self, text: str) -> str:
        """The text in one line, without the key: a server may echo it."""
        return self._without_key(" ".join(text.split()))[:300]

    def _without_key(self, text: str) -> str:
        secret = os.environ.get(self.key or "", "")
        return text.replace(secret, "•••") if secret else text


def _count(value: Any) -> int:
    """A number of tokens as a server tells it; 0 where it is none."""
    return int(value) if isinstance(value, int | float) and 0 <= value < MANY else 0


def _options(request: Request, stream: bool) -> dict[str, Any]:
    sampling = request.sampling
    options: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed + request.attempt,
        "max_tokens": sampling.max_tokens,
    }
    if request.schema is not None:
        schema = {"name": "reply", "strict": True, "schema": dict(request.schema)}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**options, **({"stream_options": {"include_usage": True}} if stream else {})}


def check_key(where: str, key: str | None) -> None:
    """Raise ValueError unless `key` is the name of an environment variable that is set; a value is never repeated."""
    if key is None:
        return
    advice = f"write the key into an environment variable and name that: {where}=OPENAI_API_KEY"
    require(
        names_variable(key),
        f"{where} holds what looks like a key itself; {advice}",
    )
    require(
        bool(os.environ.get(key)),
        f"{where}={key}: this environment variable is not set; export it, or set {where}=null where no key is needed",
    )
    know_variable(key)


def check_prices(prices: Any) -> None:
    """Raise ValueError unless prices are {model: {in, out}}, numbers of at least 0."""
    for model, price in prices.items():
        fine = isinstance(price, Mapping) and {*price} == {"in", "out"}
        fine = fine and all(isinstance(each, int | float) and each >= 0 for each in price.values())
        require(fine, f"price.{model}={price}: dollars a million tokens are expected: {{in: 0.2, out: 0.6}}")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine by its very form; nothing is looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
