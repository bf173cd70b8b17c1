"""An OpenAI-compatible server with a deterministic model, and with the faults that real providers show."""

import argparse
import base64
import hashlib
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Run as a script, only this folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.services import extractive_model as model
from tests.services.serving import (
    JSON_TYPE,
    NO_FAULT,
    Counts,
    FaultSwitch,
    RequestError,
    ServiceHandler,
    ServiceServer,
    serve,
)

Json = dict[str, Any]

MODELS = ("extractive-1", "hashed-words-1")
CREATED = 1_700_000_000
DIMENSIONS = 256
HANG_SECONDS = 120.0
SLOW_SECONDS = 2.0
STREAM_TYPE = "text/event-stream"
HTML = b"<html><head><title>Gateway</title></head><body><h1>Something is in the way</h1></body></html>"
REFUSAL = "I'm sorry, I can't help with that."


@dataclass(frozen=True)
class Failure:
    """An answer with an error status."""

    status: int
    code: str
    message: str
    retry_after: str | None = None


FAILURES = {
    "rate_limit": Failure(429, "rate_limit_exceeded", "Rate limit reached.", "1"),
    "rate_limit_long": Failure(429, "insufficient_quota", "You exceeded your current quota.", "3600"),
    "server_error": Failure(500, "server_error", "The server had an error."),
    "unauthorized": Failure(401, "invalid_api_key", "Incorrect API key provided: {key}"),
    "not_found": Failure(404, "model_not_found", "The model does not exist or you do not have access to it."),
    "echo": Failure(400, "invalid_request", "These headers are not valid: Authorization: {key}"),
    "bad_request": Failure(400, "invalid_request", "The request is not valid."),
}
NO_MAX_TOKENS = Failure(
    400,
    "unsupported_parameter",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
)
ONLY_THE_DEFAULT = Failure(
    400,
    "unsupported_value",
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
)
EXTRA = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}


def refusal(mode: str, request: Json) -> tuple[int, Any] | None:  # noqa: C901, PLR0911 (one a kind of server)
    """Status and body with which a server of this kind refuses a request; None where it takes it."""
    form = (request.get("response_format") or {}).get("type")
    match mode:
        case "o1_mini" if request["messages"][0]["role"] == "system":
            told = "Unsupported value: 'messages[0].role' does not support 'system' with this model."
            return openai_error(Failure(400, "unsupported_value", told), "messages[0].role")
        case "o_series" | "gpt5" if "max_tokens" in request:
            return openai_error(NO_MAX_TOKENS, "max_tokens")
        case "o_series" | "gpt5" if request.get("temperature", 1) != 1:
            return openai_error(ONLY_THE_DEFAULT, "temperature")
        case "gpt5" if "top_p" in request:
            unsupported = "Unsupported parameter: 'top_p' is not supported with this model."
            return openai_error(Failure(400, "unsupported_parameter", unsupported), "top_p")
        case "mistral" if "seed" in request or "stream_options" in request:
            name = "seed" if "seed" in request else "stream_options"
            detail = [{**EXTRA, "loc": ["body", name], "input": request[name]}]
            return 422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}
        case "deepseek" if form == "json_schema":
            return openai_error(Failure(400, "invalid_request_error", "This response_format type is unavailable now"))
        case "old_vllm" if form:
            told = f"[{{'type': 'extra_forbidden', 'loc': ('body', 'response_format'), 'msg': '{EXTRA['msg']}'}}]"
            return 400, {"object": "error", "message": told, "type": "BadRequestError", "param": None, "code": 400}
        case "old_llama_cpp" if form == "json_schema":
            told = 'response_format type must be one of "text" or "json_object", but got: json_schema'
            return 500, {"error": {"code": 500, "message": told, "type": "server_error"}}
        case "tgi" if request.get("temperature") == 0:
            told = "Input validation error: `temperature` must be strictly positive"
            return 422, {"error": told, "error_type": "validation"}
        case "gemini" if "seed" in request:
            told = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
            return 404, [{"error": {"code": 404, "message": told, "status": "INVALID_ARGUMENT"}}]
    return None


def openai_error(failure: Failure, param: str | None = None) -> tuple[int, Any]:
    error = {"message": failure.message, "type": "invalid_request_error", "param": param, "code": failure.code}
    return failure.status, {"error": error}


REFUSALS = ("o1_mini", "o_series", "gpt5", "mistral", "deepseek", "old_vllm", "old_llama_cpp", "tgi", "gemini")
DRESSES = ("think", "think_unopened", "reasoning", "parts", "no_finish", "fenced")
MODES = (*REFUSALS, *DRESSES, "unstreamed")
"""How servers differ that work well: none of these is a fault."""


WORDS_AROUND = {
    "think": '<think>\nI weigh {{this}} and "score".\n</think>\n\n{}',
    "think_unopened": "It must be {{that}}.\n</think>\n\n{}",
    "fenced": "Here {{as asked}}:\n```json\n{}\n```\nI hope {{this}} helps.",
}


