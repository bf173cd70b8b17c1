"""A model over HTTP, by a real server, real clients and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from mlflow import MlflowClient

from rag_opt.cli.serve import prepare_model
from rag_opt.cli.study import run_study
from rag_opt.errors import ConfigError
from rag_opt.production.answering import open_folder
from rag_opt.production.promotion import bundle_study, promote_study
from rag_opt.serving.keys import VARIABLE
from rag_opt.serving.sender import sending
from rag_opt.serving.settings import ServerSettings, parse_canary
from rag_opt.serving.traces import get_experiment
from tests.services import PATIENCE, counts, fault, reset
from tests.services.model_server import HEADERS, KEY, serving

pytestmark = pytest.mark.integration
QUESTION = "Where do birds fly in winter?"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ASKED: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def study(animals, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    run_study([*animals, f"studies_dir={folder}", f"store.path={folder}/store", "tracking=none", "n_trials=2"])
    return folder / "animals"


@pytest.fixture(scope="module")
def tracking(study) -> str:
    return f"sqlite:///{study.parent}/mlflow.db"


@pytest.fixture(scope="module")
def bundle(study) -> str:
    bundle_study(study, study.parent / "bundle", ["retriever=hybrid"])
    return str(study.parent / "bundle")


@pytest.fixture(autouse=True)
def key(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, f"alice:{KEY},bob:bob-key-0123456789")


@pytest.fixture(scope="module")
def url(bundle, tracking, study) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, f"alice:{KEY},bob:bob-key-0123456789")
        with serving(bundle, tracking, study.parent / "state") as place:
            yield place


@pytest.fixture
def client(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=HEADERS, timeout=30) as found:
        yield found


def test_openai_s_client_reads_answers_and_streams(url, bundle) -> None:
    asked: Any = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    known = open_folder(Path(bundle)).ask(QUESTION)
    told = asked.chat.completions.create(**ASKED)
    assert told.choices[0].message.content == known.text
    cited = [each.url_citation.url for each in told.choices[0].message.annotations]
    assert cited == list(dict.fromkeys(source.document_id for source in known.sources))
    documents = [(each["id"], each["text"], each["score"]) for each in told.model_extra["documents"]]
    assert documents == [(source.document_id, source.text, source.score) for source in known.sources]
    events = list(asked.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    assert "".join(each.choices[0].delta.content or "" for each in events if each.choices) == known.text
    assert events[-2].choices[0].finish_reason == "stop"
    assert events[-1].usage.total_tokens == 0
    answered = asked.responses.create(model="any", input=QUESTION)
    assert answered.output_text == known.text
    assert answered.output[0].content[0].annotations[0].file_id == cited[0]
    with asked.responses.stream(model="any", input=[{"role": "user", "content": QUESTION}]) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == known.text
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert asked.models.list().data[0].id == bundle


def test_langchain_works_against_it_unchanged(url, bundle) -> None:
    model: Any = ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model="any")
    known = open_folder(Path(bundle)).ask(QUESTION).text
    assert model.invoke(QUESTION).content == known
    assert "".join(piece.content for piece in model.stream(QUESTION)) == known


def test_pieces_come_before_the_answer_is_whole(study, tracking, endpoint, services, tmp_path) -> None:
    words = [*services, "generator=llm", "llm.model=extractive-1", "retriever=bm25"]
    bundle_study(study, tmp_path / "bundle", words)
    reset(endpoint)
    with serving(str(tmp_path / "bundle"), tracking, tmp_path / "state") as url:
        asked: Any = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        events = list(asked.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
        pieces = [each.choices[0].delta.content for each in events if each.choices and each.choices[0].delta.content]
        assert len(pieces) > 2
        assert events[-1].usage.completion_tokens > 0
        before = counts(endpoint)
        # Whoever only searches pays for no answer; who asks the same again is answered anew.
        with httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client:
            assert client.post("/search", json={"query": QUESTION}).json()["documents"]
            assert counts(endpoint) == before
            client.post("/v1/chat/completions", json=ASKED).raise_for_status()
            numbers = client.get("/metrics").text
        assert counts(endpoint) != before
        assert 'rag_opt_tokens_total{arm="model",kind="written"}' in numbers


def test_a_model_that_is_away_is_an_error_and_asked_again_when_it_is_back(study, tracking, services, tmp_path) -> None:
    words = [*services, "generator=llm", "llm.model=extractive-1", "llm.tries=1", "retriever=bm25"]
    bundle_study(study, tmp_path / "bundle", words)
    endpoint = services[0].partition("=")[2]
    with (
        serving(str(tmp_path / "bundle"), tracking, tmp_path / "state") as url,
        httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client,
    ):
        fault(endpoint, "server_error")
        # More than a study would bear before it gives the model up.
        assert {client.post("/v1/chat/completions", json=ASKED).status_code for _ in range(8)} == {502}
        with client.stream("POST", "/v1/chat/completions", json={**ASKED, "stream": True}) as told:
            lines = [line for line in told.iter_lines() if line]
        assert "error" in json.loads(lines[-2].removeprefix("data: "))
        assert lines[-1] == "data: [DONE]"
        fault(endpoint, "none")
        assert client.post("/v1/chat/completions", json=ASKED).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/search", "/feedback", "/metrics"])
def test_only_a_key_opens_what_tells_of_documents(url, path) -> None:
    for headers in ({}, {"authorization": "Bearer wrong-key-0123456789"}, {"authorization": KEY}):
        told = httpx.post(f"{url}{path}", json=ASKED, headers=headers)
        assert told.status_code == 401
        assert told.headers["www-authenticate"] == "Bearer"
    for open_path in ("/", "/health", "/ready"):
        assert httpx.get(f"{url}{open_path}").status_code == 200


def test_a_key_that_goes_from_its_file_is_revoked_while_the_service_runs(
    bundle, tracking, tmp_path, monkeypatch
) -> None:
    known = tmp_path / "keys"
    known.write_text(f"alice:{KEY}\nbob:bob-key-0123456789\n")
    monkeypatch.setenv(VARIABLE, f"@{known}")
    with serving(bundle, tracking, tmp_path / "state") as url:
        bob = {"authorization": "Bearer bob-key-0123456789"}
        assert httpx.get(f"{url}/v1/models", headers=bob).status_code == 200
        known.write_text(f"alice:{KEY}\n")
        assert httpx.get(f"{url}/v1/models", headers=bob).status_code == 401
        assert httpx.get(f"{url}/v1/models", headers=HEADERS).status_code == 200
        known.unlink()
        assert httpx.get(f"{url}/v1/models", headers=HEADERS).status_code == 401


def test_each_key_has_its_rate(bundle, tracking, tmp_path) -> None:
    with serving(bundle, tracking, tmp_path / "state", rate="3/minute") as url:
        told = [httpx.post(f"{url}/search", json={"query": "owls"}, headers=HEADERS) for _ in range(5)]
        assert [each.status_code for each in told] == [200] * 3 + [429] * 2
        assert 0 < int(told[-1].headers["retry-after"]) <= 60
        bob = {"authorization": "Bearer bob-key-0123456789"}
        assert httpx.post(f"{url}/search", json={"query": "owls"}, headers=bob).status_code == 200


def test_more_than_may_wait_is_refused_and_what_takes_too_long_ends(study, tracking, services, tmp_path) -> None:
    words = [*services, "generator=llm", "llm.model=extractive-1", "retriever=bm25", "llm.tries=1"]
    bundle_study(study, tmp_path / "bundle", words)
    endpoint = services[0].partition("=")[2]
    with serving(str(tmp_path / "bundle"), tracking, tmp_path / "state", at_once=1, waiting=1, timeout=1.0) as url:
        fault(endpoint, "slow_first_token")
        with ThreadPoolExecutor(6) as pool:
            asked = [
                pool.submit(httpx.post, f"{url}/v1/chat/completions", json=ASKED, headers=HEADERS, timeout=30)
                for _ in range(6)
            ]
            told = Counter(each.result().status_code for each in asked)
        fault(endpoint, "none")
        assert told[504] >= 1
        assert told[503] >= 4
        # Whoever was given up is told of all the same, once the model has ended.
        _wait_for(tmp_path / "state", "select count(*) from entries", told[504])
        refused = [each.result() for each in asked if each.result().status_code == 503]
        assert all(each.headers["retry-after"] == "1" for each in refused)
        assert httpx.get(f"{url}/health").status_code == 200


BODIES = {
    "empty": b"",
    "no JSON": b"hello",
    "100,000 brackets": b"[" * 100_000,
    "deep": b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "UTF-16": json.dumps(ASKED).encode("utf-16"),
    "broken UTF-8": b'{"messages":[{"role":"user","content":"\xff"}]}',
    "half a surrogate": b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    "a list": b"[1]",
    "huge number": b'{"messages":[{"role":"user","content":"hi"}],"n":' + b"9" * 5_000 + b"}",
    "no messages": b"{}",
    "2,000 messages": json.dumps({"messages": ASKED["messages"] * 2_000}).encode(),
    "unknown role": b'{"messages":[{"role":"root","content":"hi"}]}',
    "a number": b'{"messages":[{"role":"user","content":5}]}',
    "an image": b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}',
    "nobody asks": b'{"messages":[{"role":"assistant","content":"hi"}]}',
    "spaces": b'{"messages":[{"role":"user","content":"  "}]}',
    "too long": json.dumps({"messages": [{"role": "user", "content": "a" * 30_000}]}).encode(),
    "too large": b" " * 2_000_000,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_and_nothing_of_it_repeated(client, name) -> None:
    told = client.post("/v1/chat/completions", content=BODIES[name], headers={"content-type": "application/json"})
    assert 400 <= told.status_code < 500
    assert len(told.content) < 400
    assert client.post("/v1/chat/completions", json=ASKED).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}, {"sec-fetch-site": "cross-site"}]
)
def test_without_keys_only_this_machine_s_own_pages_are_answered(
    bundle, tracking, tmp_path, monkeypatch, headers
) -> None:
    monkeypatch.delenv(VARIABLE)
    with serving(bundle, tracking, tmp_path / "state", traces=0.0) as url:
        assert httpx.post(f"{url}/search", json={"query": "owls"}).status_code == 200
        assert httpx.post(f"{url}/search", json={"query": "owls"}, headers=headers).status_code == 403
    # With a key a proxy may stand in front, under a name of its own.
    monkeypatch.setenv(VARIABLE, f"alice:{KEY}")
    with serving(bundle, tracking, tmp_path / "state", traces=0.0) as url:
        assert httpx.post(f"{url}/search", json={"query": "owls"}, headers=headers).status_code == 401
        assert httpx.post(f"{url}/search", json={"query": "owls"}, headers={**headers, **HEADERS}).status_code == 200


def test_what_is_compressed_or_endless_is_refused(client) -> None:
    for headers, status in (({"content-encoding": "gzip"}, 415), ({"x-long": "a" * 20_000}, 431)):
        assert client.post("/search", json={"query": "owls"}, headers=headers).status_code == status


def test_every_answer_says_how_it_is_to_be_read(client) -> None:
    told = client.post("/search", json={"query": "owls"}, headers={"x-request-id": "mine"})
    assert told.headers["x-content-type-options"] == "nosniff"
    assert told.headers["cache-control"] == "no-store"
    # Its own, whatever the client names: a thumb is to find one answer.
    assert told.headers["x-request-id"] == told.json()["id"]
    assert "access-control-allow-origin" not in told.headers
    assert len(client.post("/search", json={"query": "owls", "top_k": 1}).json()["documents"]) == 1
    assert client.get("/nothing").status_code == 404
    assert client.get("/search").status_code == 405


def test_a_canary_answers_its_share_and_each_person_by_one_arm(study, bundle, tracking, tmp_path) -> None:
    bundle_study(study, tmp_path / "other", ["retriever=bm25"])
    with (
        serving(bundle, tracking, tmp_path / "state", canary=str(tmp_path / "other"), share=0.3) as url,
        httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client,
    ):
        arms = {
            user: {client.post("/search", json={"query": "owls", "user": user}).json()["model"] for _ in range(2)}
            for user in map(str, range(100))
        }
        assert client.get("/ready").json()["models"] == {"model": bundle, "canary": str(tmp_path / "other")}
    assert all(len(each) == 1 for each in arms.values())
    assert 5 <= sum(each == {str(tmp_path / "other")} for each in arms.values()) <= 60
    _wait_for(tmp_path / "state", "select count(*) from entries", 200)
    with sqlite3.connect(tmp_path / "state" / "journal.db") as base:
        kept = Counter(json.loads(row)["arm"] for (row,) in base.execute("select record from entries"))
    assert kept["canary"] == 2 * sum(each == {str(tmp_path / "other")} for each in arms.values())


def test_a_thumb_is_on_the_trace_of_its_answer(study, tmp_path) -> None:
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    address = promote_study(study, "thumbed", overrides=["retriever=hybrid"], tracking=tracking).address
    settings = ServerSettings(address, tracking=tracking, state=str(tmp_path / "state"))
    with (
        serving(address, tracking, tmp_path / "state", traces=0.2) as url,
        sending(settings),
        httpx.Client(base_url=url, headers=HEADERS, timeout=30) as asking,
    ):
        for n in range(12):
            told = asking.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": f"owl {n}"}]})
            thumb = {"id": told.json()["id"], "thumb": "up" if n % 2 else "down", "comment": f"owl {n}"}
            asking.post("/feedback", json=thumb).raise_for_status()
        assert asking.post("/feedback", json={"id": "chatcmpl-0", "thumb": "up"}).status_code == 404
        _wait_for(tmp_path / "state", "select count(*) from feedback where sent", 12)
    mlflow = MlflowClient(tracking)
    place = mlflow.get_experiment_by_name(get_experiment(address)).experiment_id
    found = mlflow.search_traces(locations=[place], max_results=100)
    # Sampled or not: what has a thumb is a trace.
    assert len(found) == 12
    for trace in found:
        asked = next(span for span in trace.data.spans if span.parent_id is None).inputs["question"]
        (thumb,) = [each for each in trace.info.assessments if each.name == "thumbs"]
        assert (thumb.rationale, thumb.value) == (asked, int(asked.split()[1]) % 2 == 1)
        assert trace.info.tags["rag_opt.version"] == "models:/thumbed/1"
    # A list of documents is what MLflow's judges find a context in.
    documents = next(span.outputs for span in found[0].data.spans if span.span_type == "RETRIEVER")
    assert documents[0]["page_content"]
    assert documents[0]["metadata"]["doc_uri"]
    # MLflow has them: what was asked is kept nowhere else.
    with sqlite3.connect(tmp_path / "state" / "journal.db") as base:
        assert base.execute("select count(*) from entries where trace is not null and record = ''").fetchone() == (12,)
        assert base.execute("select count(*) from feedback where sent and record = ''").fetchone() == (12,)


def test_no_request_waits_for_mlflow_and_traces_are_sent_when_it_is_back(bundle, tmp_path) -> None:
    away = "http://127.0.0.1:9"
    settings = ServerSettings(bundle, tracking=away, state=str(tmp_path / "state"))
    with (
        serving(bundle, away, tmp_path / "state") as url,
        sending(settings),
        httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client,
    ):
        assert {client.post("/v1/chat/completions", json=ASKED).status_code for _ in range(5)} == {200}
        assert 'rag_opt_errors_total{arm="model"}' not in client.get("/metrics").text
    back = ServerSettings(bundle, tracking=f"sqlite:///{tmp_path}/mlflow.db", state=str(tmp_path / "state"))
    with sending(back):
        _wait_for(tmp_path / "state", "select count(*) from entries where trace is not null", 5)
    mlflow = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    place = mlflow.get_experiment_by_name(get_experiment(bundle)).experiment_id
    assert len(mlflow.search_traces(locations=[place])) == 5


def test_without_traces_nothing_is_kept(bundle, tracking, tmp_path) -> None:
    with serving(bundle, tracking, tmp_path / "state", traces=0.0) as url:
        told = httpx.post(f"{url}/v1/chat/completions", json=ASKED, headers=HEADERS).json()
        feedback = httpx.post(f"{url}/feedback", json={"id": told["id"], "thumb": "up"}, headers=HEADERS)
    assert feedback.status_code == 404
    assert not (tmp_path / "state").exists()


def test_a_person_asks_in_the_page(url) -> None:
    if CHROMIUM is None:
        assert "CI" not in os.environ, "CI needs Debian's package chromium"
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(url)
        page.fill("#question", QUESTION)
        page.keyboard.press("Enter")
        page.wait_for_selector("#status.bad")
        assert "key" in page.inner_text("#status")
        page.fill("#key", KEY)
        page.click("#ask")
        page.wait_for_selector("#thumbs:not([hidden])")
        assert "south" in page.inner_text("#answer")
        assert "winter" in [each.lower() for each in page.locator("#sources mark").all_inner_texts()]
        page.click("[data-thumb=down]")
        page.wait_for_selector("#status:has-text('thank you')")
        assert page.get_attribute("[data-thumb=down]", "aria-pressed") == "true"
        # What a document says is a text, not a part of the page.
        page.route(
            "**/v1/chat/completions", lambda route: route.fulfill(status=500, body='{"error":{"message":"<b>"}}')
        )
        page.click("#ask")
        page.wait_for_selector("#status.bad")
        assert page.inner_text("#status") == "<b>"
        assert not failures
        browser.close()


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_who_was_let_in_is_answered_when_the_service_is_told_to_end(study, tmp_path, workers) -> None:
    place = prepare_model(str(study))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rag_opt.serve", place, "--port", str(port), "--state", str(tmp_path / "state")]
    known = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    with subprocess.Popen([*command, "--workers", workers], env=known, cwd=tmp_path, text=True) as process:
        url, told = f"http://127.0.0.1:{port}", Counter[str]()
        deadline = time.monotonic() + PATIENCE
        while _get_status(f"{url}/ready") != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)

        def ask() -> None:
            try:
                while True:
                    told[str(httpx.post(f"{url}/search", json={"query": "owls"}, headers=HEADERS).status_code)] += 1
            except httpx.TransportError as error:
                told[type(error).__name__] += 1

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(60) in (0, -signal.SIGTERM)
    with sqlite3.connect(tmp_path / "state" / "journal.db") as base:
        answered = base.execute("select count(*) from entries").fetchone()[0]
    assert set(told) <= {"200", "ConnectError", "ReadError", "RemoteProtocolError"}
    # Each question that the service has answered has reached who asked it.
    assert answered == told["200"] > 0


def test_answers_that_take_long_are_given_before_the_service_ends(study, tracking, services, tmp_path) -> None:
    words = [*services, "generator=llm", "llm.model=extractive-1", "retriever=bm25"]
    bundle_study(study, tmp_path / "bundle", words)
    endpoint = services[0].partition("=")[2]
    with ThreadPoolExecutor(2) as pool:
        with serving(str(tmp_path / "bundle"), tracking, tmp_path / "state", at_once=1, timeout=9.0) as url:
            fault(endpoint, "slow_first_token")
            # One is under way, and one waits for its turn.
            asked = [
                pool.submit(httpx.post, f"{url}/v1/chat/completions", json=ASKED, headers=HEADERS, timeout=30)
                for _ in range(2)
            ]
            _wait_for_running(url, 2)
        fault(endpoint, "none")
        assert [each.result().status_code for each in asked] == [200, 200]


def _wait_for_running(url: str, wanted: int) -> None:
    """Until so many questions are under way."""
    deadline = time.monotonic() + 10
    while f"rag_opt_running {wanted}.0" not in httpx.get(f"{url}/metrics", headers=HEADERS).text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _wait_for(state: Path, count: str, wanted: int) -> None:
    """Until a service's journal has so many rows."""
    deadline = time.monotonic() + PATIENCE
    with sqlite3.connect(state / "journal.db") as base:
        while base.execute(count).fetchone()[0] < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _get_status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0


def test_a_study_s_folder_is_served_by_a_bundle_of_its_last_findings(study) -> None:
    place = Path(prepare_model(str(study)))
    made = (place / "bundle.json").stat().st_mtime_ns
    assert Path(prepare_model(str(study))) == place
    assert (place / "bundle.json").stat().st_mtime_ns == made
    os.utime(study / "findings.json")
    prepare_model(str(study))
    assert (place / "bundle.json").stat().st_mtime_ns > made


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"host": "0.0.0.0"}, VARIABLE),
        ({"rate": "often"}, "60/minute"),
        ({"traces": 2.0}, "from 0 to 1"),
    ],
)
def test_what_a_service_can_not_be_told_is_said(given, why, monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=why):
        ServerSettings("models:/x", **given).check()
    for canary in ("models:/x@y", "models:/x@y=2", "models:/x@y=a", "=0.1"):
        with pytest.raises(ConfigError, match="--canary"):
            parse_canary(canary)
