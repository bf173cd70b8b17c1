"""Language models behind any OpenAI-compatible endpoint, by the openai client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rag_opt.components.hosts import is_loopback, proxy_of
from rag_opt.components.llm.chat import CallError, Chat, check_room
from rag_opt.components.llm.completions import Completion, Gathered, NoCompletionError, completion, told
from rag_opt.components.llm.parameters import Accepted, check_parameters, wanted
from rag_opt.components.llm.request import TOKENS_A_WORD, Request, tokens_of, without_system
from rag_opt.components.stage import require, require_whole
from rag_opt.config.trust import names_variable
from rag_opt.console.secrets import hide, know_variable
from rag_opt.llm.replies import THOUGHT, Reply
from rag_opt.records.keys import key_of
from rag_opt.text.words import count_tokens

ADVICE = "a key belongs into the environment variable that {} names"

FATAL = (401, 403, 404)
"""Statuses after which another call with the same settings has no chance either."""

UNTOLD = (401, 403, 408, 409, 429)
"""Statuses that are about who asks and how often, never about what a request holds."""

MALFORMED = 3
"""How often a call is made whose answer is no completion: the client itself retries statuses and broken connections."""

LONGEST = 400
"""Characters of a failed call's reason."""


class MalformedError(CallError):
    """An answer of 200 that is no completion, which the client does not ask for again."""


