"""Endpoints that refuse a parameter by name, and answers in other forms than OpenAI's: asked by the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rag_opt.cache.store import Store
from rag_opt.components.llm.chat import CallError
from rag_opt.components.llm.completions import format_error, parse_completion
from rag_opt.components.llm.endpoint import OpenAIChat
from rag_opt.components.llm.parameters import AS_THEY_ARE, Accepted, check_parameters, find_refused
from rag_opt.components.llm.request import Request
from rag_opt.components.resources import Resources
from tests.services import counts, fault, reset
from tests.services.openai_server import DRESSES, REFUSALS
from tests.unit.scripted import request

SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer"}, "reason": {"type": "string"}},
    "required": ["score", "reason"],
}
JUDGED = '<question>Who?</question><answer>Ada</answer><reference>Ada</reference> As JSON: {"score": …, "reason": …}'
LEARNT: dict[str, dict[str, str | None]] = {
    "o1_mini": {"system": None},
    "o_series": {"max_tokens": "max_completion_tokens", "temperature": None},
    "gpt5": {"max_tokens": "max_completion_tokens", "temperature": None, "top_p": None},
    "mistral": {"seed": None},
    "deepseek": {"response_format": "json_object"},
    "old_vllm": {"response_format": None},
    "old_llama_cpp": {"response_format": "json_object"},
    "tgi": {"temperature": None},
    "gemini": {"seed": None},
}


def chat(url: str, **options: Any) -> OpenAIChat:
    given = {"base_url": url, "key": None, "timeout": 5.0, "tries": 1, "at_once": 4, "prices": {}}
    made = OpenAIChat(**given | options)
    made.use(Resources.from_store(Store()))
    return made


@pytest.fixture
def server(endpoint: str) -> Iterator[str]:
    reset(endpoint)
    yield endpoint
    fault(endpoint, "none")


def judged() -> Request:
    return replace(request(JUDGED, schema=SCHEMA), messages=(("system", "You grade."), ("user", JUDGED)))


@pytest.mark.parametrize("mode", REFUSALS)
def test_what_is_refused_by_name_is_left_out_or_renamed_and_said_once(server: str, said, mode: str) -> None:
    fault(server, mode)
    made = chat(server)
    talks = made.map_items("judge", lambda talk, one: talk.ask_json(one, lambda found: found["score"]), [judged()])
    assert talks.results == [5]
    assert talks.usage.calls.tolist() == [1], "a refusal is no try"
    assert made.get_reply(request("one two three"), "generator").text == "three two one"
    lines = said()
    assert len(lines) == len(LEARNT[mode]) + (mode == "old_vllm"), "json_object is tried between"
    assert all(line.startswith("llm: model at 127.0.0.1 takes no ") for line in lines)
    for name, to in LEARNT[mode].items():
        assert any(f"llm.parameters.{name}={to or 'null'}" in line for line in lines)
    before = counts(server)["chat"]
    made.get_reply(request("four five"), "generator")
    assert counts(server)["chat"] == before + 1, "what was learnt is remembered"


@pytest.mark.parametrize("mode", REFUSALS)
def test_parameters_say_it_from_the_start_and_find_the_same_replies(server: str, said, mode: str) -> None:
    fault(server, mode)
    learning = chat(server)
    learning.get_reply(judged(), "judge")
    lines = len(said())
    reset(server)
    knowing = chat(server, parameters=LEARNT[mode])
    knowing.use(Resources.from_store(Store()))
    assert knowing.get_reply(judged(), "judge").text == learning.get_reply(judged(), "judge").text
    assert counts(server)["chat"] == 1
    assert len(said()) == lines
    assert knowing.fingerprint == learning.fingerprint


@pytest.mark.parametrize("mode", DRESSES)
@pytest.mark.parametrize("stream", [False, True])
def test_however_an_answer_is_dressed_it_is_read(server: str, mode: str, stream: bool) -> None:
    fault(server, mode)
    made = chat(server)
    shown: list[str] = []
    if mode != "fenced":
        found = made.get_reply(request("one two three"), "generator", shown.append if stream else None)
        assert found.text == "three two one"
        if stream and mode != "think_unopened":  # whose stream shows what turns out to be thinking at its end alone
            assert "".join(shown) == "three two one"
    talks = made.map_items("judge", lambda talk, one: talk.ask_json(one, lambda found: found["score"]), [judged()])
    assert talks.results == [5]
    assert talks.usage.broken.tolist() == [0]


def test_streams_learn_too(server: str, said) -> None:
    fault(server, "mistral")
    shown: list[str] = []
    assert chat(server).stream_reply(request("one two"), shown.append).text == "".join(shown) == "two one"
    assert len(said()) == 2


def test_what_many_threads_learn_is_said_once(server: str, said) -> None:
    fault(server, "gpt5")
    texts = [f"one {place}" for place in range(8)]
    talks = chat(server, at_once=8).map_items("generator", lambda talk, text: talk.ask(request(text)), texts)
    assert talks.results == [f"{place} one" for place in range(8)]
    assert len(said()) == 3


@pytest.mark.parametrize("status", [400, 422, 404])
@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 512 tokens. However, you requested 700 tokens. Reduce max_tokens.",
        "'max_tokens' or 'max_completion_tokens' is too large: 5000.",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
        "The request is not valid.",
        "The model `temperate` does not exist",
    ],
)
def test_other_errors_refuse_nothing(status: int, message: str) -> None:
    body = {"error": {"message": message, "param": None, "code": status}}
    accepted = Accepted.from_config({})
    assert (
        accepted.learn(
            body, accepted.translate_values({"max_tokens": 5, "temperature": 0}), {"max_tokens": 5, "temperature": 0}
        )
        is None
    )
    assert accepted.names == AS_THEY_ARE


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]}, "top_p"),
        ({"error": "`seed` is not supported"}, "seed"),
        ({"error": {"message": "Argument not supported on this model: maxTokens"}}, "max_tokens"),
        ({"error": {"message": "This model does not support response format `json_schema`."}}, "response_format"),
        ({"error": {"message": "`temperature` and `top_p` cannot both be specified for this model."}}, "top_p"),
        ({"error": {"message": "Unsupported value", "param": "messages[0].role"}}, "system"),
        ({"message": "System role not supported"}, "system"),
        ({"error": {"message": "Unsupported file system", "param": "messages"}}, None),
        ({"error": {"message": "Unknown parameter: 'temperature'", "param": "temperature"}}, "temperature"),
        ("unexpected keyword seed", "seed"),
        ({"error": {"message": "'messages' must contain the word 'json' to use 'response_format' of type 'json_object'."}}, "response_format"),
        ({"error": {"message": "Invalid schema for response_format 'reply': 'minItems' is not permitted."}}, "response_format"),
        ({"object": "error", "message": "top_p must be 1 when using greedy sampling."}, "top_p"),
        (["x"], None),
        (None, None),
    ],
)  # fmt: skip
def test_how_servers_name_what_they_refuse(body: Any, name: str | None) -> None:
    assert find_refused(body, set(AS_THEY_ARE)) == name


def test_a_refusal_without_end_is_a_failed_call() -> None:
    accepted, values = Accepted.from_config({}), {"max_tokens": 5}
    body = {"error": {"message": "max_tokens and max_completion_tokens are not supported"}}
    assert "max_completion_tokens" in accepted.learn(body, accepted.translate_values(values), values)
    assert "left out" in accepted.learn(body, accepted.translate_values(values), values)
    assert accepted.translate_values(values) == {}
    assert accepted.learn(body, accepted.translate_values(values), values) is None


@pytest.mark.parametrize(
    "given",
    [{"top_k": None}, {"seed": 5}, {"seed": "a b"}, {"response_format": "xml"}, ["seed"], {"max_tokens": ""}],
)
def test_parameters_that_can_not_be_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"llm\.parameters"):
        check_parameters(given)


def test_the_body_of_a_refusal_is_told_without_secrets(server: str, monkeypatch) -> None:
    monkeypatch.setenv("RAG_OPT_TEST_KEY", "canary-7f3a91c2")
    fault(server, "echo")
    with pytest.raises(CallError, match="HTTP 400: These headers are not valid: Authorization: Bearer •••") as caught:
        chat(server, key="RAG_OPT_TEST_KEY").call_model(request("a"))
    assert caught.value.status == 400
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "No."}}, "No."),
        ({"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra"}]}}, "body.seed: Extra"),
        ({"detail": "Not Found"}, "Not Found"),
        ([{"error": {"message": "No."}}], "No."),
        ({"code": 7}, '{"code": 7}'),
        ("<html>\n<h1>Bad gateway</h1>", "<html> <h1>Bad gateway</h1>"),
        ("x" * 10_000, "x" * 500),
    ],
)
def test_what_an_error_says_wherever_it_stands(body: Any, text: str) -> None:
    assert format_error(body) == text


def test_an_answer_cut_off_in_json_is_a_text_and_what_was_all_thought_is_said(server: str) -> None:
    body = {"choices": [{"message": {"content": "", "reasoning_content": "hm"}, "finish_reason": "length"}]}
    assert parse_completion(json.loads(json.dumps(body))).finish == "length"
    fault(server, "length")
    found = chat(server).call_model(judged())
    assert found.text.startswith('{"score"')


def test_room_to_think_is_added_to_max_tokens_and_makes_other_replies(server: str) -> None:
    made = chat(server, thinking=1000)
    assert made.fingerprint != chat(server).fingerprint
    from rag_opt.components.llm.parameters import build_parameters

    assert build_parameters(request("a"), 1000, stream=False)["max_tokens"] == 1256


def test_a_server_that_knows_no_streams_is_asked_for_the_whole(server: str) -> None:
    fault(server, "unstreamed")
    shown: list[str] = []
    assert chat(server).stream_reply(request("one two"), shown.append).text == "".join(shown) == "two one"
    assert counts(server)["chat"] == 3
