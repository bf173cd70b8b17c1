"""A pipeline that is a function of someone's own: LangChain, LlamaIndex, whatever can be called with a question."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rag_opt.components.external.asking import answer_queries, run_within
from rag_opt.components.external.code import digest_code
from rag_opt.components.external.found import Found, parse_found
from rag_opt.components.external.settings import check_asking
from rag_opt.components.stage import Stage
from rag_opt.config.functions import QUESTION, check_arguments, import_trusted
from rag_opt.records.documents import Documents, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Answers, Rankings
from rag_opt.system.haystack import component


@component
class Function(Stage):
    """Asks `function(question, **parameters)`, sync or async, `at_once` questions at a time.

    What it gives is kept by its code (or `version`), the parameters and the question. `timeout` is in seconds, of one
    question. Raises ConfigError where it is no function of a trusted module, or does not take a parameter.
    """

    algorithm = "rag_opt.external.Function"
    pays_per_query = True

    def __init__(
        self,
        function: str,
        parameters: Mapping[str, Any],
        trusted: Sequence[str] = (),
        at_once: int = 1,
        timeout: float = 120,
        version: str | None = None,
    ) -> None:
        check_asking(at_once, timeout)
        self.function = function
        self.parameters = dict(parameters)
        self.trusted = tuple(trusted)
        self.at_once = at_once
        self.timeout = timeout
        self.version = version
        # Imported now, so that what is wrong with it is said before trial 0.
        self._call = import_trusted("pipeline.function", function, self.trusted)
        check_arguments("pipeline.function", function, self._call, [QUESTION, *self.parameters])

    @property
    def fingerprint(self) -> str:
        """The hash of its code, or of the version that stands for it, and of its parameters."""
        code = digest_code(self._call) if self.version is None else self.version
        return compute_key(self.algorithm, self.function, code, self.parameters)

    @component.output_types(ranking=Rankings, answers=Answers)
    def run(self, queries: Queries, documents: Documents) -> dict[str, Any]:
        ranking, answers = answer_queries(
            self.resources, self.function, self.fingerprint, queries, documents, self._ask, at_once=self.at_once
        )
        return {"ranking": ranking, "answers": answers}

    def _ask(self, question: str) -> tuple[Found, float, tuple[int, int]]:
        # In a thread of its own, since nothing else leaves behind a function that hangs.
        value, seconds = run_within(lambda: call(self._call, question, self.parameters), self.timeout)
        found = parse_found(value)
        return found, seconds, (found.tokens_in, found.tokens_out)


def call(function: Callable[..., Any], question: str, parameters: Mapping[str, Any]) -> Any:
    """What the function gives, once it is there."""
    value = function(question, **parameters)
    if not inspect.isawaitable(value):
        return value

    # What came may be any awaitable, and asyncio.run takes coroutines alone.
    async def wait() -> Any:
        return await value

    return asyncio.run(wait())