def dressed(mode: str, message: Json, choice: Json) -> None:
    """Write a choice, or a piece of one, as a server of this kind does."""
    match mode:
        case "reasoning":
            message["reasoning_content"] = "It must be that."
        case "parts" if message.get("content"):
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
            message["content"] = [thought, {"type": "text", "text": message["content"]}]
        case "no_finish":
            choice["finish_reason"] = None


ERROR_BODY = {"error": {"message": "The upstream provider failed.", "type": "server_error", "code": "upstream"}}
# Bodies with status 200 that hold no completion.
ODD_BODIES = {
    "invalid_json": b"{not json",
    "wrong_schema": b'{"result": "ok"}',
    "error_body_200": json.dumps(ERROR_BODY).encode(),
}
OTHER_FAULTS = (
    "bad_gateway hang cut_stream reset html_200 empty_choices null_content empty_text garbage_json_content "
    "out_of_range slow_first_token refusal length no_usage"
)
FAULTS = (*FAILURES, *ODD_BODIES, *OTHER_FAULTS.split())


@dataclass(frozen=True)
class Completion:
    """What the model generated for one request."""

    content: str | None
    finish_reason: str
    prompt_tokens: int
    refusal: str | None = None

    @property
    def parts(self) -> list[str]:
        return model.pieces(self.content or "")

    @property
    def usage(self) -> dict[str, int]:
        generated = len(self.parts) + len(model.pieces(self.refusal or ""))
        total = self.prompt_tokens + generated
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": generated, "total_tokens": total}


def complete(request: Json, fault: str) -> Completion:
    if fault == "old_vllm" and "As JSON" in model.last_user_text(request):
        # What its model is told by the prompt alone.
        request = {**request, "response_format": {"type": "json_object"}}
    said = model.reply(request, out_of_range=fault == "out_of_range")
    parts = model.pieces(WORDS_AROUND[fault].format(said) if fault in WORDS_AROUND else said)
    limit = request.get("max_completion_tokens") or request.get("max_tokens") or len(parts)
    if fault == "length":
        limit = min(limit, max(len(parts) // 2, 1))
    reason = "length" if fault == "length" or limit < len(parts) else "stop"
    whole = Completion("".join(parts[:limit]), reason, model.prompt_tokens(request["messages"]))
    match fault:
        case "null_content":
            return replace(whole, content=None)
        case "empty_text":
            return replace(whole, content="")
        case "garbage_json_content":
            return replace(whole, content='{"score": 5')
        case "refusal":
            return replace(whole, content=None, refusal=REFUSAL)
    return whole


def check(request: Json) -> None:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(entry, dict) for entry in messages):
        raise RequestError("messages must be a list of at least one message")
    if not isinstance(request.get("model"), str):
        raise RequestError("you must provide a model parameter")


def envelope(request: Json, kind: str) -> Json:
    name = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=8).hexdigest()
    return {"id": f"chatcmpl-{name}", "object": kind, "created": CREATED, "model": request["model"]}


def response(request: Json, done: Completion, fault: str) -> Json:
    message = {"role": "assistant", "content": done.content, "refusal": done.refusal}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": done.finish_reason}
    dressed(fault, message, choice)
    whole = {**envelope(request, "chat.completion"), "choices": [choice], "usage": done.usage}
    if fault == "empty_choices":
        whole["choices"] = []
    if fault in {"empty_choices", "no_usage"}:
        del whole["usage"]
    return whole


def deltas(done: Completion) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if done.content is None else ""}
    for part in done.parts:
        yield {"content": part}
    for part in model.pieces(done.refusal or ""):
        yield {"refusal": part}


def event(data: Json) -> bytes:
    return b"data: %s\n\n" % json.dumps(data).encode()


class OpenAIServer(ServiceServer):
    """The server, with the pace at which its model generates (0: at once)."""

    tokens_per_second: float = 0.0


