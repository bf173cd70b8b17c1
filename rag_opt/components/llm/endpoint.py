"""Language models behind any OpenAI-compatible endpoint, by the openai client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from rag_opt.components.checks import require, require_whole
from rag_opt.components.hosts import get_proxy, is_loopback, load_certificates
from rag_opt.components.llm.chat import CallError, Chat, check_prices, check_token_limits
from rag_opt.components.llm.completions import (
    Completion,
    Continued,
    NoCompletionError,
    StreamedCompletion,
    format_error,
    parse_completion,
)
from rag_opt.components.llm.parameters import Accepted, build_parameters, check_parameters
from rag_opt.components.llm.request import TOKENS_A_WORD, Request, estimate_tokens, merge_system
from rag_opt.config.trust import is_variable_name
from rag_opt.console.secrets import hide_secrets, register_variable
from rag_opt.llm.replies import THOUGHT, Reply
from rag_opt.records.keys import compute_key
from rag_opt.system.deadlines import OverdueError, check_waited_for, run_within
from rag_opt.text.tokenization import count_tokens

ADVICE = "a key belongs into the environment variable that {} names"

FATAL = (401, 403, 404)
"""Statuses after which another call with the same settings has no chance either."""

UNTOLD = (401, 403, 408, 409, 429)
"""Statuses that are about who asks and how often, never about what a request holds."""

MALFORMED = 3
"""How often a call is made whose answer is no completion: the client itself retries statuses and broken connections."""

PAUSE = 60.0
"""Seconds that the client waits at most before it tries again."""

LONGEST = 400
"""Characters of a failed call's reason."""


class MalformedError(CallError):
    """An answer of 200 that is no completion, which the client does not ask for again."""


