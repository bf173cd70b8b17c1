"""A pipeline that is a running service: a question as JSON, documents and an answer as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rag_opt.components.checks import require
from rag_opt.components.external.asking import answer_queries
from rag_opt.components.external.found import Found, QuestionError, parse_found
from rag_opt.components.external.settings import check_asking
from rag_opt.components.hosts import is_loopback
from rag_opt.components.llm.endpoint import check_key
from rag_opt.components.retrievers.fetching import FetchError, fetch_url
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Documents, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Answers, Rankings
from rag_opt.system.haystack import component


@component
class Service(Stage):
    """Posts {"question": …, **parameters} to `url`, https or this machine's, `at_once` questions at a time.

    `key` names the environment variable that holds what is sent as a bearer token. `timeout` is in seconds, of one
    question. What it gives is kept by address, `version`, parameters and question.
    """

    algorithm = "rag_opt.external.Service"
    pays_per_query = True

    def __init__(
        self,
        url: str,
        parameters: Mapping[str, Any],
        key: str | None = None,
        at_once: int = 4,
        timeout: float = 120,
        version: str = "",
    ) -> None:
        check_asking(at_once, timeout)
        parts = urlsplit(str(url))
        # Without TLS the key could be read on its way.
        plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        require(
            bool(parts.hostname) and (parts.scheme == "https" or plain) and parts.username is None,
            f"pipeline.url={url}: an https address is expected, or http on this machine, without a password",
        )
        check_key("pipeline.key", key)
        require("question" not in parameters, "parameters.question: that is what the question is sent as")
        self.url = url
        self.parameters = dict(parameters)
        self.key = key
        self.at_once = at_once
        self.timeout = timeout
        self.version = version

    @property
    def fingerprint(self) -> str:
        """The hash of its address, version and parameters."""
        # A service shows no code: `version` stands for it.
        return compute_key(self.algorithm, self.url, self.version, self.parameters)

    @component.output_types(ranking=Rankings, answers=Answers)
    def run(self, queries: Queries, documents: Documents) -> dict[str, Any]:
        ranking, answers = answer_queries(
            self.resources, self.url, self.fingerprint, queries, documents, self._ask, at_once=self.at_once
        )
        return {"ranking": ranking, "answers": answers}

    def _ask(self, question: str) -> tuple[Found, float, tuple[int, int]]:
        body = json.dumps({"question": question, **self.parameters}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {os.environ.get(self.key, '')}"
        start = time.perf_counter()
        try:
            # The guarded way: a service may not redirect into a private network either.
            response = fetch_url("POST", self.url, headers, body, self.timeout)
        except FetchError as error:
            raise QuestionError(str(error)) from error
        seconds = time.perf_counter() - start
        if response.status != 200:
            said = " ".join(response.body.decode("utf-8", "replace").split())[:200]
            raise QuestionError(f"status {response.status}: {said}")
        try:
            found = parse_found(json.loads(response.body))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise QuestionError(f"it answers with what is no JSON ({error})") from error
        return found, seconds, (found.tokens_in, found.tokens_out)
