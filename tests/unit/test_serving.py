"""Parts of a service by themselves: keys, arms, turns, the journal, what clients send."""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Span, TraceState
from mlflow.tracing.client import TracingClient
from pydantic import ValidationError

from rag_opt.errors import ConfigError, StoreError
from rag_opt.production.answering import Answer, Source, Spent
from rag_opt.production.registry import Registry
from rag_opt.serving.admission import Admission, RefusedError
from rag_opt.serving.completions import build_annotations, format_completion, stream_completion
from rag_opt.serving.deployment import Arm, Deployment
from rag_opt.serving.journal import THUMBED, WANTED, Entry, Journal
from rag_opt.serving.keys import VARIABLE, Keys
from rag_opt.serving.protocol import ChatCompletion, Response, parse_body
from rag_opt.serving.responses import stream_response
from rag_opt.serving.traces import TraceSender, build_spans, write_trace
from tests.services.model_server import RECORD

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"
SOURCES = tuple(
    Source(name, f"text of {name}", score, 0, 9, about)
    for name, score, about in [("a", 0.9, {"title": "A", "page": "3"}), ("b", 0.8, {}), ("a", 0.7, {"title": "A"})]
)
ANSWER = Answer("an answer", SOURCES, {"retriever": 0.01}, 0.02, Spent(1, 30, 4, 0.001))


@given(st.text(max_size=40))
def test_only_a_known_key_has_a_name(text) -> None:
    keys = Keys(f"one:{FIRST},two:{SECOND}")
    assert keys.identify(text) is None
    assert (keys.identify(FIRST), keys.identify(SECOND)) == ("one", "two")


@pytest.mark.parametrize("given_", ["one", f":{FIRST}", "one:short", f"one:{FIRST},two", "@/nowhere/keys"])
def test_keys_that_can_not_be_read_are_refused_and_not_repeated(given_) -> None:
    with pytest.raises(ConfigError, match=VARIABLE) as refused:
        Keys(given_)
    assert FIRST not in str(refused.value)


def test_a_bad_line_of_a_changed_file_closes_nothing_but_itself(tmp_path, said) -> None:
    place = tmp_path / "keys"
    place.write_text(f"one:{FIRST}\ntwo:{SECOND}\n")
    keys = Keys(f"@{place}")
    place.write_text(f"one:{FIRST}\nbob:short\nno key\n")
    assert (keys.identify(FIRST), keys.identify(SECOND), keys.identify("short")) == ("one", None, None)
    assert len(said()) == 2
    assert keys.identify(FIRST) == "one"
    assert len(said()) == 2


def test_no_key_at_all_lets_everybody_in_and_an_empty_file_nobody(tmp_path) -> None:
    (tmp_path / "keys").write_text("")
    assert not Keys("").needed
    assert Keys(f"@{tmp_path}/keys").needed
    assert Keys(f"@{tmp_path}/keys").identify("") is None


