"""What one question has cost so far, as its pipeline's components are called, and when it has cost too much."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rag_opt.components.external.found import QuestionError


@dataclass
class Watch:
    """Seconds and tokens of one question; `deadline` is on the monotonic clock. Kept calls count as they once took."""

    deadline: float
    timeout: float
    most_tokens: float
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    kept_in: int = 0
    kept_out: int = 0

    @property
    def paid(self) -> tuple[int, int]:
        """The tokens, read and written, that no kept call stands for."""
        return self.tokens_in - self.kept_in, self.tokens_out - self.kept_out

    def check(self) -> None:
        """Raise QuestionError where the question takes too long, or too many tokens."""
        if time.monotonic() > self.deadline:
            raise QuestionError(f"it took longer than pipeline.timeout={self.timeout:g} seconds")
        spent = self.tokens_in + self.tokens_out
        if spent > self.most_tokens:
            raise QuestionError(f"it took {spent:,} tokens, more than pipeline.max_tokens={self.most_tokens:,.0f}")

    def add_tokens(self, tokens_in: int, tokens_out: int, *, kept: bool = False) -> None:
        """Count tokens that a model has read and written; `kept`: it did so for an earlier call."""
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        if kept:
            self.kept_in += tokens_in
            self.kept_out += tokens_out


_current: ContextVar[Watch | None] = ContextVar("_current", default=None)


def get_watch() -> Watch | None:
    """The watch of the question that this thread works on; None while documents are indexed."""
    return _current.get()


@contextmanager
def watching(watch: Watch) -> Iterator[Watch]:
    """What is called within is this question's."""
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)


def count_usage(outputs: Mapping[str, Any]) -> tuple[int, int]:
    """The tokens, read and written, that a generator's outputs tell of, in its messages or beside its texts."""
    rows = [getattr(each, "meta", None) for name in ("replies", "messages") for each in outputs.get(name) or ()]
    rows += [each for each in outputs.get("meta") or () if isinstance(outputs.get("meta"), list)]
    usages = [row["usage"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("usage"), Mapping)]
    # Chat completions' names, then those of Anthropic and of OpenAI's responses.
    return tuple(  # type: ignore[return-value]
        sum(int(next((usage[name] for name in names if isinstance(usage.get(name), int)), 0)) for usage in usages)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
