"""Query transformations by a language model: what is searched for in place of the question."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag_opt.components.checks import require_whole
from rag_opt.components.llm.prompts import Prompt, build_messages, check_prompt
from rag_opt.components.llm.request import Messages, Request, Sampling, check_model
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Searches
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import split_words, to_encodable

if TYPE_CHECKING:
    from rag_opt.components.llm.chat import Chat
    from rag_opt.components.llm.talks import Talk, Talks


class Transformation(Stage):
    """Common to all: one text, or several, a query. Where a call fails the question itself is searched for."""

    pays_per_query = True

    chat: Chat
    model: str
    prompt: Prompt

    def _build_request(self, question: str, sampling: Sampling, count: int, said: Messages) -> Request:
        schema = {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
        # OpenAI's strict schemas want every object closed to further keys.
        whole = {
            "type": "object",
            "properties": {"queries": schema},
            "required": ["queries"],
            "additionalProperties": False,
        }
        # What a forecast counts in place of a reply.
        example = json.dumps({"queries": [question] * count}, ensure_ascii=False)
        return Request(self.model, said, sampling, whole, example=example)

    def _build_searches(
        self, queries: Queries, talks: Talks[list[str]], count: int, *, averaged: bool = False
    ) -> Searches:
        """The questions' texts as so many variants, short lists filled up with the question itself."""
        rows = [[*said, *[text] * count][:count] for said, text in zip(talks.results, queries.texts, strict=True)]
        variants = [_replace_texts(queries, [row[place] for row in rows]) for place in range(count)]
        key = compute_key(self.fingerprint, queries.key)
        return Searches(tuple(variants), averaged, {key: talks.seconds}, {key: talks.usage})


def _replace_texts(queries: Queries, texts: list[str]) -> Queries:
    return Queries.from_items(
        tuple(replace(query, text=text) for query, text in zip(queries.items, texts, strict=True))
    )


def _parse_queries(found: Any, count: int) -> list[str] | None:
    """Up to `count` distinct texts of {"queries": [...]}; None when there is none."""
    texts = found.get("queries") if isinstance(found, dict) else None
    if not isinstance(texts, list):
        return None
    # An ellipsis copied from the prompt is no query.
    kept = dict.fromkeys(to_encodable(text).strip() for text in texts if isinstance(text, str) and split_words(text))
    return list(kept)[:count] or None


@component
class HyDE(Transformation):
    """Passages that a model imagines as answers; the mean of their vectors and the question's is searched for.

    Gao et al. 2022 (arXiv 2212.10496). Only dense retrieval takes it.
    """

    algorithm = "rag_opt.components.transforms.HyDE"

    def __init__(
        self, chat: Chat, model: str, prompt: Prompt, passages: int, temperature: float, max_tokens: int
    ) -> None:
        require_whole("passages", passages)
        check_model(model)
        check_prompt(prompt, {"user": ("question",)})
        self.chat = chat
        self.model = model
        self.prompt = prompt
        self.passages = passages
        self.temperature = temperature
        self.max_tokens = max_tokens
        # A seed for each: a second request in the same words would get the kept reply to the first.
        self._samplings = [Sampling(temperature, max_tokens, 1.0, seed) for seed in range(passages)]

    @component.output_types(dense_queries=Searches)
    def run(self, queries: Queries) -> dict[str, Searches]:
        talks = self.chat.map_items("query", self._generate_passages, queries.texts)
        # The question is one of the texts, as in the paper.
        return {"dense_queries": self._build_searches(queries, talks, self.passages + 1, averaged=True)}

    def _generate_passages(self, talk: Talk, question: str) -> list[str]:
        asked = build_messages(self.prompt, question=question)
        found = [talk.ask(Request(self.model, asked, sampling)) for sampling in self._samplings]
        return [question, *(text.strip() for text in found if text and text.strip())]


@component
class MultiQuery(Transformation):
    """The question and `count` other ways to ask it; each is searched for, the rankings are fused by their ranks."""

    algorithm = "rag_opt.components.transforms.MultiQuery"

    def __init__(self, chat: Chat, model: str, prompt: Prompt, count: int, temperature: float) -> None:
        require_whole("count", count)
        check_model(model)
        check_prompt(prompt, {"user": ("question", "count")})
        self.chat = chat
        self.model = model
        self.prompt = prompt
        self.count = count
        self.temperature = temperature
        self._sampling = Sampling(temperature, 64 * count)

    @component.output_types(bm25_queries=Searches, dense_queries=Searches)
    def run(self, queries: Queries) -> dict[str, Searches]:
        talks = self.chat.map_items("query", self._generate_queries, queries.texts)
        found = self._build_searches(queries, talks, self.count + 1)
        return {"bm25_queries": found, "dense_queries": found}

    def _generate_queries(self, talk: Talk, question: str) -> list[str]:
        said = build_messages(self.prompt, question=question, count=str(self.count))
        request = self._build_request(question, self._sampling, self.count, said)
        return [question, *(talk.ask_json(request, lambda found: _parse_queries(found, self.count)) or [])]


class Rewriting(Transformation):
    """Common to both places where a rewritten query may be searched for."""

    def __init__(self, chat: Chat, model: str, prompt: Prompt, temperature: float) -> None:
        check_model(model)
        check_prompt(prompt, {"user": ("question",)})
        self.chat = chat
        self.model = model
        self.prompt = prompt
        self.temperature = temperature
        self._sampling = Sampling(temperature, 64)

    def _rewrite(self, queries: Queries) -> Searches:
        def work(talk: Talk, question: str) -> list[str]:
            request = self._build_request(question, self._sampling, 1, build_messages(self.prompt, question=question))
            return talk.ask_json(request, lambda found: _parse_queries(found, 1)) or []

        return self._build_searches(queries, self.chat.map_items("query", work, queries.texts), 1)


@component
class Rewrite(Rewriting):
    """The question as a search query, for every retriever."""

    algorithm = "rag_opt.components.transforms.Rewrite"

    @component.output_types(bm25_queries=Searches, dense_queries=Searches, web_queries=Searches)
    def run(self, queries: Queries) -> dict[str, Searches]:
        found = self._rewrite(queries)
        return {"bm25_queries": found, "dense_queries": found, "web_queries": found}


@component
class WebRewrite(Rewriting):
    """The question as a search query, for the web alone."""

    algorithm = "rag_opt.components.transforms.WebRewrite"

    @component.output_types(web_queries=Searches)
    def run(self, queries: Queries) -> dict[str, Searches]:
        return {"web_queries": self._rewrite(queries)}
