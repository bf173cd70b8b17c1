"""What a model is asked: messages, how it is to answer, and how long that is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rag_opt.components.checks import require
from rag_opt.text.tokenization import count_tokens

TOKENS_A_WORD = 1.3
"""Of a model's tokens so many are expected for a word or punctuation mark, before the first reply tells."""

# OpenAI's chat format takes 3 or 4.
MESSAGE_TOKENS = 4
"""What a message costs beside its text."""

SMALLEST_WINDOW = 64
"""Tokens that every model reads."""

REPEATED = re.compile(r"(\S)\1+|\s+")
LONGEST_TOKEN = 12
"""Characters of a text, runs of the same one counted once, of which every tokenizer makes a token or more."""


Messages = tuple[tuple[str, str], ...]
"""(role, text), one after the other."""


def check_model(model: Any) -> None:
    """Raise ValueError unless a model is named."""
    require(
        isinstance(model, str) and bool(model.strip()),
        f"a model must be named, such as llm.model=gpt-4o-mini, not {model}",
    )


@dataclass(frozen=True)
class Sampling:
    """How a model is to answer: temperature, top_p, seed, and at most so many tokens."""

    temperature: float = 0.0
    max_tokens: int = 256
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.temperature <= 2, f"temperature must be from 0 to 2, not {self.temperature}")
        require(0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, not {self.top_p}")
        require(type(self.max_tokens) is int and self.max_tokens > 0, f"max_tokens must be above 0: {self.max_tokens}")
        require(type(self.seed) is int, f"seed must be a whole number, not {self.seed}")


@dataclass(frozen=True)
class Request:
    """Messages (role, text) to a model, and the JSON schema that the reply must have.

    `attempt` tells repeated requests apart; `example`, no part of the request, is a reply such as may be expected.
    """

    model: str
    messages: Messages
    sampling: Sampling
    schema: Mapping[str, Any] | None = None
    attempt: int = 0
    example: str = ""

    @property
    def characters(self) -> int:
        """How long its messages are."""
        return sum(len(text) for _, text in self.messages)


def merge_system(messages: Messages) -> Messages:
    """The messages with what the system says before what the user does: some models take no system's."""
    system = "\n\n".join(text for role, text in messages if role == "system")
    others = [(role, text) for role, text in messages if role != "system"]
    if not system or not others:
        return messages
    (role, text), *rest = others
    return ((role, f"{system}\n\n{text}"), *rest)


def build_retry(request: Request, attempt: int) -> Request:
    """The request for a further attempt: another seed, and where JSON is wanted it is said that there was none.

    At temperature 0 the same words would get the same reply.
    """
    asked = replace(request, attempt=request.attempt + attempt)
    if not attempt or request.schema is None:
        return asked
    *before, (role, text) = request.messages
    keys = " and ".join(f'"{name}"' for name in request.schema.get("required", ()))
    said = f"{text}\n\nAn earlier reply could not be read. Reply with the JSON object alone, with {keys}, in one line."
    return replace(asked, messages=(*before, (role, said)))


def estimate_tokens(request: Request) -> int:
    """About how many tokens a request has."""
    texts = [text for _, text in request.messages] + ([json.dumps(request.schema)] if request.schema else [])
    return int(TOKENS_A_WORD * sum(map(count_tokens, texts))) + MESSAGE_TOKENS * len(request.messages)


def compute_min_tokens(request: Request) -> int:
    """Fewer tokens than any tokenizer makes of the messages: a token for two words, one for a dozen characters."""
    texts = [text for _, text in request.messages]
    letters = sum(len(REPEATED.sub(" ", text)) for text in texts)
    return max(sum(len(text.split()) for text in texts) // 2, letters // LONGEST_TOKEN)


def is_cut_short(request: Request, read: int) -> bool:
    """Whether a model has read fewer tokens than the request can have: its beginning, or its end, was cut off."""
    return SMALLEST_WINDOW <= compute_min_tokens(request) > read


class ReadTokens:
    """How many tokens a model has read of prompts of different lengths."""

    def __init__(self) -> None:
        self._sizes: dict[int, set[int]] = {}

    def is_stuck(self, request: Request, read: int) -> bool:
        """Whether as many tokens were read of prompts of clearly different lengths: all that the window holds."""
        # No window is so small: such prompts are short themselves.
        if read < SMALLEST_WINDOW:
            return False
        sizes = self._sizes.setdefault(read, set())
        sizes.add(estimate_tokens(request))
        # Ollama reads 2,048 tokens of 2,500 as of 4,000: one such count could be right, the same one each time can't.
        return len(sizes) >= 3 and max(sizes) > 1.1 * min(sizes)


def format_prompt_size(request: Request) -> str:
    """How long a request is, in words."""
    return f"{request.characters:,} characters, about {estimate_tokens(request):,} tokens,"


def explain_too_long(request: Request, thinking: int, window: int) -> str:
    """Why a request does not fit a model that reads and writes `window` tokens; "" where it does."""
    room = request.sampling.max_tokens + thinking
    if estimate_tokens(request) + room <= window:
        return ""
    return (
        f"a prompt of {format_prompt_size(request)} and {room:,} more for the answer do not fit llm.window={window}; "
        "hand on fewer or shorter chunks, or raise llm.window where the model reads more"
    )


def format_cut_short(request: Request, read: int) -> str:
    """That a model has read fewer tokens than the request can have."""
    least = compute_min_tokens(request)
    how = f", at the very least {least:,}" if least > read else ", and as many of prompts of other lengths"
    return (
        f"{request.model} says that it has read {read:,} tokens of a prompt of about "
        f"{estimate_tokens(request):,}{how}: "
        "its window is smaller than the prompt, and what is beyond it is never seen; widen it (Ollama: "
        "OLLAMA_CONTEXT_LENGTH=8192, or num_ctx in a Modelfile), or hand on fewer chunks"
    )
