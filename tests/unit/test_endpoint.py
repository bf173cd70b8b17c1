"""Calls to language models: keys, prices, waits, time limits, odd answers, streams; and models that run here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rag_opt.cache.store import Store
from rag_opt.components.hosts import get_proxy, is_loopback
from rag_opt.components.llm.chat import CallError, check_prices
from rag_opt.components.llm.endpoint import OpenAIChat, check_key
from rag_opt.components.llm.local import LocalChat
from rag_opt.components.llm.request import Request, Sampling
from rag_opt.components.resources import Resources
from rag_opt.console.exit_status import Terminated
from rag_opt.errors import ComponentError
from rag_opt.llm.replies import Reply
from rag_opt.system import signals
from rag_opt.system.signals import Stopping
from tests.services import counts, fault, reset
from tests.unit.scripted import request

SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
GOOD = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


def chat(url: str, **options: Any) -> OpenAIChat:
    made = OpenAIChat(
        **{"base_url": url, "key": None, "timeout": 2.0, "tries": 2, "at_once": 4, "prices": {}, **options}
    )
    made.use(Resources.from_store(Store()))
    return made


class Odd:
    """An endpoint that answers with `status`, `headers` and `body` after `delay`; `requests` are those it got."""

    def __init__(self) -> None:
        self.status, self.delay, self.body = 200, 0.0, json.dumps(GOOD).encode()
        self.kind = "application/json"
        self.headers: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.now = self.most = 0
        self.guard = threading.Lock()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@pytest.fixture
def odd() -> Iterator[Odd]:
    odd = Odd()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with odd.guard:
                odd.requests.append(sent)
                odd.authorizations.append(self.headers.get("Authorization"))
                odd.now += 1
                odd.most = max(odd.most, odd.now)
            time.sleep(odd.delay)
            with odd.guard:
                odd.now -= 1
            with contextlib.suppress(OSError):
                self.send_response(odd.status)
                for name, value in {"Content-Type": odd.kind, **odd.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(odd.body)))
                self.end_headers()
                self.wfile.write(odd.body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    odd.port = server.server_port
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield odd
    server.shutdown()
    server.server_close()


@pytest.fixture
def faulty(endpoint: str) -> Iterator[str]:
    fault(endpoint, "none")
    reset(endpoint)
    yield endpoint
    fault(endpoint, "none")


# ---- keys


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-Canary0123456789",
        "sk_live_Canary0123456789",
        "tvly-Canary0123456789",
        "Bearer Canary0123456789",
        "Canary 0123",
        "Canary" * 20,
        "1Canary",
        "",
    ],
)
def test_a_key_itself_is_refused_and_not_repeated(key: str) -> None:
    for make in (lambda: chat("http://127.0.0.1:9/v1", key=key), lambda: check_key("web.key", key)):
        with pytest.raises(ValueError, match="key itself") as caught:
            make()
        assert "Canary" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "gsk_Canary0123456789abcdefghijKLMNOPQRSTUVWXYZ0123456789",  # Groq
        "BSACanary0123456789abcdefghij",  # Brave
        "fCanary0123456789abcdef0123456789",  # Mistral, Azure: 32 letters and digits
    ],
)
def test_a_key_that_could_be_a_name_is_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match=r"web\.key") as caught:
        check_key("web.key", key)
    assert key not in str(caught.value)


def test_a_variable_that_is_not_set_is_named(monkeypatch) -> None:
    monkeypatch.delenv("RAG_OPT_TEST_KEY", raising=False)
    with pytest.raises(ValueError, match=r"llm\.key=RAG_OPT_TEST_KEY: this environment variable is not set"):
        chat("http://127.0.0.1:9/v1", key="RAG_OPT_TEST_KEY")
    monkeypatch.setenv("RAG_OPT_TEST_KEY", "")
    with pytest.raises(ValueError, match="not set"):
        chat("http://127.0.0.1:9/v1", key="RAG_OPT_TEST_KEY")


def test_a_key_is_sent_and_no_key_is_fine(odd: Odd, monkeypatch) -> None:
    monkeypatch.setenv("RAG_OPT_TEST_KEY", "canary-value")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert chat(odd.url, key="RAG_OPT_TEST_KEY").call_model(request("hello")).text == "fine"
    assert chat(odd.url).call_model(request("hello")).text == "fine"
    assert odd.authorizations[0] == "Bearer canary-value"
    assert "another" not in str(odd.authorizations[1])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_can_not_be_mended_is_asked_once_and_the_key_is_not_repeated(odd: Odd, monkeypatch, status: int) -> None:
    monkeypatch.setenv("RAG_OPT_TEST_KEY", "canary-value")
    odd.status, odd.body = status, b'{"error": {"message": "Wrong: Bearer canary-value"}}'
    made = chat(odd.url, key="RAG_OPT_TEST_KEY", tries=4)
    with pytest.raises(CallError, match=f"HTTP {status}.*•••") as caught:
        made.call_model(request("hello"))
    assert caught.value.fatal
    assert "canary" not in str(caught.value)
    assert len(odd.requests) == 1
    with pytest.raises(ComponentError, match="generator: model can't be asked: HTTP") as raised:
        made.get_reply(request("hello"), "generator")
    assert "canary" not in str(raised.value)
    with pytest.raises(ComponentError, match="generator: model can't be asked: HTTP"):
        made.get_reply(request("another"), "query")
    assert len(odd.requests) == 2, "given up: nobody is asked again"
    odd.status, odd.body = 200, json.dumps(GOOD).encode()
    again = made.clone()
    assert again.get_reply(request("another"), "query").text == "fine"


def test_a_key_that_no_header_can_carry_does_not_show(odd: Odd, monkeypatch) -> None:
    for value in ("canary\u201d", "canary\nX-Evil: 1", "canary\n"):
        monkeypatch.setenv("RAG_OPT_TEST_KEY", value)
        with pytest.raises(CallError) as caught:
            chat(odd.url, key="RAG_OPT_TEST_KEY", tries=1).call_model(request("hello"))
        assert "canary" not in str(caught.value)
    assert all("X-Evil" not in str(each) for each in odd.authorizations)


@pytest.mark.parametrize("url", ["ftp://host/v1", "localhost:11434/v1", "", "https://user:canary@host/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"llm\.base_url") as caught:
        chat(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"tries": 0}, {"tries": 1.5}, {"at_once": 0}])
def test_limits_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"llm\.{next(iter(options))}"):
        chat("http://127.0.0.1:9/v1", **options)


# ---- prices


def test_prices_are_dollars_a_million_tokens_and_nan_where_none_is_known() -> None:
    made = chat("https://api.example.org/v1", prices={"small": {"in": 0.2, "out": 0.6}, "gift": {"in": 0, "out": 0}})
    assert made.compute_usd("small", 1_000_000, 2_000_000) == pytest.approx(1.4)
    assert made.compute_usd("gift", 5, 5) == 0
    assert math.isnan(made.compute_usd("unknown", 1, 1))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "[::1]:8000", "127.9.9.9"])
def test_this_machine_costs_nothing(host: str) -> None:
    made = chat(f"http://{host}/v1", prices={"small": {"in": 1.0, "out": 1.0}})
    assert made.compute_usd("small", 10**6, 10**6) == 0
    assert made.compute_usd("unknown", 10**6, 10**6) == 0


def test_a_name_that_only_looks_like_this_machine_costs() -> None:
    assert not any(map(is_loopback, ["localhost.evil.org", "127.0.0.1.nip.io", "10.0.0.1", "0.0.0.0", ""]))


@pytest.mark.parametrize("price", [{"in": 1}, {"in": 1, "out": -1}, {"in": "1", "out": 1}, 5, None, {}])
def test_a_price_that_is_none_is_refused(price: Any) -> None:
    with pytest.raises(ValueError, match=r"price\.small"):
        check_prices({"small": price})


# ---- waits and limits


def test_retry_after_is_waited_for(faulty: str) -> None:
    fault(faulty, "rate_limit", heal=True)
    start = time.monotonic()
    found = chat(faulty).call_model(request("hello there"))
    assert found.text == "there hello"
    assert 1.0 <= time.monotonic() - start < 4
    assert found.seconds >= 1.0
    assert counts(faulty)["chat"] == 2


def test_a_long_retry_after_is_not_waited_for(faulty: str) -> None:
    fault(faulty, "rate_limit_long")
    start = time.monotonic()
    with pytest.raises(CallError, match="HTTP 429"):
        chat(faulty).call_model(request("hello there"))
    assert time.monotonic() - start < 6


@pytest.mark.parametrize("tries", [1, 2])
def test_a_call_is_tried_as_often_as_was_asked_for(odd: Odd, tries: int) -> None:
    odd.status, odd.body = 500, b"{}"
    with pytest.raises(CallError, match="HTTP 500"):
        chat(odd.url, tries=tries).call_model(request("hello"))
    assert len(odd.requests) == tries


def test_a_silent_endpoint_is_left_at_the_time_limit(odd: Odd) -> None:
    odd.delay = 3.0
    start = time.monotonic()
    with pytest.raises(CallError, match="Timeout"):
        chat(odd.url, timeout=0.5, tries=1).call_model(request("hello"))
    assert time.monotonic() - start < 1.4


@pytest.mark.parametrize("name", ["hang", "slow_first_token"])
def test_a_time_limit_holds(faulty: str, name: str) -> None:
    fault(faulty, name)
    start = time.monotonic()
    with pytest.raises(CallError, match="Timeout"):
        chat(faulty, timeout=0.3, tries=1).call_model(request("hello"))
    assert time.monotonic() - start < 3


class Trickle:
    """A server that never comes to an end: a byte every 20 ms, of its answer's head, its body or a stream's comments."""

    HEADS: ClassVar = {
        "head": b"HTTP/1.1 200 OK\r\nX-Long: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n",
        "comments": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: ",
    }

    def __init__(self, kind: str) -> None:
        self.asked = 0
        self._closed = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, args=(self.HEADS[kind],), daemon=True).start()

    def _serve(self, head: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._socket.accept()[0], head), daemon=True).start()

    def _answer(self, client: socket.socket, head: bytes) -> None:
        with client, contextlib.suppress(OSError):
            if not client.recv(65536):
                return
            self.asked += 1
            client.sendall(head)
            while not self._closed.wait(0.02):
                client.sendall(b" ")

    def end_answers(self) -> None:
        """Break off what is under way; whoever asks again is still heard."""
        self._closed.set()

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize(("kind", "stream"), [("head", False), ("body", False), ("comments", True)])
def test_a_call_that_trickles_for_ever_is_given_up(kind: str, stream: bool) -> None:
    server, pieces = Trickle(kind), list[str]()
    made = chat(server.url, timeout=0.3, tries=2, deadline=0.9)
    start = time.monotonic()
    try:
        ask = partial(made.stream_reply, show=pieces.append) if stream else made.call_model
        with pytest.raises(CallError, match=r"no whole answer came within llm.deadline=0.9 s"):
            ask(request("hello"))
        assert time.monotonic() - start < 3
        # The connection breaks now, in the thread that was left behind: it must not ask again.
        server.end_answers()
        time.sleep(1.5)
        assert (server.asked, pieces) == (1, [])
    finally:
        server.close()


def test_a_stream_that_is_begun_anew_goes_on_where_it_broke() -> None:
    from rag_opt.components.llm.completions import Continued

    pieces: list[str] = []
    shown = Continued(pieces.append)
    for piece in ("It ", "is "):
        shown(piece)
    shown.restart()
    for piece in ("It", " is", " red", "."):
        shown(piece)
    assert pieces == ["It ", "is ", "red", "."]
    shown.restart()
    for piece in ("It is ", "blue"):
        shown(piece)
    assert pieces[4:] == ["\nIt is blue"]
    assert shown.text == "It is blue"
    # A shorter one in the end is what stands there.
    shown.restart()
    shown("It is")
    shown.finish()
    assert pieces[5:] == ["\nIt is"]


def test_what_a_broken_stream_thought_is_not_shown() -> None:
    from rag_opt.components.llm.completions import Continued

    pieces: list[str] = []
    shown = Continued(pieces.append)
    for piece in ("<think>one</think>", "The answer is"):
        shown(piece)
    shown.restart()
    for piece in ("<think>", "another</think>", "The answer is 42"):
        shown(piece)
    shown.finish()
    assert "".join(pieces) == "The answer is 42"


@pytest.mark.parametrize("at_once", [1, 4])
def test_so_many_calls_are_under_way_at_once(odd: Odd, at_once: int) -> None:
    odd.delay = 0.15
    made = chat(odd.url, at_once=at_once)
    made.call_model(request("warm"))
    talks = made.map_items(
        "generator", lambda talk, text: talk.ask(request(text)), [f"text {place}" for place in range(8)]
    )
    assert talks.results == ["fine"] * 8
    assert odd.most == at_once
    assert talks.usage.calls.tolist() == [1] * 8


def test_the_same_request_at_once_is_paid_once(odd: Odd, tmp_path: Path) -> None:
    odd.delay = 0.1
    made = chat(odd.url, at_once=8)
    made.use(Resources.from_store(Store(tmp_path / "store")))
    talks = made.map_items("generator", lambda talk, text: talk.ask(request(text)), ["same"] * 8)
    assert talks.results == ["fine"] * 8
    assert len(odd.requests) == 1


def test_no_connection_is_a_failed_call(odd: Odd) -> None:
    made = chat("http://127.0.0.1:9/v1", tries=1)
    with pytest.raises(CallError, match="Connection"):
        made.call_model(request("hello"))
    assert made.get_reply(request("hello"), "query") == Reply(None, reason="APIConnectionError: Connection error.")


# ---- what is sent


def test_a_request_is_sent_as_it_is(odd: Odd) -> None:
    sampling = Sampling(temperature=0.5, max_tokens=33, top_p=0.9, seed=5)
    messages = (("system", "Be brief. {x}"), ("user", "hello"), ("assistant", "yes?"), ("user", "\x00 \U0001f600"))
    chat(odd.url).call_model(Request("some/model", messages, sampling, SCHEMA, attempt=2))
    chat(odd.url).call_model(request("plain"))
    sent, plain = odd.requests
    assert sent["model"] == "some/model"
    assert [message["role"] for message in sent["messages"]] == [role for role, _ in messages]
    assert [message["content"] for message in sent["messages"]] == [text for _, text in messages]
    assert (sent["temperature"], sent["max_tokens"], sent["top_p"], sent["seed"]) == (0.5, 33, 0.9, 7)
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert "response_format" not in plain
    assert not sent.get("stream")


def test_tokens_are_those_the_endpoint_counts(odd: Odd) -> None:
    found = chat(odd.url).call_model(request("hello"))
    assert (found.text, found.tokens_in, found.tokens_out) == ("fine", 7, 2)
    assert found.seconds > 0


# ---- odd answers


def changed(**values: Any) -> dict[str, Any]:
    return {**GOOD, **values}


def message(**values: Any) -> dict[str, Any]:
    return changed(choices=[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **values}}])


NO_COMPLETION = ["invalid_json", "wrong_schema", "error_body_200", "html_200", "empty_choices", "cut_stream", "reset"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        5,
        "text",
        {},
        {"choices": None},
        {"choices": {}},
        {"choices": "x"},
        changed(choices=[None]),
        changed(choices=[{}]),
        changed(choices=[{"message": None}]),
        changed(choices=[{"message": {}}]),
        changed(choices=[{"message": "text"}]),
        message(content=None),
        message(content=""),
        message(),
        message(content=5),
        message(content=[{"type": "text", "text": "a"}]),
        message(content={"a": 1}),
        message(content="a", tool_calls="x"),
        message(content="a", tool_calls=[{"id": 1}]),
        message(content="\ud800 \x00"),
        changed(usage=None),
        changed(usage={}),
        changed(usage=5),
        changed(usage=[]),
        changed(usage={"prompt_tokens": None}),
        changed(usage={"prompt_tokens": "many"}),
        changed(usage={"prompt_tokens": {}}),
        changed(usage={"prompt_tokens": 1e400}),
        changed(usage={"prompt_tokens": float("nan"), "completion_tokens": 1}),
        changed(created="x", model=None, id=None, object=None),
        {"error": "no"},
    ],
    ids=lambda body: json.dumps(body)[:150].replace("/", "_"),
)
def test_whatever_comes_with_status_200_is_a_reply_or_a_failed_call(odd: Odd, body: Any, tmp_path: Path) -> None:
    odd.body = json.dumps(body).encode()
    made = chat(odd.url, tries=1)
    made.use(Resources.from_store(Store(tmp_path / "store")))
    found = made.get_reply(request("hello"), "generator")
    assert found.text is None or isinstance(found.text, str)
    assert found.text is not None or found.reason
    assert all(type(count) is int for count in (found.tokens_in, found.tokens_out))
    if found.text is not None:
        again = made.get_reply(request("hello"), "generator")
        assert (again.text, again.tokens_in) == (found.text, found.tokens_in)


@pytest.mark.parametrize(
    ("name", "stream"),
    [(name, stream) for stream in (False, True) for name in NO_COMPLETION],
)
def test_what_is_no_completion_is_asked_for_again(faulty: str, name: str, stream: bool) -> None:
    fault(faulty, name, heal=True)
    made = chat(faulty)
    pieces: list[str] = []
    found = (
        made.stream_reply(request("hello there"), pieces.append) if stream else made.call_model(request("hello there"))
    )
    assert found.text == "there hello"
    # What a broken stream had shown is not shown again.
    assert "".join(pieces) == ("there hello" if stream else "")
    assert counts(faulty)["chat"] == 2


def test_half_an_answer_in_json_is_paid_for(faulty: str) -> None:
    from rag_opt.llm.budget import Budget

    fault(faulty, "length")
    made = chat(faulty)
    made.use(replace(made.resources, llm=replace(made.llm, budget=Budget("study", made.llm.replies))))
    talks = made.map_items("judge", lambda talk, text: talk.ask(request(text, schema=SCHEMA)), ["hello"])
    assert talks.results[0] is None or not talks.results[0].endswith("}")
    actual = counts(faulty)
    assert made.llm.replies.get_spent("study").tokens == actual["prompt_tokens"] + actual["completion_tokens"] > 0


# ---- streams


def test_a_streams_pieces_are_the_text(faulty: str) -> None:
    made, pieces = chat(faulty), []
    found = made.stream_reply(request("one two three four five six"), pieces.append)
    assert "".join(pieces) == found.text == "six five four three two one"
    assert len([piece for piece in pieces if piece]) > 1
    assert found.tokens_in == counts(faulty)["prompt_tokens"] > 0
    assert found.tokens_out == counts(faulty)["completion_tokens"] > 0


def test_a_kept_reply_is_shown_at_once(faulty: str) -> None:
    made, pieces = chat(faulty), []
    first = made.get_reply(request("one two three"), "generator", pieces.append)
    again: list[str] = []
    assert made.get_reply(request("one two three"), "generator", again.append).text == first.text == "".join(pieces)
    assert again == [first.text]
    assert counts(faulty)["chat"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "rate_limit_long",
        "server_error",
        "bad_gateway",
        "invalid_json",
        "wrong_schema",
        "error_body_200",
        "html_200",
        "empty_choices",
        "reset",
        "hang",
        "cut_stream",
        "slow_first_token",
    ],
)
def test_a_stream_that_breaks_is_a_failed_call(faulty: str, name: str) -> None:
    fault(faulty, name)
    with pytest.raises(CallError):
        chat(faulty, timeout=0.5, tries=1).stream_reply(request("one two three"), lambda _: None)


@pytest.mark.parametrize("name", ["null_content", "refusal", "empty_text"])
def test_a_stream_without_a_text_is_a_reply_without_one(faulty: str, name: str) -> None:
    fault(faulty, name)
    pieces: list[str] = []
    assert not chat(faulty).stream_reply(request("one two three"), pieces.append).text
    assert "".join(pieces) == ""


# ---- models that run here


@pytest.fixture(scope="module")
def local() -> LocalChat:
    made = LocalChat(None, "float32")
    made.use(Resources.from_store(Store()))
    return made


def ask(local: LocalChat, model: str, text: str = "the cat", **sampling: Any) -> Reply:
    return local.call_model(Request(model, (("user", text),), Sampling(**{"max_tokens": 12, **sampling})))


def test_without_temperature_the_same_is_said_whatever_the_seed(local: LocalChat, tiny_models: dict[str, str]) -> None:
    said = {ask(local, tiny_models["tiny_llm"], seed=seed).text for seed in range(4)}
    assert len(said) == 1
    assert said != {""}


def test_a_text_ends_in_its_midst_when_the_study_is_to_end(local, tiny_models, monkeypatch) -> None:
    """Between two tokens: no signal reaches the thread that a model runs in."""
    left = iter(range(6))
    asked = []

    def check() -> None:
        asked.append(1)
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("rag_opt.system.signals.check_ending", check)
    with pytest.raises(KeyboardInterrupt):
        ask(local, tiny_models["tiny_llm"], "the cat", temperature=1.0, max_tokens=400, seed=5)
    assert len(asked) == 7


def test_a_stop_that_was_asked_for_is_raised_in_every_thread() -> None:
    with Stopping() as stop:
        signals.check_ending()
        stop.asked = True
        signals.check_ending()  # a first Ctrl-C lets the batch be finished
        stop.raised = Terminated()
        with pytest.raises(Terminated):
            signals.check_ending()
    signals.check_ending()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_only_transformers_can_run_says_the_same(tiny_models, monkeypatch, temperature: float) -> None:
    """One call after the other, in place of side by side."""
    found = []
    for side_by_side in (True, False):
        monkeypatch.setattr("rag_opt.components.llm.decoding.fits", lambda _, answer=side_by_side: answer)
        made = LocalChat(None, "float32")
        made.use(Resources.from_store(Store()))
        found.append(replace(ask(made, tiny_models["tiny_llm"], temperature=temperature, seed=5), seconds=0.0))
        assert (made._get_model(tiny_models["tiny_llm"]).decoder is not None) == side_by_side
    assert found[0] == found[1]


def test_the_seed_decides_what_is_sampled(local: LocalChat, tiny_models: dict[str, str]) -> None:
    said = [ask(local, tiny_models["tiny_llm"], temperature=1.0, seed=seed).text for seed in (1, 2, 3, 1, 2, 3)]
    assert said[:3] == said[3:]
    assert len(set(said[:3])) > 1
    other = Request(tiny_models["tiny_llm"], (("user", "the cat"),), Sampling(1.0, 12, 1.0, 1), attempt=1)
    assert local.call_model(other).text == said[1], "an attempt is the next seed"


def test_tokens_are_counted_as_the_model_reads_them(local: LocalChat, tiny_models: dict[str, str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_models["tiny_llm"])
    text = "the king and the dog \U0001f600"
    found = ask(local, tiny_models["tiny_llm"], text, max_tokens=5)
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
    )
    assert found.tokens_in == len(tokenizer(shown, add_special_tokens=False)["input_ids"])
    assert 0 < found.tokens_out <= 5
    assert local.compute_usd("any", 10**6, 10**6) == 0


def test_threads_get_what_one_gets(tiny_models: dict[str, str]) -> None:
    made = LocalChat(None, "float32")
    made.use(Resources.from_store(Store()))
    made.at_once = 4
    texts = [f"the cat {place}" for place in range(6)]
    work = lambda talk, text: talk.ask(  # noqa: E731
        Request(tiny_models["tiny_llm"], (("user", text),), Sampling(1.0, 8, 1.0, 3))
    )
    together = made.map_items("generator", work, texts).results
    assert together == [
        ask(made, tiny_models["tiny_llm"], text, temperature=1.0, max_tokens=8, seed=3).text for text in texts
    ]


def folder_like(model: str, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder / "copy"))


def test_a_model_without_a_chat_template_is_refused(
    local: LocalChat, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    copy = folder_like(tiny_models["tiny_llm"], tmp_path)
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    settings = copy / "tokenizer_config.json"
    found = json.loads(settings.read_text())
    found.pop("chat_template", None)
    settings.write_text(json.dumps(found))
    with pytest.raises(ComponentError, match="has no chat template"):
        ask(local, str(copy))


def test_a_folder_that_is_not_there_is_said_in_one_line(local: LocalChat, tmp_path: Path) -> None:
    missing = str(tmp_path / "no" / "such" / "model")
    with pytest.raises(ComponentError, match="there is no such folder; name one that holds a model") as caught:
        ask(local, missing)
    assert missing in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["chat_template.jinja", "merges.txt", "tokenizer.model"])
def test_another_template_or_vocabulary_is_another_model(
    local: LocalChat, tiny_models: dict[str, str], tmp_path: Path, name: str
) -> None:
    copy = folder_like(tiny_models["tiny_llm"], tmp_path)
    assert local.identify_model(str(copy)) == local.identify_model(tiny_models["tiny_llm"])
    (copy / name).write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert local.identify_model(str(copy)) != local.identify_model(tiny_models["tiny_llm"])


@pytest.mark.parametrize(
    "broken",
    [
        "empty",
        "config",
        "weights",
        "tokenizer",
        "no_type",
        "template",
    ],
)
def test_a_broken_folder_is_an_error_of_the_component(
    local: LocalChat, tiny_models: dict[str, str], tmp_path: Path, broken: str
) -> None:
    copy = folder_like(tiny_models["tiny_llm"], tmp_path)
    match broken:
        case "empty":
            shutil.rmtree(copy)
            copy.mkdir()
        case "config":
            (copy / "config.json").write_text("{not json")
        case "weights":
            path = copy / "model.safetensors"
            os.truncate(path, path.stat().st_size // 2)
        case "tokenizer":
            (copy / "tokenizer.json").write_text("{}")
        case "no_type":
            (copy / "config.json").write_text("{}")
        case "template":
            (copy / "chat_template.jinja").write_text("{% for x in %}")
            (copy / "more.json").write_text("{}")  # so that it is not taken for the model that is loaded
    with pytest.raises(ComponentError):
        ask(local, str(copy))


def test_a_model_that_can_choose_thinks_only_where_it_is_given_room(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    """As Qwen3's: without a word about it, or with one, its template lets it think."""
    copy = folder_like(tiny_models["tiny_llm"], tmp_path)
    template = (copy / "chat_template.jinja").read_text()
    quiet = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    (copy / "chat_template.jinja").write_text(template + quiet)
    found = {}
    for thinking in (0, 8):
        made = LocalChat(None, "float32", thinking=thinking)
        made.use(Resources.from_store(Store()))
        found[thinking] = ask(made, str(copy), max_tokens=4)
    assert found[0].tokens_in > found[8].tokens_in
    assert found[0].tokens_out <= 4 < found[8].tokens_out <= 12