def test_a_canary_gets_its_share_and_nobody_changes_arms() -> None:
    arms = [Arm(name, f"models:/x@{name}", version, None, None) for name, version in (("model", "1"), ("canary", "2"))]
    deployment = Deployment(arms[0], arms[1], 0.1)
    chosen = [deployment.choose(f"user {n}").name for n in range(20_000)]
    # Five standard deviations of 20,000 draws.
    assert abs(chosen.count("canary") - 2_000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert chosen == [deployment.choose(f"user {n}").name for n in range(20_000)]
    # Another canary is for other people.
    other = Deployment(arms[0], Arm("canary", "models:/x@canary", "3", None, None), 0.1)
    both = sum(other.choose(f"user {n}").name == each == "canary" for n, each in enumerate(chosen))
    assert both < 400
    assert {Deployment(arms[0]).choose(f"user {n}").name for n in range(100)} == {"model"}


async def answer(admission: Admission, work, seconds: float):
    """What a service makes of a piece of work."""
    until = time.monotonic() + seconds
    task = await admission.start(work, until)
    try:
        return await asyncio.wait_for(asyncio.shield(task), until - time.monotonic())
    except TimeoutError as error:
        raise RefusedError(504, "no answer") from error


def test_work_that_nobody_waits_for_still_has_its_thread() -> None:
    async def play() -> None:
        admission, ending = Admission(1, 1, None), threading.Event()
        with pytest.raises(RefusedError) as slow:
            await answer(admission, lambda: ending.wait(10), 0.05)
        assert slow.value.status == 504
        waiting = asyncio.create_task(answer(admission, lambda: "done", 5))
        await asyncio.sleep(0.05)
        assert (admission.running, admission.waiting) == (1, 1)
        with pytest.raises(RefusedError) as full:
            await answer(admission, lambda: "never", 5)
        assert (full.value.status, full.value.after) == (503, 1)
        ending.set()
        assert await waiting == "done"
        assert (admission.running, admission.waiting) == (0, 0)
        with pytest.raises(ZeroDivisionError):
            await answer(admission, lambda: 1 // 0, 5)
        assert admission.running == 0

    asyncio.run(play())


def test_one_whose_turn_does_not_come_is_told() -> None:
    async def play() -> None:
        admission, ending = Admission(1, 5, None), threading.Event()
        first = await admission.start(lambda: ending.wait(10), time.monotonic() + 1)
        with pytest.raises(RefusedError) as late:
            await admission.start(lambda: None, time.monotonic() + 0.05)
        assert late.value.status == 503
        assert admission.waiting == 0
        ending.set()
        await first

    asyncio.run(play())


def test_annotations_name_each_document_once_the_best_first() -> None:
    cited = [each["url_citation"] for each in build_annotations(ANSWER)]
    assert [(each["url"], each["title"]) for each in cited] == [("a", "A, page 3"), ("b", "b")]
    told = format_completion(ANSWER, "n", "m")
    assert told["usage"] == {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    assert [each["score"] for each in told["documents"]] == [0.9, 0.8, 0.7]


async def _pieces():
    for piece in ("an ", "answer\n\n"):
        yield piece
    yield ANSWER


def test_each_event_is_one_whole_even_where_the_text_has_blank_lines() -> None:
    async def collect(events) -> list[str]:
        return [event async for event in events]

    for events in (stream_completion(_pieces(), "n", "m", usage=True), stream_response(_pieces(), "n", "m")):
        for event in asyncio.run(collect(events)):
            assert event.endswith("\n\n")
            assert "\n\n" not in event[:-2]
            data = event.rpartition("data: ")[2]
            assert data.strip() == "[DONE]" or json.loads(data)


def refuse(kind, body: bytes) -> RefusedError | None:
    """Why a body is no request with a question; None where it is one."""
    try:
        assert parse_body(kind, body).question
    except RefusedError as error:
        return error
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(body) -> None:
    for kind in (ChatCompletion, Response):
        why = refuse(kind, body)
        assert why is None or (why.status == 400 and len(str(why)) < 300)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_a_request_or_refused(value) -> None:
    for kind, field in ((ChatCompletion, "messages"), (Response, "input")):
        why = refuse(kind, json.dumps({field: value}).encode())
        assert why is None or why.status == 400


def entry(name: str, *, wanted: bool = True, question: str = "why?") -> Entry:
    return Entry(name, time.time(), wanted, {"question": question})


def test_a_journal_keeps_what_was_handed_over_until_it_is_sent(tmp_path) -> None:
    journal = Journal(tmp_path)
    for n in range(500):
        journal.keep(entry(str(n), wanted=n % 2 == 0))
    assert journal.add_feedback("1", {"thumb": "up"})
    assert not journal.add_feedback("never", {"thumb": "up"})
    journal.close()
    # As another process, or the next start, finds it.
    again = Journal(tmp_path)
    found = dict(again.find_unsent())
    assert len(found) == 200
    assert again.count_unsent() == 250
    assert not again.find_feedback()
    for name in [*found, *map(str, range(0, 500, 2)), "1"]:
        again.mark_sent(name, f"tr-{name}")
    assert again.count_unsent() == 0
    ((number, trace, record),) = again.find_feedback()
    assert (trace, record) == ("tr-1", {"thumb": "up"})
    again.mark_feedback_sent(number)
    assert not again.find_feedback()
    again.close()


def test_looking_for_what_is_unsent_reads_no_record_that_was_sent(tmp_path) -> None:
    """The sender looks every second, and a month of sent records is kept."""
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.db") as base:
        for query in (WANTED, THUMBED):
            steps = [row[3] for row in base.execute(f"explain query plan {query}", (1,))]
            assert not any(step.startswith("SCAN entries") and "INDEX unsent" not in step for step in steps), steps


def test_what_becomes_no_trace_takes_its_thumbs_along(tmp_path, monkeypatch) -> None:
    journal, sender = Journal(tmp_path), Journal(tmp_path)
    journal.keep(entry("given-up", wanted=False))
    assert journal.add_feedback("given-up", {"thumb": "up", "comment": "what I think of it"})
    journal.close()
    sender.drop("given-up")
    assert not journal.add_feedback("given-up", {"thumb": "down"})
    assert not read_thumbs(tmp_path)
    monkeypatch.setattr(journal, "_queue", queue.Queue(1))
    journal.keep(entry("in-time", wanted=False))
    journal.keep(entry("too-late", wanted=False))
    assert journal.lost == 1
    assert journal.add_feedback("in-time", {"thumb": "up"})
    assert not journal.add_feedback("too-late", {"thumb": "up"}), "nothing will ever be there for it"
    # The process ends before the record of the other is written.
    assert read_thumbs(tmp_path) == ["in-time"]
    Journal(tmp_path)
    assert not read_thumbs(tmp_path)


def test_a_thumb_keeps_its_record_through_an_outage_of_days(tmp_path) -> None:
    journal = Journal(tmp_path)
    journal.keep(Entry("old", time.time() - 100_000, False, {"question": "who?"}))
    assert journal.add_feedback("old", {"thumb": "down"})
    journal.close()
    journal.prune()
    assert [name for name, _ in Journal(tmp_path).find_unsent()] == ["old"]


def read_thumbs(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "journal.db") as base:
        return [name for (name,) in base.execute("select id from feedback")]


def test_what_nobody_asks_for_is_forgotten_and_secrets_are_never_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "planted-0123456789")
    journal = Journal(tmp_path)
    journal.keep(Entry("old", time.time() - 100_000, False, {"question": "who?"}))
    journal.keep(entry("new", wanted=False, question="is planted-0123456789 a key?"))
    journal.close()
    journal.prune()
    with sqlite3.connect(tmp_path / "journal.db") as base:
        rows = base.execute("select id, record from entries").fetchall()
    assert [name for name, _ in rows] == ["new"]
    assert "planted" not in rows[0][1]


@pytest.mark.parametrize(
    "question", ['what is https://x/?token="abc" for', 'a\\"b', "\u2028 \ud7ff", "password=x&key='y'"]
)
def test_any_question_is_read_again_as_it_was_written(tmp_path, question) -> None:
    journal = Journal(tmp_path)
    journal.keep(entry("a" * 32, question=question))
    journal.keep(entry("b" * 32))
    journal.close()
    found = dict(Journal(tmp_path).find_unsent())
    assert found["b" * 32] == {"question": "why?"}
    # A secret in it is hidden; the rest is what was asked.
    assert found["a" * 32]["question"].startswith(question[:8])


def test_people_are_hashed_with_what_only_the_service_knows(tmp_path) -> None:
    first, again, other = Journal(tmp_path / "a"), Journal(tmp_path / "a"), Journal(tmp_path / "b")
    assert first.hash_user("address 10.1.2.3") == again.hash_user("address 10.1.2.3")
    assert first.hash_user("address 10.1.2.3") != other.hash_user("address 10.1.2.3")
    assert first.hash_user("") == ""


def test_a_journal_that_can_not_be_kept_is_said_before_the_service_starts(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--state"):
        Journal(tmp_path / "file" / "state")
    (tmp_path / "journal.db").write_text("no database" * 1000)
    with pytest.raises(StoreError, match="--state"):
        Journal(Path(tmp_path))


def test_a_trace_that_was_half_written_is_written_over(tmp_path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client, mlflow = TracingClient(uri), MlflowClient(uri)
    place, name = mlflow.create_experiment("served"), "0123456789abcdef" * 2
    first = next(build_spans(f"tr-{name}", RECORD))
    client.log_spans(place, [Span.from_dict(first)])
    for _ in range(2):
        assert write_trace(client, place, name, RECORD) == f"tr-{name}"
    (found,) = mlflow.search_traces(locations=[place])
    assert (found.info.state, found.info.client_request_id) == (TraceState.OK, name)
    assert found.info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert [span.name for span in found.data.spans if span.parent_id is None] == ["question"]
    assert sorted(span.name for span in found.data.spans) == ["question", "retriever", "sources"]
    failed = {**RECORD, "error": "ComponentError: away", "sources": []}
    write_trace(client, place, name[::-1], failed)
    assert mlflow.get_trace(f"tr-{name[::-1]}").info.state == TraceState.ERROR


def test_what_can_not_be_sent_holds_up_nothing_else(tmp_path, said) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry, journal = Registry(uri, MlflowClient(uri)), Journal(tmp_path)
    names = [f"{n:032x}" for n in range(3)]
    journal.keep(Entry(names[0], time.time(), True, {"question": "no record"}))
    for name in names[1:]:
        journal.keep(Entry(name, time.time(), True, RECORD))
    journal.close()
    sender = TraceSender(Journal(tmp_path), registry, "served")
    assert sender.try_send() == 3
    assert "becomes no trace" in said()[0]
    place = registry.client.get_experiment_by_name("served").experiment_id
    registry.client.delete_traces(place, trace_ids=[f"tr-{names[1]}"])
    for name in names[1:]:
        assert sender.journal.add_feedback(name, {"thumb": "up", "comment": "", "who": "me"})
    assert [sender.try_send(), sender.try_send()] == [2, 0]
    (left,) = registry.client.search_traces(locations=[place])
    assert [each.value for each in left.info.assessments] == [True]


def test_a_picture_in_a_conversation_is_read_over(tmp_path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    said = [
        {"role": "user", "content": [picture, {"type": "text", "text": "what is that?"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "and this?"}, picture]},
    ]
    assert parse_body(ChatCompletion, json.dumps({"messages": said}).encode()).question == "and this?"
    items = [{"role": "user", "content": "why?"}, {"type": "function_call", "name": "f", "arguments": "{}"}]
    assert parse_body(Response, json.dumps({"input": items}).encode()).question == "why?"


def test_of_many_mistakes_one_is_told() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": [5] * 100_000}]}).encode()
    with pytest.raises(RefusedError) as refused:
        parse_body(ChatCompletion, body)
    cause = refused.value.__cause__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() < 10


def test_a_thumb_has_one_answer_and_an_outage_is_said_once(tmp_path, said, monkeypatch) -> None:
    # MLflow waits for two seconds before it tries again.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    journal = Journal(tmp_path)
    journal.keep(Entry("0" * 32, time.time(), True, RECORD))
    journal.close()
    away = TraceSender(Journal(tmp_path), Registry("http://127.0.0.1:9", MlflowClient("http://127.0.0.1:9")), "served")
    assert [away.try_send() for _ in range(3)] == [None] * 3
    assert len([line for line in said() if "MLflow takes no traces" in line]) == 1
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    back = TraceSender(Journal(tmp_path), Registry(uri, MlflowClient(uri)), "served")
    assert [back.try_send() for _ in range(2)] == [1, 0]
