"""A language model that says what a test tells it to, and what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rag_opt.cache.store import Store
from rag_opt.components.llm.chat import CallError, Chat
from rag_opt.components.llm.request import Request, Sampling
from rag_opt.components.resources import Resources
from rag_opt.llm.replies import Reply

Said = str | Exception | Reply | None
IN, OUT, SECONDS = 10, 5, 0.5
"""What every reply of a script costs."""

FAILS = CallError("no connection")
PROMPTS = Path(__file__).resolve().parents[2] / "conf" / "prompt"


class Scripted(Chat):
    """Answers with `script(request)`: a text, a whole reply, or an error to raise; `requests` are those it got."""

    def __init__(self, script: Callable[[Request], Said], at_once: int = 1, prices: Mapping[str, Any] | None = None):
        self.script, self.at_once, self.prices = script, at_once, prices or {}
        self.requests: list[Request] = []

    @property
    def fingerprint(self) -> str:
        return "scripted"

    def call_model(self, request: Request) -> Reply:
        self.requests.append(request)
        said = self.script(request)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reply) else Reply(said, IN, OUT, SECONDS)


def saying(*script: Said, **options: Any) -> Scripted:
    """A model that says these one after the other, and nothing more."""
    left = iter(script)
    return Scripted(lambda _: next(left), **options)


def on(place: Store | Resources, chat: Scripted, stage: Any = None) -> Any:
    """The stage (or the chat itself) at work with these resources, or with its products in this store."""
    (stage or chat).use(place if isinstance(place, Resources) else Resources.from_store(place))
    return stage or chat


def text_of(request: Request) -> str:
    """What the user's message says."""
    return request.messages[-1][1]


def request(text: str, **options: Any) -> Request:
    return Request("model", (("user", text),), Sampling(), **options)


def prompt(name: str) -> dict[str, str]:
    """A prompt as it is delivered."""
    return yaml.safe_load((PROMPTS / f"{name}.yaml").read_text("utf-8"))


def in_json(**values: Any) -> str:
    return json.dumps(values)


def spent(usage: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """Calls, tokens in, tokens out and broken calls of each query."""
    return tuple(getattr(usage, name).tolist() for name in ("calls", "tokens_in", "tokens_out", "broken"))