class OpenAIChat(Chat):
    """Chat completions at `base_url`. `key` names the environment variable that holds the key (None: none is needed).

    `timeout` is in seconds; a call is tried up to `tries` times, with jittered waits, as long as Retry-After says.
    `parameters` says under which names temperature, top_p, seed, max_tokens and response_format are sent, None for not
    at all; what the endpoint refuses by name is renamed or left out all the same. That is no part of a reply's key:
    whoever writes down what the endpoint refuses finds the same replies. `thinking` tokens are added to max_tokens.
    """

    algorithm = "rag_opt.components.endpoint.OpenAIChat"

    def __init__(
        self,
        base_url: str,
        key: str | None,
        timeout: float,
        tries: int,
        at_once: int,
        prices: Mapping[str, Mapping[str, float]],
        parameters: Mapping[str, str | None] | None = None,
        thinking: int = 0,
        window: int | None = None,
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
        check_parameters(parameters or {})
        check_room(thinking, window)
        self.base_url = base_url
        self.key = key
        self.timeout = timeout
        self.tries = tries
        self.at_once = at_once
        self.prices = prices
        self.parameters = parameters
        self.thinking = thinking
        self.window = window

    @property
    def fingerprint(self) -> str:
        room = [self.thinking] if self.thinking else []
        return key_of("openai chat", self.base_url.rstrip("/"), *room)

    def free(self) -> bool:
        return is_loopback(urlsplit(self.base_url).hostname or "")

    def called(self, request: Request) -> Reply:
        return self._answered(request, None)

    def streamed(self, request: Request, show: Callable[[str], None]) -> Reply:
        return self._answered(request, show)

    def _answered(self, request: Request, show: Callable[[str], None] | None) -> Reply:
        self._client()  # importing and connecting it is no part of what a call takes
        start, shown = time.perf_counter(), False

        def showing(piece: str) -> None:
            nonlocal shown
            shown = shown or bool(piece)
            assert show is not None
            show(piece)

        for left in reversed(range(MALFORMED)):
            # Some servers know no streams: what never was one is asked for whole in the end.
            whole = show is None or (not left and not shown)
            try:
                found = self._accepted(request, None if whole else showing)
            except MalformedError:
                if not left:
                    raise
                continue
            if show is not None and not shown:
                show(found.text or "")
            # A server that says nothing of tokens must not make a budget endless.
            read = found.read or tokens_of(request)
            wrote = found.wrote or int(TOKENS_A_WORD * count_tokens(found.text or ""))
            # A reply is kept, so a key that a server puts into one must go.
            text = self._without_key(found.text) if found.text and found.text.strip() else None
            reason = "" if text else THOUGHT if found.finish == "length" else f"no text (finish reason {found.finish})"
            return Reply(text, read, wrote, time.perf_counter() - start, reason)
        raise AssertionError  # the last round returns or raises

    def _accepted(self, request: Request, show: Callable[[str], None] | None) -> Completion:
        """The completion, asked for without what the endpoint refuses by name."""
        from openai import APIStatusError

        accepted = self.store.live(
            "accepted parameters",
            key_of(self.base_url, request.model, dict(self.parameters or {})),
            lambda: Accepted.of(self.parameters or {}),
        )
        values = wanted(request, self.thinking, stream=show is not None)
        while True:
            sent = accepted.sent(values)
            try:
                return self._completion(request, sent, show)
            except APIStatusError as error:
                body = None if error.status_code in UNTOLD else _body(error)
                learnt = accepted.learn(body, sent, values)
                if learnt is None:
                    raise self._failed_with(error) from error
                if learnt:
                    host = urlsplit(self.base_url).hostname
                    self.notices.say(f"llm: {request.model} at {host} {learnt}")

    def _failed_with(self, error: Any) -> CallError:
        """An answer with an error status as a failed call."""
        body, status = _body(error), error.status_code
        through = "" if isinstance(body, Mapping | list) else self._through()
        return CallError(self._clean(f"HTTP {status}: {told(body)}{through}"), fatal=status in FATAL, status=status)

    def _completion(self, request: Request, sent: Mapping[str, Any], show: Callable[[str], None] | None) -> Completion:
        from openai import APIStatusError, OpenAIError

        messages = request.messages if "system" in sent else without_system(request.messages)
        # As a part of the body: the client's own way to ask for JSON raises where that was cut off, though it is paid.
        asked: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": role, "content": text} for role, text in messages],
            "extra_body": {name: value for name, value in sent.items() if name != "system"},
        }
        try:
            completions = self._client().chat.completions
            if show is None:
                return completion(completions.with_raw_response.create(**asked).http_response.json())
            gathered = Gathered()
            for chunk in completions.create(**asked, stream=True):
                show(gathered.add(chunk.to_dict(warnings=False)))
            return gathered.whole
        except APIStatusError:
            raise
        except OpenAIError as error:
            through = self._through() if "Connection" in type(error).__name__ else ""
            raise CallError(self._clean(f"{type(error).__name__}: {error}{through}")) from error
        except NoCompletionError as error:
            raise MalformedError(self._clean(str(error))) from error
        except (ValueError, TypeError, AssertionError, AttributeError, LookupError) as error:
            # What the client raises for an answer of 200 that is no completion.
            raise MalformedError(
                self._clean(f"the answer is no completion ({type(error).__name__}: {error})")
            ) from error

    def _client(self) -> Any:
        key = key_of(self.base_url, self.key, self.timeout, self.tries)
        return self.store.live("endpoint", key, self._connected)

    def _connected(self) -> Any:
        from openai import DefaultHttpxClient, OpenAI

        parts = urlsplit(self.base_url)
        options: dict[str, Any] = {}
        if is_loopback(parts.hostname or ""):
            # No proxy of the environment's leads here; certificates that it names are needed for https all the same.
            direct = {f"{scheme}://": None for scheme in ("all", "http", "https")}
            options = {"mounts": direct} if parts.scheme == "https" else {"trust_env": False}
        try:
            http = DefaultHttpxClient(**options)
        except (ImportError, ValueError) as error:
            raise CallError(self._clean(f"{error}{self._through()}"), fatal=True) from error
        return OpenAI(
            api_key=os.environ.get(self.key, "") if self.key else "none is needed",
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=self.tries - 1,
            http_client=http,
        )

    def _through(self) -> str:
        """By which proxy the endpoint is asked, in words; "" where by none."""
        proxy = proxy_of(self.base_url)
        host = urlsplit(self.base_url).hostname
        return f" (asked through the proxy {hide(proxy)}; NO_PROXY={host} asks directly)" if proxy else ""

    def _clean(self, text: str) -> str:
        """The text in one line, without secrets: a server may echo them."""
        return hide(self._without_key(" ".join(text.split())))[:LONGEST]

    def _without_key(self, text: str) -> str:
        secret = os.environ.get(self.key or "", "")
        return text.replace(secret, "•••") if secret else text


def _body(error: Any) -> Any:
    """What an error status was answered with: JSON, else text."""
    try:
        return error.response.json()
    except ValueError:
        return error.response.text


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