def test_a_template_without_a_system_is_told_all_by_the_user(tiny_models: dict[str, str], tmp_path: Path) -> None:
    copy = folder_like(tiny_models["tiny_llm"], tmp_path)
    template = (copy / "chat_template.jinja").read_text()
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    (copy / "chat_template.jinja").write_text(refuses + template)
    made = LocalChat(None, "float32")
    made.use(Resources.from_store(Store()))
    said = (("system", "the king"), ("user", "the cat"))
    found = made.call_model(Request(str(copy), said, Sampling(max_tokens=4)))
    assert found.tokens_in == ask(made, str(copy), "the king\n\nthe cat").tokens_in


def test_a_prompt_that_the_model_was_not_made_for_is_not_read(local: LocalChat, tiny_models: dict[str, str]) -> None:
    with pytest.raises(CallError, match=r"do not fit the model's 4,096"):
        ask(local, tiny_models["tiny_llm"], "the cat " * 5000)


def test_room_that_is_none_is_refused() -> None:
    for name, value in (("thinking", -1), ("thinking", 0.5), ("window", 0)):
        for make in (lambda **given: LocalChat(None, "float32", **given), lambda **given: chat("http://x/v1", **given)):
            with pytest.raises(ValueError, match=rf"llm\.{name}"):
                make(**{name: value})