class OpenAIChat(Chat):
    """Chat completions at `base_url`. `key` names the environment variable that holds the key (None: none is needed).

    A call is tried up to `tries` times, with jittered waits, as long as Retry-After says. A try ends when the endpoint
    says nothing for `timeout` seconds, the call after `deadline` seconds (None: when all tries have had their time).
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
        deadline: float | None = None,
    ) -> None:
        require(urlsplit(base_url).scheme in ("http", "https"), f"llm.base_url must be an http(s) URL, not {base_url}")
        require(
            "@" not in urlsplit(base_url).netloc, "llm.base_url holds a password; name a variable with llm.key instead"
        )
        require(not urlsplit(base_url).query, f"llm.base_url has a query; {ADVICE.format('llm.key')}")
        check_key("llm.key", key)
        require_whole("llm.tries", tries)
        require(timeout > 0, f"llm.timeout must be above 0 seconds, not {timeout}")
        limit = tries * (timeout + PAUSE) if deadline is None else deadline
        require(limit >= timeout, f"llm.deadline must be at least llm.timeout={timeout} seconds, not {deadline}")
        require_whole("llm.at_once", at_once)
        check_prices(prices)
        check_parameters(parameters or {})
        check_token_limits(thinking, window)
        self.base_url = base_url
        self.key = key
        self.timeout = timeout
        self.deadline = limit
        self.tries = tries
        self.at_once = at_once
        self.prices = prices
        self.parameters = parameters
        self.thinking = thinking
        self.window = window

    @property
    def fingerprint(self) -> str:
        room = [self.thinking] if self.thinking else []
        return compute_key("openai chat", self.base_url.rstrip("/"), *room)

    def is_free(self) -> bool:
        return is_loopback(urlsplit(self.base_url).hostname or "")

    def call_model(self, request: Request) -> Reply:
        return self._fetch_reply(request, None)

    def stream_reply(self, request: Request, show: Callable[[str], None]) -> Reply:
        return self._fetch_reply(request, show)

    def _fetch_reply(self, request: Request, show: Callable[[str], None] | None) -> Reply:
        self._get_client()  # importing and connecting it is no part of what a call takes
        start, shown = time.perf_counter(), None if show is None else Continued(show)
        try:
            found = run_within(self.deadline, partial(self._repeat_malformed, request, shown))
        except OverdueError as error:
            raise CallError(f"no whole answer came within llm.deadline={self.deadline:g} s") from error
        # A server that says nothing of tokens must not make a budget endless.
        read = found.read or estimate_tokens(request)
        wrote = found.wrote or int(TOKENS_A_WORD * count_tokens(found.text or ""))
        # A reply is kept, so a key that a server puts into one must go.
        text = self._remove_key(found.text) if found.text and found.text.strip() else None
        reason = "" if text else THOUGHT if found.finish == "length" else f"no text (finish reason {found.finish})"
        return Reply(text, read, wrote, time.perf_counter() - start, reason)

    def _repeat_malformed(self, request: Request, shown: Continued | None) -> Completion:
        """The completion, asked for again where the answer was none, or broke off."""
        for left in reversed(range(MALFORMED)):
            # Some servers know no streams: what never was one is asked for whole in the end.
            whole = shown is None or (not left and not shown.text)
            try:
                found = self._request_completion(request, None if whole else shown)
            except MalformedError:
                if not left:
                    raise
                if shown is not None:
                    shown.restart()
                continue
            if shown is not None and whole:
                shown(found.text or "")
            if shown is not None:
                shown.finish()
            return found
        raise AssertionError  # the last round returns or raises

    def _request_completion(self, request: Request, show: Callable[[str], None] | None) -> Completion:
        """The completion, asked for without what the endpoint refuses by name."""
        from openai import APIStatusError

        accepted = self.store.get_object(
            "accepted parameters",
            compute_key(self.base_url, request.model, dict(self.parameters or {})),
            lambda: Accepted.from_config(self.parameters or {}),
        )
        values = build_parameters(request, self.thinking, stream=show is not None)
        # This ends: each refusal takes a name away, and one that takes none is raised.
        while True:
            sent = accepted.translate_values(values)
            try:
                return self._send_request(request, sent, show)
            except APIStatusError as error:
                body = None if error.status_code in UNTOLD else _read_body(error)
                learnt = accepted.learn(body, sent, values)
                if learnt is None:
                    raise self._build_error(error) from error
                if learnt:
                    host = urlsplit(self.base_url).hostname
                    self.notices.report_once(f"llm: {request.model} at {host} {learnt}")

    def _build_error(self, error: Any) -> CallError:
        """An answer with an error status as a failed call."""
        body, status = _read_body(error), error.status_code
        # A body that is no JSON may be a proxy's own page.
        through = "" if isinstance(body, Mapping | list) else self._format_proxy()
        return CallError(
            self._clean(f"HTTP {status}: {format_error(body)}{through}"), fatal=status in FATAL, status=status
        )

    def _send_request(
        self, request: Request, sent: Mapping[str, Any], show: Callable[[str], None] | None
    ) -> Completion:
        from openai import APIStatusError, OpenAIError

        messages = request.messages if "system" in sent else merge_system(request.messages)
        # As a part of the body: the client's own way to ask for JSON raises where that was cut off, though it is paid.
        asked: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": role, "content": text} for role, text in messages],
            "extra_body": {name: value for name, value in sent.items() if name != "system"},
        }
        try:
            completions = self._get_client().chat.completions
            if show is None:
                return parse_completion(completions.with_raw_response.create(**asked).http_response.json())
            return _gather_stream(completions.create(**asked, stream=True), show)
        except APIStatusError:
            # The caller learns from it what the endpoint refuses; it is an OpenAIError as well.
            raise
        except OpenAIError as error:
            # Only where no connection came about can a proxy be in the way.
            through = self._format_proxy() if "Connection" in type(error).__name__ else ""
            raise CallError(self._clean(f"{type(error).__name__}: {error}{through}")) from error
        except NoCompletionError as error:
            raise MalformedError(self._clean(str(error))) from error
        except (ValueError, TypeError, AssertionError, AttributeError, LookupError) as error:
            # What the client raises for an answer of 200 that is no completion.
            raise MalformedError(
                self._clean(f"the answer is no completion ({type(error).__name__}: {error})")
            ) from error

    def _get_client(self) -> Any:
        key = compute_key(self.base_url, self.key, self.timeout, self.tries)
        return self.store.get_object("endpoint", key, self._connect)

    def _connect(self) -> Any:
        from openai import DefaultHttpxClient, OpenAI

        parts = urlsplit(self.base_url)
        options: dict[str, Any] = {}
        if is_loopback(parts.hostname or ""):
            # No proxy of the environment's leads here; certificates that it names are needed for https all the same.
            direct = {f"{scheme}://": None for scheme in ("all", "http", "https")}
            options = {"mounts": direct} if parts.scheme == "https" else {"trust_env": False}
        try:
            options["verify"] = load_certificates(options.get("trust_env", True))
            # At each try, the client's retries included: of a call that was given up no more is sent.
            http = DefaultHttpxClient(event_hooks={"request": [lambda _: check_waited_for()]}, **options)
        except (ImportError, ValueError, OSError) as error:
            raise CallError(self._clean(f"{error}{self._format_proxy()}"), fatal=True) from error
        return OpenAI(
            # Without a key the client would take OPENAI_API_KEY, and send it to whatever server this is.
            api_key=os.environ.get(self.key, "") if self.key else "none is needed",
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=self.tries - 1,
            http_client=http,
        )

    def _format_proxy(self) -> str:
        """By which proxy the endpoint is asked, in words; "" where by none."""
        proxy = get_proxy(self.base_url)
        host = urlsplit(self.base_url).hostname
        return f" (asked through the proxy {hide_secrets(proxy)}; NO_PROXY={host} asks directly)" if proxy else ""

    def _clean(self, text: str) -> str:
        """The text in one line, without secrets: a server may echo them."""
        return hide_secrets(self._remove_key(" ".join(text.split())))[:LONGEST]

    def _remove_key(self, text: str) -> str:
        secret = os.environ.get(self.key or "", "")
        return text.replace(secret, "•••") if secret else text


def _gather_stream(chunks: Any, show: Callable[[str], None]) -> Completion:
    """The completion that comes in these chunks, shown as it comes; raises NoCompletionError where it breaks off."""
    from openai import OpenAIError

    gathered = StreamedCompletion()
    rows = iter(chunks)
    while True:
        try:
            chunk = next(rows, None)
        except OpenAIError as error:
            # The client asks again for what fails before it begins; what fails later is its caller's to ask for.
            raise NoCompletionError(f"the stream broke off ({type(error).__name__}: {error})") from error
        if chunk is None:
            return gathered.whole
        show(gathered.add(chunk.to_dict(warnings=False)))


def _read_body(error: Any) -> Any:
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
        is_variable_name(key),
        f"{where} holds what looks like a key itself; {advice}",
    )
    require(
        bool(os.environ.get(key)),
        f"{where}={key}: this environment variable is not set; export it, or set {where}=null where no key is needed",
    )
    register_variable(key)