class OpenAIHandler(ServiceHandler):
    server: OpenAIServer

    def answer(self, method: str, path: str) -> None:
        counts = self.server.counts
        counts.add(requests=1)
        if self.headers.get("Authorization"):
            counts.see_authorization()
        match method, path:
            case "GET", "/v1/models":
                known = [{"id": name, "object": "model", "created": CREATED, "owned_by": "tests"} for name in MODELS]
                self.send_json({"object": "list", "data": known})
            case "POST", "/v1/embeddings":
                self._embed(self.payload())
            case "POST", "/v1/chat/completions":
                counts.add(chat=1)
                self._chat(self.payload())
            case _:
                self._fail(Failure(404, "unknown_url", f"Unknown request URL: {method} {path}"))

    def _chat(self, request: Json) -> None:
        check(request)
        fault = self.server.faults.take(json.dumps(request, sort_keys=True))
        if fault != NO_FAULT:
            self.server.counts.add(faults=1)
        if refused := refusal(fault, request):
            self.send_json(refused[1], refused[0])
        elif fault in FAILURES:
            self._fail(FAILURES[fault])
        elif fault in ODD_BODIES:
            self._send_odd_body(ODD_BODIES[fault], bool(request.get("stream")))
        elif fault in {"html_200", "bad_gateway"}:
            self.send_body(HTML, "text/html", 200 if fault == "html_200" else 502)
        elif fault == "reset":
            self.drop()
        elif fault != "hang" or self.wait(HANG_SECONDS):
            done = complete(request, fault)
            stream = request.get("stream") and fault != "unstreamed"
            (self._stream if stream else self._send_whole)(request, done, fault)

    def _fail(self, failure: Failure) -> None:
        message = failure.message.replace("{key}", self.headers.get("Authorization", ""))
        error = {"message": message, "type": failure.code, "param": None, "code": failure.code}
        headers = {"Retry_After": failure.retry_after} if failure.retry_after else {}
        self.send_json({"error": error}, failure.status, **headers)

    def _send_odd_body(self, body: bytes, stream: bool) -> None:
        if stream:
            self.send_body(b"data: %s\n\n" % body, STREAM_TYPE)
        else:
            self.send_body(body, JSON_TYPE)

    def _send_whole(self, request: Json, done: Completion, fault: str) -> None:
        generated = done.usage["completion_tokens"] * self._token_seconds()
        if not self.wait(generated + (SLOW_SECONDS if fault == "slow_first_token" else 0.0)):
            return
        body = response(request, done, fault)
        if fault == "cut_stream":
            self.send_cut_body(json.dumps(body).encode(), JSON_TYPE)
            return
        self._charge(done, fault)
        self.send_json(body)

    def _stream(self, request: Json, done: Completion, fault: str) -> None:
        start = envelope(request, "chat.completion.chunk")
        with_usage = bool((request.get("stream_options") or {}).get("include_usage")) and fault != "no_usage"
        if with_usage:
            start["usage"] = None
        self.start_chunks(STREAM_TYPE)
        if not self._stream_deltas(start, done, fault):
            return
        # Counted before the last events: a client that has them may ask for the counts at once.
        self._charge(done, fault)
        if fault != "empty_choices":
            last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": done.finish_reason}
            self.send_chunk(event({**start, "choices": [last]}))
            if with_usage:
                self.send_chunk(event({**start, "choices": [], "usage": done.usage}))
        self.send_chunk(b"data: [DONE]\n\n")
        self.send_chunk(b"")

    def _stream_deltas(self, start: Json, done: Completion, fault: str) -> bool:
        """Send what was generated; says whether the stream goes on."""
        if fault == "empty_choices":
            self.send_chunk(event({**start, "choices": []}))
            return True
        every = list(deltas(done))
        sent = every[: 1 + len(every) // 2] if fault == "cut_stream" else every
        for position, delta in enumerate(sent):
            if position == 1 and fault == "slow_first_token" and not self.wait(SLOW_SECONDS):
                return False
            if position and not self.wait(self._token_seconds()):
                return False
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            dressed(fault, delta, choice)
            self.send_chunk(event({**start, "choices": [choice]}))
        self.close_connection = fault == "cut_stream"
        return fault != "cut_stream"

    def _token_seconds(self) -> float:
        return 1 / self.server.tokens_per_second if self.server.tokens_per_second else 0.0

    def _charge(self, done: Completion, fault: str) -> None:
        if fault == "empty_choices":
            return
        usage = done.usage
        self.server.counts.add(
            paid=1, prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"]
        )

    def _embed(self, request: Json) -> None:
        given = request.get("input")
        if not given or not isinstance(given, str | list):
            raise RequestError("input must be a text or a list of texts")
        texts = embedded_texts(given)
        vectors = [model.embedding(text, int(request.get("dimensions") or DIMENSIONS)) for text in texts]
        tokens = sum(len(model.pieces(text)) for text in texts)
        self.server.counts.add(embeddings=1, embedding_tokens=tokens)
        in_bytes = request.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": packed(vector) if in_bytes else vector}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.send_json({"object": "list", "data": data, "model": request.get("model"), "usage": usage})


def embedded_texts(given: str | list[Any]) -> list[str]:
    """The texts of an embedding request; a list of numbers is one text as token ids, a list of lists several."""
    several = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    return [text if isinstance(text, str) else " ".join(map(str, text)) for text in several]


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=(NO_FAULT, *FAULTS, *MODES), default=NO_FAULT)
    parser.add_argument("--every", type=int, default=1, help="apply the fault to each N-th chat request")
    parser.add_argument("--heal", action="store_true", help="apply it only the first time a request body is seen")
    parser.add_argument("--tokens-per-second", type=float, default=0.0, help="pace of the model; 0: at once")
    options = parser.parse_args()
    names = "requests chat embeddings faults prompt_tokens completion_tokens embedding_tokens paid"
    server = OpenAIServer(OpenAIHandler, Counts(*names.split()), FaultSwitch((*FAULTS, *MODES)))
    server.faults.choose(options.fault, options.every, options.heal)
    server.tokens_per_second = options.tokens_per_second
    serve(server, "/v1")


if __name__ == "__main__":
    main()