def test_a_wrong_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"llm\.dtype"):
        LocalChat(None, "float8")


# ---- proxies


@pytest.fixture
def proxy(monkeypatch) -> str:
    """A proxy that nobody is at, as the environment names one."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://user:canary-word@127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return "127.0.0.1:9"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_asked_directly(odd: Odd, proxy: str, host: str) -> None:
    assert chat(odd.url.replace("127.0.0.1", host)).call_model(request("hello")).text == "fine"


def test_socks_proxies_do_not_stand_before_this_machine(odd: Odd, proxy: str, monkeypatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert chat(odd.url).call_model(request("hello")).text == "fine"


def test_a_connection_error_names_the_proxy_without_its_password(proxy: str) -> None:
    with pytest.raises(CallError, match=r"proxy http://user:\*\*\*@127\.0\.0\.1:9; NO_PROXY=llm\.example") as caught:
        chat("http://llm.example/v1", tries=1).call_model(request("hello"))
    assert "canary" not in str(caught.value)


def test_no_proxy_and_hosts_elsewhere(proxy: str, monkeypatch) -> None:
    assert get_proxy("https://api.example.org/v1") == "http://user:canary-word@127.0.0.1:9"
    assert get_proxy("http://[::1]:8000/v1") is None
    monkeypatch.setenv("no_proxy", "example.org")
    assert get_proxy("https://api.example.org/v1") is None
