"""What a model is asked for when questions are made: to write them, and to answer them with and without their text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_opt.components.llm.prompts import Prompt, build_examples, build_messages, check_prompt, number_texts
from rag_opt.components.llm.request import Request, Sampling, check_model
from rag_opt.config.compose import load_prompt
from rag_opt.config.trust import build, to_plain
from rag_opt.errors import ConfigError
from rag_opt.questions.kinds import (
    COMPARISON,
    FIELDS,
    SENTENCE,
    MadeQuestion,
    Target,
    build_schema,
    parse_question,
    parse_reply,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rag_opt.components.llm.chat import Chat
    from rag_opt.components.llm.talks import Talk
    from rag_opt.components.resources import Resources

WRITE, TRIP, CLOSED = "questions written", "questions answered", "questions answered without documents"
"""The stages that calls are paid under."""

TOKENS, ANSWER = 256, 64
"""Tokens that a question and an answer may have."""


@dataclass(frozen=True)
class Author:
    """A model that writes questions and answers them; `prompts` by kind, `answer` as generators are asked."""

    chat: Chat
    model: str
    prompts: Mapping[str, Prompt]
    answer: Prompt

    def __post_init__(self) -> None:
        check_model(self.model)
        for kind, prompt in self.prompts.items():
            check_prompt(prompt, {"user": ("passage", "other") if kind == COMPARISON else ("passage",)})

    def use_resources(self, resources: Resources) -> Author:
        """This one at work with these resources, and with no memory of failed calls."""
        chat = self.chat.clone()
        chat.use(resources)
        return replace(self, chat=chat)

    @property
    def price(self) -> float:
        """Dollars for a token read and one written; nan where not known."""
        return self.chat.compute_usd(self.model, 1, 1)

    def write(self, targets: Sequence[Target]) -> list[MadeQuestion | None]:
        """A question for each target, None where nothing could be read."""
        return self.chat.map_items(WRITE, self._write_one, targets).results

    def answer_from(self, questions: Sequence[MadeQuestion]) -> list[str | None]:
        """The answer to each question from its quotes alone; None where none came."""

        def answer(talk: Talk, made: MadeQuestion) -> str | None:
            return talk.ask(self._build_question(made, "user", documents=number_texts(made.quotes)))

        return self.chat.map_items(TRIP, answer, questions).results

    def answer_alone(self, questions: Sequence[MadeQuestion]) -> list[str | None]:
        """The answer to each question from what the model knows; None where none came."""
        return self.chat.map_items(
            CLOSED, lambda talk, made: talk.ask(self._build_question(made, "alone")), questions
        ).results

    def _write_one(self, talk: Talk, target: Target) -> MadeQuestion | None:
        prompt = self.prompts[target.kind]
        messages = build_messages(prompt, "user", **target.inputs)
        if target.kind == SENTENCE:
            turns = build_examples(prompt, messages)
            text = talk.ask(Request(self.model, turns, Sampling(max_tokens=ANSWER), example=_build_question(target)))
            return None if text is None else parse_question(target, text)
        sampling, schema = Sampling(max_tokens=TOKENS), build_schema(target)
        request = Request(self.model, messages, sampling, schema, example=_build_example(target))
        return talk.ask_json(request, lambda given: parse_reply(target, given))

    def _build_question(self, made: MadeQuestion, part: str, **texts: str) -> Request:
        messages = build_messages(self.answer, part, question=made.question, **texts)
        return Request(self.model, messages, Sampling(max_tokens=ANSWER))


def _build_example(target: Target) -> str:
    """A reply such as may come, for a forecast: it passes what sifts the real ones."""
    words = (target.passages[0].sentences or [""])[0].split()
    asked, answer = _build_question(target), " ".join(words[:3]) or "nothing"
    told = {"question": asked, "answer": answer, "sentence": 1, "other": 1}
    return json.dumps({name: told[name] for name in FIELDS[target.kind]})


def _build_question(target: Target) -> str:
    words = (target.passages[0].sentences or [""])[0].split()
    # Fewer words in a row than make a copy (flags.FEWEST).
    return f"What is known about {' '.join(words[3:8])}?"


def build_author(config: DictConfig) -> Author:
    """The author that `llm` of a configuration names; raises ConfigError."""
    node: dict[str, Any] = to_plain(config.llm)
    chat: Any = build(node["chat"], to_plain(config.trusted_modules))
    try:
        prompts = {kind: load_prompt(f"question_{kind}") for kind in (*FIELDS, SENTENCE)}
        return Author(chat, node["model"], prompts, load_prompt("answer"))
    except ValueError as error:
        raise ConfigError(f"questions: {error}") from error
