"""A model of this machine behind OpenAI's protocol: asked by OpenAI's client, by a study's, and by what is hostile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from rag_opt.cache.store import Store
from rag_opt.cli.llm import _listen, load_chat
from rag_opt.cli.llm_server import LARGEST, build_app
from rag_opt.components.llm.request import Request, Sampling
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.trust import build, to_plain
from rag_opt.errors import ConfigError

pytestmark = pytest.mark.integration
ASKED: list[Any] = [{"role": "system", "content": "the king"}, {"role": "user", "content": "the cat and the dog"}]
SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["score"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def words(tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("served")
    return ["llm=hf_local", f"llm.model={tiny_models['tiny_llm']}", f"store.path={folder}"]


@pytest.fixture(scope="module")
def url(words: list[str]) -> Iterator[str]:
    chat, model = load_chat(words)
    listening = _listen(0)
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build_app(chat, model, port), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def test_it_answers_as_the_model_does_in_a_process(client, words) -> None:
    chat, model = load_chat(words)
    own = chat.call_model(Request(model, tuple((m["role"], m["content"]) for m in ASKED), Sampling(max_tokens=12)))
    found = client.chat.completions.create(model="any", messages=ASKED, max_tokens=12)
    assert found.choices[0].message.content == own.text
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (own.tokens_in, own.tokens_out)
    assert [each.id for each in client.models.list()] == [model]


def test_it_streams_what_it_answers(client) -> None:
    whole = client.chat.completions.create(model="any", messages=ASKED, max_completion_tokens=12)
    chunks = list(
        client.chat.completions.create(
            model="any", messages=ASKED, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces).strip() == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 2
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_an_answer_is_held_to_its_schema(client) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}
    found = client.chat.completions.create(model="any", messages=ASKED, max_tokens=64, response_format=form)
    assert 1 <= json.loads(found.choices[0].message.content)["score"] <= 5


def test_many_are_answered_at_once_and_each_as_alone(client) -> None:
    def ask(count: int) -> str:
        said = [{"role": "user", "content": "the dog " * count}]
        return client.chat.completions.create(model="any", messages=said, max_tokens=8).choices[0].message.content

    counts = [*range(1, 13)]
    alone = [ask(count) for count in counts]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, counts)) == alone


def test_a_studys_own_client_asks_it(url, words) -> None:
    given = ["llm=openai", f"llm.base_url={url}", "llm.key=null", "llm.model=any"]
    config = compose_config(given)
    chat = build(to_plain(config.llm.chat), [])
    chat.use(Resources.from_store(Store()))
    request = Request("any", tuple((m["role"], m["content"]) for m in ASKED), Sampling(max_tokens=12), SCHEMA)
    local, model = load_chat(words)
    assert chat.call_model(request).text == local.call_model(Request(model, *list(vars(request).values())[1:4])).text


def test_a_reader_that_goes_away_stops_what_is_written_for_it(client, url) -> None:
    stream = client.chat.completions.create(model="any", messages=ASKED, max_tokens=3500, stream=True, temperature=1.5)
    for _, _chunk in zip(range(3), stream, strict=False):
        pass
    stream.close()
    start = time.monotonic()
    client.chat.completions.create(model="any", messages=ASKED, max_tokens=2)
    assert time.monotonic() - start < 30
    assert client.models.list().data


HOSTILE: dict[str, dict[str, Any]] = {
    "no messages": {"json": {"model": "m", "messages": []}},
    "no body": {"content": b""},
    "no JSON": {"content": b"{"},
    "another shape": {"json": [1, 2]},
    "a role that there is not": {"json": {"model": "m", "messages": [{"role": "tool", "content": "x"}]}},
    "an image": {"json": {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
    "no tokens": {"json": {"model": "m", "messages": ASKED, "max_tokens": 0}},
    "too hot": {"json": {"model": "m", "messages": ASKED, "temperature": 9}},
    "a seed that is none": {"json": {"model": "m", "messages": ASKED, "seed": 2**70}},
    "two answers": {"json": {"model": "m", "messages": ASKED, "n": 2}},
    "more than it reads": {"json": {"model": "m", "messages": [{"role": "user", "content": "cat " * 9000}]}},
    "more than it writes": {"json": {"model": "m", "messages": ASKED, "max_tokens": 10**6}},
    "a schema that is none": {
        "json": {
            "model": "m",
            "messages": ASKED,
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no such"}}},
        }
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_can_not_be_answered_is_said_in_openais_form(url, name: str) -> None:
    found = httpx.post(f"{url}/chat/completions", timeout=60, **HOSTILE[name])
    assert found.status_code == 400, found.text
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert "Traceback" not in found.text


def test_pages_of_the_web_and_endless_bodies_are_refused(url) -> None:
    body = {"model": "m", "messages": ASKED, "max_tokens": 2}
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert httpx.post(f"{url}/chat/completions", json=body, headers=headers).status_code == 403
    assert httpx.post(f"{url}/chat/completions", content=b" " * (LARGEST + 1)).status_code == 413
    assert httpx.post(f"{url}/chat/completions", content=iter([b"{}"])).status_code == 413
    assert httpx.post(f"{url}/chat/completions", json=body, timeout=60).status_code == 200


def test_a_model_that_does_not_run_here_and_a_port_that_is_taken_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it does not run here; choose llm=smollm2"):
        load_chat(["llm=openai", "llm.key=null", f"store.path={tmp_path}"])
    with pytest.raises(ConfigError, match="llm=smollm2 has one model"):
        load_chat(["llm=smollm2", "llm.model=another", f"store.path={tmp_path}"])
    taken = _listen(0)
    taken.listen()
    with pytest.raises(ConfigError, match="can't be listened on"):
        _listen(taken.getsockname()[1])
    taken.close()
